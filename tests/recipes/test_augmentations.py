"""A row of the same eight images for each transform and each policy; what grey images can't have is left out."""

import json

import pytest

from lightning_trainingkit.functional.augmentation_policies import DEVICE_POLICIES, WORKER_POLICIES


@pytest.mark.slow
def test_photographs_show_every_transform_and_policy(run_recipe, grouped, tmp_path):
    said = run_recipe("augmentations.py", "--image-size", "24", folder=tmp_path).stdout
    folder = tmp_path / "runs/augmentations"
    rows = json.loads((folder / "results.json").read_text())["rows"]
    shown = {row["name"].split()[1] for row in rows if row["name"].startswith("policy")}
    assert shown == {*DEVICE_POLICIES, *WORKER_POLICIES} - {"none"}
    assert len(rows) > len(shown) + 10
    assert all(row["ms an image"] > 0 for row in rows)
    assert (folder / "augmentations.png").read_bytes().startswith(b"\x89PNG")
    assert list(folder.glob("wandb/offline-run-*/files/media/images/augmentations*.png"))
    assert grouped(folder, said, "photos") == {"augmentation": ["seed=0"]}


def test_digits_have_no_colours(run_recipe, tmp_path):
    said = run_recipe("augmentations.py", "--data", "digits", "--wandb", "disabled", folder=tmp_path).stdout
    rows = json.loads((tmp_path / "runs/augmentations/results.json").read_text())["rows"]
    left_out = {"saturation", "hue", "colour_offset", "policy imagenet_resnet"}
    assert not left_out & {row["name"] for row in rows}
    assert "Left out, since the images are grey: saturation, hue, colour_offset, policy imagenet_resnet." in said


def test_a_folder_that_is_not_there_is_one_line(refused, tmp_path):
    said = refused("augmentations.py", "--data", "nowhere", folder=tmp_path)
    assert "`--data` must be digits, fashion-mnist, cifar10 or a folder, got 'nowhere'" in said.splitlines()[-1]
