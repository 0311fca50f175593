import warnings

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from lightning_trainingkit import CommandCenter, HealthReport
from lightning_trainingkit.callbacks.diagnostics.recorded_verdict import health_line, record_verdict
from lightning_trainingkit.dashboards.read.gather import gather
from lightning_trainingkit.nn.diagnostics.finding import Finding
from tests.toy import ToyModule, toy_loaders, toy_trainer

DEAD = Finding.of("dead_units", "net.1", 1.0, "All units are zero.", "Use LeakyReLU.")
IDLE = Finding.of("parameters_not_trained", "net.5", 2.0, "2 layers are in no optimizer.", "Give it all parameters.")
SCALE = Finding.of("input_not_centred", "input", 9.0, "The mean is 9.", "Subtract it.")


def test_a_line_has_the_worst_verdict_and_the_first_alarm():
    assert health_line([]) == "pass. Nothing wrong."
    assert health_line([SCALE]) == "pass. input_not_centred in input: The mean is 9. Subtract it."
    assert health_line([SCALE, IDLE]).startswith("warn. parameters_not_trained in net.5: 2 layers are in no optimizer.")
    line = health_line([IDLE, DEAD, SCALE])
    assert line.startswith("fail. parameters_not_trained in net.5: ")
    assert line.endswith(" Further findings: dead_units.")


def healths(folder):
    runs, skipped = gather([folder])
    assert skipped == {}
    return [(run.config.get("check.health"), run.config["lr"], run.note) for run in runs]


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger, pytest.param(None, marks=pytest.mark.slow)])
def test_the_command_center_reads_what_health_report_says(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    center = [] if kind else [CommandCenter()]
    report = HealthReport(verbose=False)
    trainer = toy_trainer(report, *center, logger=[kind(tmp_path)] if kind else False, default_root_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        module = ToyModule(lr=0.03)
        trainer.fit(module, *toy_loaders())
        for callback in center:
            callback.finish()
    assert healths(tmp_path) == [(health_line(report.findings), 0.03, "")]
    assert dict(module.hparams) == {"lr": 0.03}


class Other(Logger):
    """A logger that, as MLflow's, takes hyperparameters once."""

    name, version = "other", 0

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        assert "check" not in params


def test_settings_of_the_user_and_verdicts_of_other_checks_stay(tmp_path):
    loggers = [CSVLogger(tmp_path, "own"), CSVLogger(tmp_path, "checked"), CSVLogger(tmp_path, "plain"), Other()]
    loggers[0].log_hyperparams({"check": True})
    loggers[1].log_hyperparams({"check": {"learning_rate": "pass. 0.1"}})
    record_verdict(toy_trainer(logger=loggers), "health", "pass. Nothing wrong.")
    found = []
    for logger in loggers[:3]:
        logger.save()
        found.append(yaml.safe_load((tmp_path / logger.name / "version_0" / "hparams.yaml").read_text()))
    health = {"health": "pass. Nothing wrong."}
    assert found == [{"check": True}, {"check": {"learning_rate": "pass. 0.1", **health}}, {"check": health}]


def test_a_disabled_run_is_left_alone(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, mode="disabled")
    record_verdict(toy_trainer(logger=logger), "health", "pass. Nothing wrong.")
