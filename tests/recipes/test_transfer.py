"""The transfer recipe, as a user runs it: pretrains, transfers, compares, and goes on where it was ended."""

import json
import runpy
from types import SimpleNamespace

import pytest
import torch

from tests.process import ROOT
from tests.toy import difference

SMALL = ("--data", "digits", "--images", "5,10", "--seeds", "2", "--steps", "6", "--epochs", "1")
QUICK = ("--accelerator", "cpu")
METHODS = ["scratch", "probe", "frozen", "gradual", "full"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory, run_recipe):
    folder = tmp_path_factory.mktemp("transfer")
    run = run_recipe("transfer.py", *SMALL, *QUICK, folder=folder)
    return folder, run.stdout, json.loads((folder / "runs/transfer/results.json").read_text())


def test_each_method_is_compared_with_from_scratch_on_the_same_images(ran):
    folder, out, found = ran
    assert [(row["images per class"], row["method"]) for row in found["rows"]] == [
        (count, method) for count in (5, 10) for method in METHODS
    ]
    fits = {path.parent.name: json.loads(path.read_text())["metrics"] for path in folder.glob("runs/*/fits/*/*.json")}
    assert len(fits) == 2 * 2 * 5
    for row in found["rows"]:
        ours, scratch = (
            [fits[f"{method}-{row['images per class']}-seed-{seed}"]["test/acc"] for seed in (0, 1)]
            for method in (row["method"], "scratch")
        )
        assert row["test/acc"] == pytest.approx(sum(ours) / 2)
        assert row["acc gain"] == pytest.approx(sum(ours) / 2 - sum(scratch) / 2, abs=1e-9)
        assert f"{100 * row['test/acc']:.1f} +-" in out
    assert found["metrics"]["test/acc"] == found["rows"][-1]["test/acc"]
    assert (folder / "runs/transfer/transfer.png").stat().st_size > 10_000


def test_the_seed_decides_what_the_pretraining_begins_with():
    known_model = runpy.run_path(str(ROOT / "recipes/transfer.py"))["known_model"]
    source = SimpleNamespace(num_classes=5, image_shape=(1, 8, 8))
    args = [SimpleNamespace(weights=None, checkpoint=None, model="small_resnet", seed=seed) for seed in (0, 0, 1)]
    one, two, other = (known_model(each, source).state_dict() for each in args)
    assert difference(one, two) == 0
    assert difference(one, other) > 0


def test_the_runs_of_an_experiment_are_a_group(ran, grouped):
    folder, out, _ = ran
    found = grouped(folder / "runs/transfer", out)
    fits = [f"{method}-{count}-seed-{seed}" for method in METHODS for count in (5, 10) for seed in (0, 1)]
    assert found["train"] == sorted([*(fit for fit in fits if "probe" not in fit), "pretrained"])
    assert found["eval"] == sorted(f"images={count}, method={method}" for count in (5, 10) for method in METHODS)


def test_what_is_done_is_not_done_again(ran, run_recipe, refused):
    folder, _, before = ran
    again = run_recipe("transfer.py", *SMALL, "--images", "5,10,20", "--resume", *QUICK, folder=folder)
    lines = [line for line in again.stdout.splitlines() if ": test/acc" in line]
    assert len(lines) == 10
    assert all("-20-seed" in line for line in lines)
    assert json.loads((folder / "runs/transfer/results.json").read_text())["rows"][:10] == before["rows"]
    assert "the present options" in refused("transfer.py", *SMALL, "--lr", "0.1", "--resume", *QUICK, folder=folder)


def test_a_checkpoint_takes_the_place_of_the_pretraining(ran, run_recipe, tmp_path):
    folder, _, before = ran
    checkpoint = folder / "runs/transfer/pretrained"
    run_recipe("transfer.py", *SMALL, "--checkpoint", checkpoint, *QUICK, folder=tmp_path)
    found = json.loads((tmp_path / "runs/transfer/results.json").read_text())
    # not to the last bit: pretraining leaves the weights channels last
    expected = [row["test/acc"] for row in before["rows"]]
    assert [row["test/acc"] for row in found["rows"]] == pytest.approx(expected, abs=0.02)
    assert not (tmp_path / "runs/transfer/pretrained").exists()


def test_weights_of_torchvision_on_grey_images_of_another_size(run_recipe, tmp_path):
    """The weights lie where torchvision has put them: nothing is downloaded."""
    from torchvision.models import ShuffleNet_V2_X0_5_Weights, shufflenet_v2_x0_5

    name = ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(shufflenet_v2_x0_5().state_dict(), tmp_path / "hub/checkpoints" / name)
    plant = f"""
import torch
torch.hub.set_dir({str(tmp_path / "hub")!r})
from torchvision.models import _api
real = torch.hub.load_state_dict_from_url
_api.load_state_dict_from_url = lambda url, check_hash, **options: real(url, **options)  # random weights: another hash
"""
    options = ("--model", "shufflenet_v2_x0_5", "--weights", "DEFAULT", "--size", "32")
    run_recipe("transfer.py", *SMALL, "--images", "5", *options, *QUICK, folder=tmp_path, code=plant)
    found = json.loads((tmp_path / "runs/transfer/results.json").read_text())
    assert [row["method"] for row in found["rows"]] == METHODS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--images", "10,many"), "must be different positive numbers such as 10,50,500, got '10,many'"),
        (("--seeds", "1"), "--seeds must be at least 2"),
        (("--checkpoint", "nowhere"), "nowhere"),
        (("--images", "4000"), "--images must be at most"),
    ],
)
def test_bad_input_is_one_line(refused, tmp_path, arguments, said):
    assert said in refused("transfer.py", *SMALL, *arguments, *QUICK, folder=tmp_path).splitlines()[-1]


def test_help(run_recipe, tmp_path):
    assert "python recipes/transfer.py" in run_recipe("transfer.py", "--help", folder=tmp_path).stdout
