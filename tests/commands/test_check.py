import json
import subprocess
import sys

import pytest

from lightning_trainingkit.dashboards.local import collect
from tests.commands.conftest import PLAIN
from tests.process import ROOT, environment

MODULE, DATA = "plain_project.py:MyModule", "plain_project.py:MyData"
GOOD = (MODULE, "--data", DATA, "--module.classes", 3)


def test_arguments_reach_the_users_classes_and_the_steps(check, steps, project):
    before = {path.name for path in project.iterdir()}
    code, out, err = check(
        *(*GOOD, "--module.lr", 0.02, "--data.batch_size=8", "--trainer.gradient_clip_val", 1),
        *("--trainer.max_epochs", 3, "--expected", 1.5),
    )
    assert (code, err) == (0, "")
    assert "MyModule: no step fails" in out
    assert "Do [that]" in out
    assert "Left out, since a step is a short trial: max_epochs." in out
    for name, (module, data, options) in steps[1].items():
        assert (type(module).__name__, module.hparams.lr, module.hparams.classes) == ("MyModule", 0.02, 3)
        assert (type(data).__name__, data.batch_size) == ("MyData", 8)
        assert options["trainer_options"] == {"devices": 1, "gradient_clip_val": 1.0}
        assert options.get("expected") == (1.5 if name == "initial_loss" else None)
    assert {path.name for path in project.iterdir()} - {"__pycache__"} == before  # nothing is written


def test_a_step_that_fails_or_raises_ends_with_code_1_and_the_next_step_still_runs(check, steps):
    steps[0].update(initial_loss="raise")
    code, out, _ = check(*GOOD)
    assert code == 1
    assert "a step fails" in out
    assert "IndexError: Target 3 is out of bounds." in " ".join(out.split())
    assert list(steps[1]) == ["initial_loss", "small_sample", "learning_rate"]
    assert check(*GOOD, "--steps", 2, 3)[0] == 0
    steps[0].update(learning_rate="fail")
    assert check(*GOOD, "--steps", 3)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((MODULE, "--data", DATA), "`--module.classes` must be given, since MyModule has no default"),
        ((MODULE, "--module.klasses", 3), "Did you mean --module.classes?"),
        ((*GOOD, "--module.classes", "ten"), "Expected a <class 'int'>. Got value: ten"),
        (
            (*GOOD, "--module.lr", -1),
            "must be built without an error, got RuntimeError: negative rate (plain_project.py,",
        ),
        (("plain_project.py:MyModul",), "got 'MyModul'. Did you mean MyModule?"),
        (("plain_project.py:Zzz",), "got 'Zzz'. It has MyData, MyModule, broken_loader, my_loader."),
        (("plain_project.py",), "must be FILE.py:NAME or PACKAGE.MODULE:NAME, got 'plain_project.py'"),
        ((DATA,), "must be a LightningModule of lightning.pytorch, got"),
        (("none.py:MyModule",), "must name a file that exists"),
        (("no_such_module:MyModule",), "must name a module that can be imported"),
        (("broken_project.py:MyModule",), "No module named 'no_such_package' (broken_project.py, line 1)"),
        ((*GOOD[:2], "plain_project.py:broken_loader", *GOOD[3:]), "got OSError: disk on fire (plain_project.py, line"),
        ((*GOOD[:2], "plain_project.py:L", *GOOD[3:]), "must name a DataModule, a loader, or a function"),
        (
            (MODULE, "--module.classes", 3, "--data.batch_size", 4),
            "must be a LightningDataModule where it has arguments",
        ),
        ((*GOOD, "--config", "none.yaml"), "`--config` must be a YAML file of LightningCLI, got none.yaml"),
    ],
)
def test_bad_input_is_said_in_a_line(check, steps, arguments, words):
    code, out, err = check(*arguments)
    assert (code, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1
    assert steps[1] == {}


def test_data_may_be_a_function_that_returns_a_loader_or_absent(check, steps):
    assert check(MODULE, "--data", "plain_project.py:my_loader", "--module.classes", 3)[0] == 0
    assert steps[1]["small_sample"][1].batch_size == 32
    assert check(MODULE, "--module.classes", 3)[0] == 0
    assert steps[1]["small_sample"][1] is None  # the module's own loader


def test_classes_without_arguments(check, steps, project):
    (project / "plain_project.py").write_text(
        "import lightning as L\nclass MyModule(L.LightningModule): pass\nclass MyData(L.LightningDataModule): pass\n"
    )
    assert check(MODULE, "--data", DATA)[0] == 0
    assert type(steps[1]["small_sample"][1]).__name__ == "MyData"


def test_a_file_of_lightning_cli_is_taken_and_the_command_line_overrules_it(check, steps, project):
    (project / "run.yaml").write_text(
        "seed_everything: 7\n"
        "model:\n  class_path: plain_project.MyModule\n  init_args:\n    classes: 3\n    lr: 0.5\n    width: 16\n"
        "data:\n  batch_size: 4\n"
        "trainer:\n  max_epochs: 30\n  accumulate_grad_batches: 2\n  logger: null\n"
        "ckpt_path: null\n"
    )
    code, out, _ = check(MODULE, "--data", DATA, "--config", "run.yaml", "--module.lr", 0.25)
    assert code == 0
    assert "Left out, since a step is a short trial: max_epochs." in out
    module, data, options = steps[1]["initial_loss"]
    assert (module.hparams.lr, module.hparams.width, data.batch_size) == (0.25, 16, 4)
    assert options["trainer_options"] == {"devices": 1, "accumulate_grad_batches": 2}
    (project / "run.yaml").write_text("model:\n  class_path: others.Net\n  init_args: {}\n")
    assert (
        "must hold the settings of MyModule under model, got those of others.Net"
        in check(MODULE, "--config", "run.yaml")[2]
    )


def test_verdicts_are_written_and_recorded_where_that_is_asked(check, steps, project, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    code, out, _ = check(*GOOD, "--output", project / "out", "--wandb", "offline")
    assert code == 0
    assert "Recorded in" in out
    written = json.loads((project / "out" / "results.json").read_text())
    assert [(row["step"], row["verdict"]) for row in written["rows"]] == list(steps[0].items())
    assert written["metrics"] == dict.fromkeys(steps[0], 2.0)
    data = collect([project / "out"])
    (run,) = data["runs"]
    assert (run["project"], run["job_type"], run["name"]) == ("mine", "check", "MyModule")
    assert run["checks"]["small_sample"] == "warn. Measured small_sample. Do [that]: `lr=0.1`."
    assert not [name for name in (*data["settings"], *data["shared"]) if name.startswith("check")]
    assert "must be new or empty, got" in check(*GOOD, "--output", project / "out")[2]


@pytest.mark.slow
def test_the_steps_pass_a_healthy_project(check):
    code, out, _ = check(*GOOD, "--trainer.accelerator", "cpu")
    assert code == 0
    assert out.count(" pass ") == 3


@pytest.mark.slow
def test_a_project_with_pytorch_lightning_that_has_never_imported_the_kit(tmp_path):
    (tmp_path / "theirs.py").write_text(PLAIN.format(package="pytorch_lightning"))
    command = [sys.executable, "-m", "lightning_trainingkit.cli", "check", "theirs.py:MyModule", "--data"]
    command += ["theirs.py:MyData", "--module.classes", "2", "--trainer.accelerator", "cpu"]
    env = environment(PYTHONWARNINGS="ignore", PYTHONPATH=str(ROOT), COLUMNS="200")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MyModule: a step fails" in done.stdout
    assert "`cross_entropy` of 2 classes takes labels from 0 to 1, and got 0 to 2." in done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["theirs.py"]
