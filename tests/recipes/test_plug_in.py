"""The recipe as a user runs it: in Python and from YAML the numbers are the same, and a second call goes on."""

import json
from pathlib import Path

import pytest

from tests import process
from tests.process import environment

SCRIPT = Path(__file__).parents[2] / "recipes" / "plug_in.py"
ARGS = ("--accelerator", "cpu", "--epochs", "2", "--batch-size", "256")


def run(*args: str, script: Path = SCRIPT) -> str:
    """Run the script in the current folder, which is the test's own, and return what it printed."""
    env = environment(COLUMNS="160", PYTHONWARNINGS="ignore")
    return process.run(script, *args, env=env).stdout


def results(folder: str) -> dict:
    return json.loads((Path(folder) / "results.json").read_text())


def test_help():
    assert "python recipes/plug_in.py --cli" in run("--help")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plug_in")
    python, cli = folder / "python", folder / "cli"
    out = run(*ARGS, "--output", str(python))
    run(*ARGS, "--output", str(cli), "--cli", "--wandb", "disabled")
    return python, cli, out


def test_the_table_and_the_results_hold_the_same_numbers(both):
    python, _, out = both
    found = results(python)
    assert found.keys() == {"config", "metrics", "rows", "seconds", "versions"}
    assert [row["weights"] for row in found["rows"]] == ["restored best", "last"]
    for row, suffix in zip(found["rows"], ("", "_last"), strict=True):
        (line,) = (line for line in out.splitlines() if line.startswith(f"│ {row['weights']}"))
        for name in ("val/loss", "val/acc", "test/loss", "test/acc"):
            assert found["metrics"][name + suffix] == row[name]
            assert f" {row[name]:.4g} " in line


def test_yaml_and_python_train_the_same_net(both):
    python, cli, _ = both
    assert results(cli)["metrics"] == results(python)["metrics"]


def test_weights_and_biases_is_told_where_it_is_wanted(both):
    python, cli, _ = both
    assert len(list(python.glob("wandb/offline-run-*"))) == 1
    assert not (cli / "wandb").exists()


def test_resume_goes_on_from_the_newest_checkpoint(both):
    _, cli, _ = both
    run(
        "--accelerator",
        "cpu",
        "--epochs",
        "3",
        "--batch-size",
        "256",
        "--cli",
        "--wandb",
        "disabled",
        "--resume",
        "--output",
        str(cli),
    )
    assert results(cli)["rows"][1]["epoch"] == 2
