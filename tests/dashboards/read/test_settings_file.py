import os
import time

import pytest
import yaml

from lightning_trainingkit.dashboards.read.settings_file import read_settings


def read(folder, text):
    (folder / "hparams.yaml").write_text(text)
    start = time.monotonic()
    found = read_settings(folder)
    assert time.monotonic() - start < 2
    return found


def test_aliases_are_read_where_they_stand_for_little(tmp_path):
    shared = {"lr": 0.1, "betas": [0.9, 0.99]}
    text = yaml.dump({"generator": shared, "critic": shared, "all": [shared, shared]})
    assert "*id001" in text
    found, note = read(tmp_path, text)
    assert note == ""
    assert found["critic.lr"] == found["all.1.lr"] == 0.1
    assert found["critic.betas"] == "[0.9, 0.99]"
    assert read(tmp_path, "base: &b {lr: 0.1}\nmine:\n  <<: *b\n  width: 3\n")[0]["mine.lr"] == 0.1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a {b: *a}\n", "after its anchor"),
        ("a: &a [1, 2]\nb: &a [*a, *a]\n", "after its anchor"),
        ("&a [*a]: 1\n", "after its anchor"),
        ("l0: &l0 [x]\n" + "".join(f"l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 9)}]\n" for n in range(60)), "nodes"),
        (
            "l0: &l0 {x: 1}\n"
            + "".join(f"l{n + 1}: &l{n + 1}\n  <<: [{', '.join([f'*l{n}'] * 9)}]\n" for n in range(60)),
            "nodes",
        ),
        ("a: " + "[" * 500 + "]" * 500, "levels"),
        ("a: " + "[" * 400_000, ""),
        ("".join(f"{'  ' * n}k{n}:\n" for n in range(900)), "levels"),
        ("\n".join(f"k{n}: 1" for n in range(60_000)), "nodes"),
        ("x" * 1_100_000, "bytes"),
        ("a: [1\n", "did not find expected"),
        ("a: \0\n", "unacceptable character"),
        ("[1, 2]: 3\n? {a: 1}\n: 4\n", "unhashable"),
        ("--- {a: 1}\n--- {b: 2}\n", "single document"),
        ("just text", "no settings by name"),
    ],
)
def test_what_cannot_be_read_is_noted(tmp_path, text, why):
    found, note = read(tmp_path, text)
    assert found == {}
    assert note.startswith("hparams.yaml could not be read (")
    assert why in note


def test_odd_scalars_are_settings(tmp_path):
    found, note = read(
        tmp_path,
        "big: 1e999\ninf: .inf\nnan: .nan\nhex: 0x1F\ntime: 190:20:30\nday: 2026-01-02\nno_day: 2026-99-99\n"
        f"digits: {'9' * 5000}\nbinary: !!binary aGVsbG8=\nodd: !mine {{x: 1}}\nobject: !!python/object:a.B {{}}\n"
        f"null: 1\n3: 2\n'': 4\nsexagesimal: {'59:' * 300}59.5\nset: !!set {{b, a}}\nlong: {'x' * 5000}\n",
    )
    assert note == ""
    assert (found["hex"], found["time"], found["day"], found["no_day"]) == (31, 685230, "2026-01-02", "2026-99-99")
    assert (found["big"], found["inf"], found["None"], found["3"], found[""]) == ("1e999", float("inf"), 1, 2, 4)
    assert (found["odd"], found["object"], found["set"]) == ("!mine", "object:a.B", "['a', 'b']")
    assert len(found["digits"]) < 1010
    assert len(found["long"]) < 1010


def test_a_pipe_is_no_settings_and_is_not_waited_for(tmp_path):
    assert read_settings(tmp_path) == ({}, "")
    os.mkfifo(tmp_path / "hparams.yaml")
    assert "got a pipe" in read_settings(tmp_path)[1]
    (tmp_path / "hparams.yaml").unlink()
    (tmp_path / "hparams.yaml").symlink_to("/dev/zero")
    assert "got a device" in read_settings(tmp_path)[1]
    (tmp_path / "hparams.yaml").unlink()
    (tmp_path / "hparams.yaml").symlink_to(tmp_path / "hparams.yaml")
    assert "symbolic links" in read_settings(tmp_path)[1]
