"""The recipe as README runs it; two trainings of it in a shell, one of them killed, are the slow ones."""

import json
import re

import pytest

from tests.readme import blocks, run_block


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unkilled")
    return folder, run_block("python recipes/quickstart.py\n", folder)


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_it_learns_the_digits_and_says_where_everything_is(unkilled):
    folder, finished = unkilled
    found = results(folder / "runs" / "quickstart")
    assert found["metrics"]["test/acc"] >= 0.97
    assert set(found) == {"config", "metrics", "rows", "seconds", "versions"}
    best, last = found["rows"]
    assert (best["weights"], last["weights"]) == ("restored best", "last")
    assert best["val/loss"] <= last["val/loss"]
    assert found["metrics"]["test/acc_last"] == last["test/acc"]
    for row in (best, last):
        assert re.search(rf"{row['weights']} .* {row['epoch']} .*{row['test/acc']:.4g}", finished.stdout)
    assert len(list((folder / "runs" / "quickstart" / "wandb").glob("offline-run-*/run-*.wandb"))) == 1
    assert "Next:" in finished.stdout


@pytest.mark.slow
def test_killed_and_resumed_it_ends_like_an_unkilled_run(tmp_path):
    (block,) = (text for text in blocks("bash") if "kill -9" in text)
    said = run_block(block, tmp_path).stdout
    *_, resumed = re.findall(r"from step (\d+), ran (\d+) of (\d+)", said)
    first, ran, steps = map(int, resumed)
    assert 0 < ran == steps - first < steps
    assert results(tmp_path / "runs" / "killed")["metrics"]["difference"] == 0


@pytest.mark.slow
def test_two_ranks_end_equal_and_as_good(unkilled, run_recipe, tmp_path):
    finished = run_recipe("quickstart.py", "--devices", 2, "--strategy", "ddp", "--accelerator", "cpu", folder=tmp_path)
    assert "Largest difference of parameters and buffers between ranks: 0\n" in finished.stdout
    one, two = (results(folder / "runs" / "quickstart")["metrics"]["test/acc"] for folder in (unkilled[0], tmp_path))
    assert abs(one - two) <= 0.02
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["quickstart"]
    assert len(list(tmp_path.glob("runs/quickstart/wandb/offline-run-*"))) == 1


def test_a_callback_can_be_left_out(run_recipe, tmp_path):
    without = ("--without", "BestCheckpoint", "--without", "CommandCenter", "--epochs", 1)
    run_recipe("quickstart.py", *without, "--output", tmp_path / "out", folder=tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "checkpoints"}
    (row,) = results(tmp_path / "out")["rows"]
    assert row["weights"] == "restored best"


def test_a_folder_that_is_not_empty_is_refused(run_recipe, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    finished = run_recipe("quickstart.py", "--output", "out", folder=tmp_path, ok=False)
    assert finished.returncode != 0
    assert "`--output` must be new or empty, got out. Add --resume to go on in it." in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "`--data` must be digits, fashion-mnist, cifar10 or a folder, got 'nowhere'"),
        (["--resume"], "`--resume` must find a run, got no runs/quickstart"),
        (["--compare-to", "nowhere"], "--compare-to must be a run with checkpoints"),
        (["--epochs", "0"], "argument --epochs: must be at least 1, got 0"),
        (["--devices", "3", "--batch-size", "2"], "--batch-size must be at least the number of devices, 3, got 2."),
        (["--compare-to", "x", "--without", "BestCheckpoint"], "take it without `--without BestCheckpoint`"),
        (["--data", "fashion-mnist", "--data-dir", "nowhere"], "`data_dir` must hold the four files of Fashion-MNIST"),
    ],
)
def test_bad_options_are_one_line_before_training(refused, tmp_path, arguments, message):
    assert message in refused("quickstart.py", *arguments, folder=tmp_path).splitlines()[-1]
    assert not (tmp_path / "runs").exists()
