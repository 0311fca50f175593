"""Two real processes on gloo evaluate what one process does: each image once, the same numbers."""

import json
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest

from lightning_trainingkit import DigitsDataModule, ImageClassifier
from lightning_trainingkit.data._base import even_batches
from tests import process
from tests.data.exact_evaluation import evaluate
from tests.toy import toy_trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier with BatchNorm that was trained a little, so that its images have different losses."""
    folder = tmp_path_factory.mktemp("exact_evaluation")
    L.seed_everything(0)
    trainer = toy_trainer(max_epochs=1, limit_val_batches=0)
    model = ImageClassifier("small_resnet", num_classes=10, model_options={"in_channels": 1})
    trainer.fit(model, datamodule=DigitsDataModule(32))
    trainer.save_checkpoint(folder / "trained.ckpt")
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    return evaluate(folder / "trained.ckpt")


@pytest.fixture(scope="module")
def found(folder):
    process.run_ranks(Path(__file__).with_name("exact_evaluation.py"), folder, folder=folder)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
def test_torchrun_gives_the_same(folder, found):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", process.ROOT / "tests/rank.py"]
    (folder / "found.json").unlink()
    script = Path(__file__).with_name("exact_evaluation.py")
    env = process.environment(PYTHONPATH=str(process.ROOT))
    subprocess.run([sys.executable, *command, script, folder], cwd=folder, env=env, timeout=300, check=True)
    assert json.loads((folder / "found.json").read_text()) == found


@pytest.mark.parametrize(("run", "stage"), [("test", "test"), ("workers", "test"), ("validate", "val")])
def test_two_ranks_give_the_numbers_of_one(found, alone, run, stage):
    ours, expected = found[run]["metrics"], alone["validate" if stage == "val" else "test"]["metrics"]
    assert ours[f"{stage}/acc"] == expected[f"{stage}/acc"]
    assert 0.2 < ours[f"{stage}/acc"] < 1
    assert ours[f"{stage}/loss"] == pytest.approx(expected[f"{stage}/loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("run", "images"),
    [("test", [180, 179]), ("workers", [180, 179]), ("predict", [180, 179]), ("validate", [109, 108])],
)
def test_each_image_counts_once(found, run, images):
    assert found[run]["images"] == images
    assert found[run]["warnings"] == []


def test_predictions_are_those_of_one_process(found, alone):
    (expected,) = alone["predict"]["predictions"]
    expected = [label for batch in expected for label in batch]
    for rank, batches in enumerate(found["predict"]["predictions"]):
        assert [label for batch in batches for label in batch] == expected[rank::2]


def test_lightning_alone_counts_an_image_twice(found, alone):
    assert found["plain"]["images"] == [180, 180]
    assert abs(found["plain"]["metrics"]["test/loss"] - alone["test"]["metrics"]["test/loss"]) > 1e-5
    assert found["plain"]["metrics"]["test/acc"] != alone["test"]["metrics"]["test/acc"]


def test_all_images_on_each_rank_where_lightnings_sampler_is_switched_off(found, alone):
    assert found["switched_off"]["images"] == [359, 359]
    assert found["switched_off"]["metrics"]["test/acc"] == alone["test"]["metrics"]["test/acc"]


def test_a_fit_validates_each_image_once_even_if_the_ranks_have_different_numbers_of_batches(found):
    assert found["fit"]["images"] == [109, 108]
    assert found["fit"]["batches"] == [55, 54]


def test_a_step_that_waits_for_the_other_ranks_has_as_many_batches_on_each(found):
    assert found["fit_that_waits"]["images"] == [109, 108]
    assert found["fit_that_waits"]["batches"] == [2, 2]


def test_overfitting_is_left_to_lightning(found):
    assert found["overfit"]["images"] == [64, 64]
    (warning,) = found["overfit"]["warnings"]  # none of the validation part
    assert warning.startswith("You requested to overfit but enabled train dataloader shuffling.")


def test_fewer_images_than_ranks_are_refused_on_each_rank(found):
    message = "`test_set` must hold at least one image for each rank, got 1 for 2 ranks. Use fewer devices or more"
    assert len(found["too_few"]) == 2
    assert all(text.startswith(message) for text in found["too_few"])


def test_an_averaging_report_sums_over_ranks(found, alone):
    for name, expected in alone["report"].items():
        assert found["report"][name] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("images", "ranks", "batch_size", "expected"),
    [(359, 2, 64, 64), (217, 2, 108, 107), (216, 2, 108, 108), (217, 2, 109, 109), (3, 2, 64, 64), (5, 2, 2, 2)],
)
def test_even_batches(images, ranks, batch_size, expected):
    assert even_batches(images, ranks, batch_size) == expected


def test_from_16_on_every_batch_size_can_be_made_even():
    for ranks in (2, 3, 8):
        for images in range(ranks, 3000, 7):
            size = even_batches(images, ranks, 16)
            fewest, most = images // ranks, -(-images // ranks)
            assert -(-fewest // size) == -(-most // size)


def test_outside_of_a_trainer_a_loader_has_all_images():
    data = DigitsDataModule()
    data.setup()
    assert sum(len(y) for _, y in data.test_dataloader()) == 359
