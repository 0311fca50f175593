import math

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_trainingkit.dashboards.read import csv_files
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
    ]:
        path.write_bytes(content)
        with pytest.raises(UnreadableError, match=why):
            read_csv_file(path)
    path.write_text("step,x\n1,nan\n2,inf\n,5\n3,oops\n4,\n")
    (tmp_path / "hparams.yaml").write_text(
        "a: !!python/object/apply:os.system ['touch hacked']\nlr: 0.1\nbetas: !!python/tuple [0.9, 0.999]\n"
    )
    run = read_csv_file(path)
    assert run.config == {"a": "object/apply:os.system", "lr": 0.1, "betas": "[0.9, 0.999]"}
    assert not (tmp_path / "hacked").exists()
    assert run.note == "1 of 5 rows are damaged and missing; 1 values are no numbers and missing"
    (tmp_path / "hparams.yaml").write_text("a: [1\n")
    assert "settings are missing" in read_csv_file(path).note
    assert run.curves["x"].steps.tolist() == [1, 2]
    assert math.isnan(run.curves["x"].values[0])
    assert math.isinf(run.curves["x"].values[1])


def read(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    return read_csv_file(path)


@pytest.mark.parametrize(
    ("content", "values", "note"),
    [
        (b"step,a\n1,5\n2,\x006\n3,7\n", [5, 7], "1 values are no numbers and missing"),
        (b"step,a\n1,5\n2,6,9\n3,7\n", [5, 7], "1 of 3 rows are damaged and missing"),
        (b'step,a\n1,5\n2,"6\n3,7\n', [5, 7], "1 of 3 rows are damaged and missing"),  # a quote swallows no rows
        (b"step,a\n1,5\n1e999,6\n,7\n4,8\n", [5, 8], "2 of 4 rows are damaged and missing"),
        (b"step,a\n1,5\n2," + b"6" * 10_000_000 + b"\n3,7\n", [5, 7], "1 of 3 rows are damaged and missing"),
        (b"step,a\r\n1,5\n\n2,6\r3,7\r\n", [5, 6, 7], ""),
        (b"\xef\xbb\xbfstep,a\n1,5\n2,\xff6\n", [5], "1 values are no numbers and missing"),
        (b"step,a,\xff\n1,5,6\n", [5], "a column's name is damaged"),
        (b"step,a,a\n1,5,6\n2,7,8\n", [5, 7], "columns that stand twice are read once: a"),
        (b'step,a,word\n1,5,x\n2,"6",y\n', [5, 6], ""),
        (
            b"step,a\n1,5\n2" + bytes(90),
            [5],
            "1 of 2 rows are damaged and missing",
        ),  # as a crash of the machine leaves it
        (b"step,a\n1,5\n2,6\n3,1.2", [5, 6], ""),  # it is being written: who knows what follows 1.2
    ],
)
def test_a_damaged_row_costs_no_other_and_is_counted(tmp_path, content, values, note):
    run = read(tmp_path, content)
    assert run.curves["a"].values.tolist() == values
    assert run.note == note


def test_utf16_is_no_table_and_a_large_table_is_read_up_to_a_bound(tmp_path, monkeypatch):
    with pytest.raises(UnreadableError, match="no table"):
        read(tmp_path, "step,a\n1,5\n".encode("utf-16"))
    monkeypatch.setattr(csv_files, "_MAX_BYTES", 20)
    run = read(tmp_path, b"step,a\n1,5\n2,6\n3,7\n4,8\n5,9\n")
    assert run.curves["a"].values.tolist() == [5, 6, 7]
    assert run.note == "only the rows in the first 20 bytes are read"
