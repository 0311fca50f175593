import math

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_trainingkit.dashboards.read.csv_files import read_csv_file
from lightning_trainingkit.dashboards.read.record import UnreadableError
from tests.toy import ToyModule, toy_loaders, toy_trainer


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("csv")
    logger = CSVLogger(root, name="toys")
    trainer = toy_trainer(logger=logger, max_epochs=2)
    trainer.fit(ToyModule(lr=0.05), *toy_loaders())
    return root / "toys" / "version_0" / "metrics.csv", trainer


def test_what_csvlogger_wrote_is_read(recorded):
    path, trainer = recorded
    run = read_csv_file(path)
    assert (run.name, run.project, run.id, run.state) == ("toys/version_0", "toys", "version_0", "unknown")
    assert run.config == {"lr": 0.05}
    assert set(run.curves) == {"train/loss", "val/loss", "val/acc"}
    assert len(run.curves["train/loss"].steps) == trainer.global_step
    assert run.curves["val/loss"].steps.tolist() == [3, 7]
    assert run.curves["val/loss"].values[-1] == pytest.approx(trainer.callback_metrics["val/loss"].item())


def test_a_last_row_that_is_cut_off_costs_no_run(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,lr-Adam,step,train/loss\n0,0.1,5,2.5\n1,0.1,10,1.5\n2,0.1")
    assert read_csv_file(path).curves["train/loss"].values.tolist() == [2.5, 1.5]


def test_other_tables_are_no_runs_and_settings_are_read_without_running_code(tmp_path):
    path = tmp_path / "metrics.csv"
    for content, why in [
        (b"", "empty"),
        (b"a,b\n1,2\n", "no column `step`"),
        (b"\xff\xfe\x00,step\n1,2\n", "no table"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UnreadableError, match=why):
            read_csv_file(path)
    path.write_text("step,x\n1,nan\n2,inf\n,5\n3,oops\n4,\n")
    (tmp_path / "hparams.yaml").write_text(
        "a: !!python/object/apply:os.system ['touch hacked']\nlr: 0.1\nbetas: !!python/tuple [0.9, 0.999]\n"
    )
    run = read_csv_file(path)
    assert run.config == {"a": "object/apply:os.system", "lr": 0.1, "betas.0": 0.9, "betas.1": 0.999}
    assert not (tmp_path / "hacked").exists()
    (tmp_path / "hparams.yaml").write_text("a: [1\n")
    assert "settings are missing" in read_csv_file(path).note
    assert run.curves["x"].steps.tolist() == [1, 2]
    assert math.isnan(run.curves["x"].values[0])
    assert math.isinf(run.curves["x"].values[1])
