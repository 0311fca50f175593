import pytest

from lightning_trainingkit.cli import main

FALLS = [2.3, 1.5, 1.1, 0.8, 0.6, 0.5, 0.4, 0.33, 0.27, 0.22]


def write(folder, rows, header="step,train_loss,val_loss"):
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")


def test_a_line_for_each_run_says_the_shape_and_what_to_do(tmp_path, capsys):
    write(tmp_path / "short", [f"{10 * n},{loss},{loss + 0.02}" for n, loss in enumerate(FALLS)])
    write(tmp_path / "apart", [f"{10 * n},{loss},{2 - loss / 4 + 0.2 * n}" for n, loss in enumerate(FALLS)])
    write(tmp_path / "other", ["0,0.5", "9,0.4"], "step,width")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metrics.csv").write_text("")
    assert main(["read", str(tmp_path)]) == 0
    said = capsys.readouterr()
    lines = sorted(line.partition("/")[2] for line in said.out.splitlines())
    assert len(lines) == 3
    assert lines[0].startswith("apart: overfit. ")
    assert "Regulari" in lines[0]
    assert lines[1].startswith("other: not read. The curves must have a training loss, got width.")
    assert lines[2].startswith("short: cut too early. ")
    assert lines[2].endswith("Train longer: raise max_epochs.")
    assert "bad/metrics.csv: it is empty." in said.err


@pytest.mark.parametrize(
    ("folders", "words"),
    [(["none"], "which does not exist"), (["."], "`DIR` must hold a run, got .. Name the folder of a logger")],
)
def test_a_folder_without_runs(tmp_path, capsys, monkeypatch, folders, words):
    monkeypatch.chdir(tmp_path)
    assert main(["read", *folders]) == 1
    assert words in capsys.readouterr().err
