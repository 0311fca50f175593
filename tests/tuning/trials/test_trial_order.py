"""What a trial gets from its order: variables, a folder, a record in W&B. No process starts."""

from types import SimpleNamespace

import pytest
from torch import nn

from lightning_trainingkit.dashboards.checks import without_checks
from lightning_trainingkit.dashboards.read.record import Record
from lightning_trainingkit.tuning.trials import trial_record
from lightning_trainingkit.tuning.trials.attempts import Attempt
from lightning_trainingkit.tuning.trials.pruning import ReportToStudy
from lightning_trainingkit.tuning.trials.trial_checkpoint import KeepLast
from lightning_trainingkit.tuning.trials.trial_process import own_environment
from lightning_trainingkit.tuning.trials.trial_slot import TrialSlot, make_order
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError


def attempt(number, **params):
    return Attempt(ticket=0, number=number, params=params, seed=99, reports={}, trial=0, trial_id=0)


def order(folder, attempt, environment=None):
    options = {"study": "demo", "accelerator": "cpu", "ranks": 0, "threads": 0}
    return make_order(attempt, b"", b"", folder=folder, environment=environment or {}, **options)


def test_a_trial_keeps_the_variables_of_its_job_and_joins_no_cluster(tmp_path):
    kept = {"SLURM_JOB_ID": "7", "SLURM_TMPDIR": "/scratch", "LSB_JOBID": "7", "HOME": "/me"}
    cluster = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "JSM_NAMESPACE_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"}
    launched = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "8", "RANK": "3", "MASTER_PORT": "1"}
    assert own_environment(order(tmp_path, attempt(0), kept | cluster | launched)) == kept


def test_checkpoints_of_a_deleted_study_in_the_same_folder_are_not_resumed(tmp_path):
    orders = [order(tmp_path, attempt(number)) for number in range(3)]
    for each in orders:
        each.home.mkdir(parents=True)
        (each.home / "last.ckpt").write_text("of the deleted study")
    slots = [TrialSlot(attempt(0), orders[0], None, False), TrialSlot(attempt(1), orders[1], None, False)]
    (orders[0].home / "last.ckpt").write_text("new")
    assert slots[1].order.earlier.read_text() == orders[2].earlier.read_text() == "new"


def test_short_epochs_are_logged_twice_at_least(tmp_path):
    def logged_every(steps, every=50, **options):
        record = trial_record.RecordTrial(order(tmp_path, attempt(0)), None, **options)
        trainer = SimpleNamespace(num_training_batches=steps, accumulate_grad_batches=1, log_every_n_steps=every)
        record.on_train_start(trainer, None)
        return trainer.log_every_n_steps

    found = [logged_every(steps, short_epochs=True) for steps in (1, 9, 99, 100, float("inf"))]
    assert found == [1, 4, 49, 50, 50]
    assert logged_every(9) == 50


def test_validation_every_second_epoch_is_no_missing_validation():
    report = ReportToStudy("val/loss", "min", lambda *_: False)

    def end_epoch(number, **found):
        known = {"check_val_every_n_epoch": 2, "enable_validation": True, "num_val_batches": []}
        report.on_train_epoch_end(SimpleNamespace(current_epoch=number, **known | found), None)

    end_epoch(0)
    end_epoch(1, num_val_batches=[3])
    for missing in ({"enable_validation": False}, {"check_val_every_n_epoch": 1}, {"check_val_every_n_epoch": None}):
        with pytest.raises(WrongSetupError, match="in a training without validation"):
            end_epoch(0, **missing)
    with pytest.raises(WrongSetupError, match="in a training without validation"):
        end_epoch(1)


def test_a_checkpoint_that_could_run_code_is_refused_before_the_training(tmp_path):
    keep = KeepLast(tmp_path, None, keep_best=True)
    keep.setup(None, SimpleNamespace(hparams={"lr": 0.1, "widths": (8, 8), "act": None}), "fit")
    wrong = SimpleNamespace(hparams={"lr": 0.1, "loss": nn.CrossEntropyLoss()})
    with pytest.raises(WrongSetupError, match="plain hyperparameters, got a CrossEntropyLoss as `loss`"):
        keep.setup(None, wrong, "fit")
    KeepLast(tmp_path, None, keep_best=False).setup(None, wrong, "fit")


def test_a_hyperparameter_called_seed_keeps_its_value_in_the_record(tmp_path, monkeypatch):
    config = {}
    logger = SimpleNamespace(log_hyperparams=config.update)
    monkeypatch.setattr(trial_record, "WandbLogger", SimpleNamespace)
    record = trial_record.RecordTrial(order(tmp_path, attempt(1, seed=3, lr=0.1)), SimpleNamespace(pruned=True))
    record.on_fit_start(SimpleNamespace(loggers=[logger]), None)
    record.on_fit_end(SimpleNamespace(loggers=[logger]), None)
    assert (config["trial.study"], config["trial.attempt"], config["trial.seed"]) == ("demo", 1, 99)
    assert without_checks(Record("1", config=config)).config == {"seed": 3, "lr": 0.1}
