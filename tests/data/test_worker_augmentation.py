"""The option `augment=` of the DataModules: what the training part shows, and what the others don't."""

import pickle
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from PIL import Image
from torch.utils.data import Subset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_trainingkit import (
    BestCheckpoint,
    CIFAR10DataModule,
    DigitsDataModule,
    EpochSeed,
    FashionMNISTDataModule,
    ImageFolderDataModule,
)
from lightning_trainingkit._lightning import L
from lightning_trainingkit.data import policy_transform
from lightning_trainingkit.data.worker_augmentation import CurrentEpoch
from lightning_trainingkit.functional import Augmentation
from lightning_trainingkit.functional.augmentation_policies import DEVICE_POLICIES, WORKER_POLICIES, plain_policy
from tests.toy import ToyModule, toy_trainer


def digits(augment=None, **options):
    data = DigitsDataModule(augment=augment, **options)
    data.setup()
    return data


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with a ramp of red from left to right in each of 40 images of 60 x 80 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    ramp = np.zeros((60, 80, 3), dtype=np.uint8)
    ramp[..., 0] = np.arange(80) * 3
    for name, green in {"a": 0, "b": 200}.items():
        (folder / name).mkdir()
        for number in range(20):
            ramp[..., 1] = green
            Image.fromarray(ramp).save(folder / name / f"{number:02}.png")
    return folder


def test_the_training_part_alone_is_augmented():
    plain, data = digits(), digits("geometric")
    assert (data.mean, data.std) == (plain.mean, plain.std)
    indices = list(range(100))
    torch.manual_seed(0)
    changed, other = (data.train_set.__getitems__(indices) for _ in range(2))
    for (x, y), (again, _), (before, label) in zip(changed, other, plain.train_set.__getitems__(indices), strict=True):
        assert y == label
        assert not torch.equal(x, before)
        assert not torch.equal(x, again)
    for part in ("val_set", "test_set"):
        for (x, _), (before, _) in zip(getattr(data, part), getattr(plain, part), strict=True):
            assert torch.equal(x, before)


def test_pixels_are_augmented_before_the_preprocessing():
    data = digits({"brightness": (0, 0)})  # black, as it was measured before
    assert data.train_set[0][0] == pytest.approx(-data.mean[0] / data.std[0])


def test_each_image_of_a_batch_has_its_own_draws():
    data = digits({"horizontal_flip": 0.5})
    plain = digits()
    torch.manual_seed(0)
    x, before = (torch.stack([x for x, _ in each.train_set.__getitems__(list(range(200)))]) for each in (data, plain))
    same = (x == before).flatten(1).all(dim=1)
    mirrored = torch.isclose(x, before.flip(-1)).flatten(1).all(dim=1)
    assert (same | mirrored).all()
    assert 60 < same.sum() < 140


@pytest.mark.parametrize("name", ["randaugment", "autoaugment", "trivialaugment"])
def test_torchvisions_policies_see_one_image_at_a_time(name):
    data, plain = digits(name), digits(preprocess="none")
    torch.manual_seed(3)
    x = torch.stack([x for x, _ in data.train_set.__getitems__([0, 1, 2])])
    torch.manual_seed(3)
    transform = policy_transform(name, 8)
    expected = torch.stack([transform(plain.train_set[index][0]) for index in range(3)])
    torch.testing.assert_close(x * data.std[0] + data.mean[0], expected, atol=1e-5, rtol=0)


def test_none_is_no_augmentation():
    for (x, _), (before, _) in zip(digits("none").train_set, digits().train_set, strict=True):
        assert torch.equal(x, before)


@pytest.mark.parametrize("augment", ["cifar", {"rotation": [-10.0, 10.0]}, Augmentation(rotation=10)])
def test_the_option_survives_a_checkpoint(augment, tmp_path):
    data = DigitsDataModule(augment=augment)
    trainer = toy_trainer(max_epochs=0)
    trainer.strategy.connect(Small())
    trainer.datamodule = data
    data.trainer = trainer
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = DigitsDataModule.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    expected = augment if isinstance(augment, str | dict) else {"rotation": [-10.0, 10.0]}
    assert again.hparams.augment == data.hparams.augment == expected


def test_resnets_policy_cuts_from_the_whole_file(photos):
    """The decoder's own crop would show 80 * 32 / 60 = 43 of 80 columns at least, and always the centre."""
    data = ImageFolderDataModule(str(photos), image_size=32, augment="imagenet_resnet", preprocess="none")
    data.setup()
    torch.manual_seed(0)
    shown = []
    for _ in range(3):
        for x, _ in data.train_set:
            assert x.shape == (3, 32, 32)
            left, right = sorted((x[0, :, 1].mean().item(), x[0, :, -2].mean().item()))
            shown.append((left, right))
    lefts, rights = zip(*shown, strict=True)
    assert min(lefts) < 0.1
    assert max(rights) > 0.85
    peer = v2.Compose([v2.Resize(32), v2.CenterCrop(32)])
    for x, _ in data.val_set:
        with Image.open(photos / "a/00.png") as file:
            expected = F.to_dtype(F.pil_to_tensor(peer(file)), torch.float32, scale=True)
        assert torch.equal(x[0], expected[0])


def test_other_policies_of_a_folder_see_the_decoders_crop(photos):
    data = ImageFolderDataModule(str(photos), image_size=32, augment={"horizontal_flip": 1}, preprocess="none")
    plain = ImageFolderDataModule(str(photos), image_size=32, preprocess="none")
    for each in (data, plain):
        each.setup()
    for (x, y), (before, label) in zip(data.train_set, plain.train_set, strict=True):
        assert torch.equal(x, before.flip(-1))
        assert y == label
    assert torch.equal(data.val_set[0][0], plain.val_set[0][0])


class Small(L.LightningModule):
    """Notes the images that a training shows, by epoch."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.seen = {}

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.setdefault(self.current_epoch, []).append(x)
        return torch.nn.functional.cross_entropy(self.layer(x.flatten(1)), y)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", 1.0)

    def configure_optimizers(self):
        # asks Lightning for the loader before the checkpoint is restored
        self.trainer.estimated_stepping_batches  # noqa: B018
        return torch.optim.SGD(self.parameters(), 0.1)


def sides(module):
    """For each epoch, on which side each image was seen. Symmetric images are left out."""
    found = {}
    for epoch, batches in module.seen.items():
        found[epoch] = {}
        for x in torch.cat(batches):
            own, mirrored = (tuple(each.flatten().tolist()) for each in (x, x.flip(-1)))
            if own != mirrored:
                found[epoch][min(own, mirrored)] = own < mirrored
    return found


def few_digits(workers):
    data = digits("alternating_flip", batch_size=20, num_workers=workers)
    data.train_set, data.val_set = Subset(data.train_set, range(60)), Subset(data.val_set, range(10))
    return data


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("workers", [0, 2])
def test_flips_alternate_in_workers_and_after_a_resume(workers, tmp_path):
    unbroken, begun, resumed = Small(), Small(), Small()
    toy_trainer(max_epochs=4, num_sanity_val_steps=0).fit(unbroken, datamodule=few_digits(workers))

    def trainer(epochs):
        return toy_trainer(L.callbacks.ModelCheckpoint(tmp_path, filename="a"), max_epochs=epochs)

    trainer(2).fit(begun, datamodule=few_digits(workers))
    trainer(4).fit(resumed, datamodule=few_digits(workers), ckpt_path=tmp_path / "a.ckpt")
    first, *others = (sides(unbroken)[epoch] for epoch in range(4))
    assert 15 < sum(first.values()) < len(first) - 15
    for epoch, each in enumerate(others, start=1):
        assert each == {image: side ^ (epoch % 2 == 1) for image, side in first.items()}
    assert sides(begun) == {0: first, 1: others[0]}
    assert sides(resumed) == {2: others[1], 3: others[2]}


@pytest.mark.parametrize(("augment", "workers"), [("geometric", 2), ("randaugment", 0)])
def test_a_resumed_run_draws_what_an_unbroken_one_draws(augment, workers, tmp_path):
    def trained(folder, **resume):
        torch.manual_seed(0)
        module, data = Small(), digits(augment, batch_size=20, num_workers=workers)
        data.train_set, data.val_set = Subset(data.train_set, range(60)), Subset(data.val_set, range(10))
        keep = BestCheckpoint("val/loss", "min", dirpath=str(tmp_path / folder), filename="{epoch}", save_top_k=-1)
        toy_trainer(EpochSeed(0), keep, max_epochs=3).fit(module, datamodule=data, **resume)
        return module

    unbroken = trained("unbroken")
    resumed = trained("resumed", ckpt_path=tmp_path / "unbroken/epoch=0.ckpt")
    assert resumed.seen.keys() == {1, 2}
    for epoch, batches in resumed.seen.items():
        assert torch.equal(torch.cat(batches), torch.cat(unbroken.seen[epoch]))
    assert torch.equal(resumed.layer.weight, unbroken.layer.weight)


def test_alternating_flips_need_a_trainer():
    data = digits("alternating_flip")
    with pytest.raises(ValueError, match="`augment` must know the epoch, got 'alternating_flip' without a Trainer"):
        data.train_dataloader()
    data.val_dataloader()


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("cifar10", "`augment` must be the name of a policy, got 'cifar10'. The nearest are: cifar"),
        ({"flip": 1}, "`augment` must hold ranges of Augmentation, got 'flip'"),
        ({"crop": 6}, "`augment` must keep the size of the images, 8 pixels, got a crop of"),
        ({"crop": 9}, "`crop` must fit into an image with its padding, 8 x 8 pixels, got 9 x 9"),
        ("imagenet_resnet", "must suit images of shape .1, 8, 8., got 'imagenet_resnet'. .* 3 channels for saturation"),
        ({"hue": 0.1}, "`augment` must suit images of shape .1, 8, 8.*3 channels for hue"),
    ],
)
def test_what_does_not_suit_the_images_is_refused_at_once(augment, message):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        DigitsDataModule(augment=augment)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", [*DEVICE_POLICIES, *WORKER_POLICIES])
def test_every_policy_suits_colour_images(name):
    assert CIFAR10DataModule(augment=name).hparams.augment == name


def test_clothes_are_grey():
    assert FashionMNISTDataModule(augment="geometric").hparams.augment == "geometric"
    with pytest.raises(ValueError, match=r"must suit images of shape \(1, 28, 28\), got \{'hue': \[-0.1, 0.1\]\}"):
        FashionMNISTDataModule(augment={"hue": 0.1})


def test_an_option_of_a_wrong_type():
    with pytest.raises(TypeError, match="`augment` must be a policy, got 3"):
        DigitsDataModule(augment=3)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("cifar", "cifar"),
        ("{rotation: 15, lens_k1: [0, 0.1]}", {"rotation": [-15.0, 15.0], "lens_k1": [0.0, 0.1]}),
        ("null", None),
    ],
)
def test_from_yaml(given, kept, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    file = tmp_path / "config.yaml"
    file.write_text(f"data:\n  class_path: lightning_trainingkit.DigitsDataModule\n  init_args: {{augment: {given}}}\n")
    cli = LightningCLI(
        ToyModule,
        L.LightningDataModule,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        args=["--config", str(file)],
        seed_everything_default=False,
        trainer_defaults={"logger": False, "enable_checkpointing": False},
    )
    plain = plain_policy("augment", cli.datamodule.hparams.augment) if kept else cli.datamodule.hparams.augment
    assert plain == kept


def test_a_spawned_worker_gets_the_epoch_alone():
    trainer = toy_trainer()
    epoch = CurrentEpoch(trainer)
    trainer.fit_loop.epoch_progress.current.processed = 3
    assert epoch() == pickle.loads(pickle.dumps(epoch))() == trainer.current_epoch
