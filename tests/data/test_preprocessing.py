"""Fitted on the training part alone, the same for all parts, kept in the checkpoint, equal on all ranks."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import DigitsDataModule, FashionMNISTDataModule, ImageClassifier, ImageFolderDataModule
from lightning_trainingkit.data import fit_preprocessing
from lightning_trainingkit.functional import PREPROCESSINGS
from lightning_trainingkit.nn import Decorrelate, Standardize
from tests.process import Process
from tests.toy import toy_trainer


def digits(preprocess, **options):
    data = DigitsDataModule(preprocess=preprocess, **options)
    data.setup()
    return data


def pixels(part):
    """Images of a part as they were before any preprocessing, float64."""
    return torch.tensor(load_digits().images[part.indices])[:, None] / 16


def served(part):
    return torch.stack([x for x, _ in part]).double()


# DataModules


@pytest.mark.parametrize("kind", PREPROCESSINGS)
def test_each_preprocessing_is_fitted_on_the_training_part_and_used_for_all_parts(kind):
    data = digits(kind)
    train = pixels(data.train_set)
    flat = train.flatten(1).numpy()
    if kind in ("pca", "pca_whitening", "zca"):
        peer = PCA().fit(flat)
        known = peer.explained_variance_ > 1e-7 * peer.explained_variance_[0]
        scales = np.where(known, peer.explained_variance_, 1) ** -0.5 if kind != "pca" else np.ones(64)
        matrix = scales[:, None] * peer.components_
        matrix = peer.components_.T @ matrix if kind == "zca" else matrix
        mean, matrix = torch.tensor(peer.mean_), torch.tensor(matrix)
        kept = known if kind != "zca" else np.ones(64, bool)  # constant directions are any basis of their space
        for part in (data.train_set, data.val_set, data.test_set):
            ours, expected = served(part).flatten(1), (pixels(part).flatten(1) - mean) @ matrix.T
            torch.testing.assert_close(ours[:, kept], expected[:, kept], atol=5e-5, rtol=0)
        return
    mean = {"none": 0, "mean_image": train.mean(0)}.get(kind, train.mean())
    std = train.std(correction=0) if kind == "channel" else 1
    for part in (data.train_set, data.val_set, data.test_set):
        torch.testing.assert_close(served(part), (pixels(part) - mean) / std, atol=1e-5, rtol=0)


def test_mean_and_std_stand_where_each_channel_has_one():
    train = pixels(digits("none").train_set)
    assert (digits("none").mean, digits("none").std) == ([0.0], [1.0])
    assert (digits("channel_mean").mean, digits("channel_mean").std) == ([pytest.approx(train.mean().item())], [1.0])
    with pytest.raises(AttributeError, match="`mean` must be of a preprocessing per channel, got preprocess='zca'"):
        _ = digits("zca").mean
    with pytest.raises(AttributeError, match="`preprocessing` must be loaded, got DigitsDataModule before its `setup`"):
        _ = DigitsDataModule().preprocessing


def test_pictures_come_back():
    data = digits("zca")
    x = torch.stack([x for x, _ in data.val_set])
    torch.testing.assert_close(data.preprocessing.inverse(x).double(), pixels(data.val_set), atol=1e-5, rtol=0)


def test_zca_of_fashion_mnist_with_fewer_images_than_pixels_is_shrunk_and_says_so(tmp_path, caplog):
    from tests.data.test_fashion_mnist import write

    data = FashionMNISTDataModule(str(write(tmp_path)), preprocess="zca")
    with caplog.at_level("INFO"):
        data.setup()
    said = "zca: 50 images are too few for 784 values each. Whitening shrinks their covariance by"
    assert said in caplog.text
    x, _ = next(iter(data.train_dataloader()))
    assert x.shape == (50, 1, 28, 28)
    assert 0.1 < x.std() < 1.5


def image_folder(folder, **options):
    for number in range(40):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        values = np.random.default_rng(number).integers(0, 256, (10, 8, 3)).astype("uint8")
        Image.fromarray(values).save(path)
    return ImageFolderDataModule(str(folder), image_size=8, **options)


def test_zca_of_an_image_folder(tmp_path):
    data = image_folder(tmp_path / "photos", preprocess="zca")
    data.setup()
    x, _ = data.train_set[0]
    assert x.shape == (3, 8, 8)
    raw = data.train_set._images.reader.decode(data.train_set.samples[0][0]) / 255
    torch.testing.assert_close(data.preprocessing.inverse(x), raw, atol=1e-5, rtol=0)


def test_given_numbers_go_with_channels_alone(tmp_path):
    with pytest.raises(ValueError, match="`preprocess` must be 'channel' where `mean` and `std` are given, got 'zca'"):
        image_folder(tmp_path, mean=[0.5] * 3, std=[0.2] * 3, preprocess="zca")


def test_images_too_large_for_a_covariance_are_refused_in_setup(tmp_path):
    data = image_folder(tmp_path, preprocess="zca")
    large = ImageFolderDataModule(str(data.data_dir), image_size=33, preprocess="pca")
    with pytest.raises(ValueError, match=r"at most 3,072 values for a covariance, got 3,267 \(3 x 33 x 33\)"):
        large.setup()


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(ValueError, match=r"`preprocess` must be one of 'pca_whitening', .* got 'whitening'"):
        DigitsDataModule(preprocess="whitening")


# Checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a training on whitened digits, with the DataModule's numbers."""
    file = tmp_path_factory.mktemp("preprocessing") / "zca.ckpt"
    data = DigitsDataModule(preprocess="zca", batch_size=400)
    trainer = toy_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(classifier(), data)
    trainer.save_checkpoint(file)
    return file, data


def classifier():
    return ImageClassifier("small_resnet", num_classes=10, model_options={"in_channels": 1, "width": 4})


def test_a_test_run_in_another_process_uses_the_numbers_of_the_training(trained):
    file, data = trained
    other = DigitsDataModule(preprocess="zca", seed=5)  # another training part would give other numbers
    toy_trainer().test(classifier(), other, ckpt_path=file, weights_only=True, verbose=False)
    for name, value in data.preprocessing.state_dict().items():
        assert torch.equal(other.preprocessing.state_dict()[name], value)
    x, _ = other.test_set[0]
    assert torch.equal(x, data.preprocessing(pixels(other.test_set)[0].float()))


def test_a_resumed_run_uses_the_numbers_of_the_checkpoint(trained):
    file, data = trained
    other = DigitsDataModule(preprocess="zca", seed=5, batch_size=400)
    toy_trainer(max_epochs=2, limit_val_batches=0).fit(classifier(), other, ckpt_path=file)
    assert torch.equal(other.preprocessing.matrix, data.preprocessing.matrix)


def test_numbers_that_arrive_before_setup_save_the_fit(trained):
    _, data = trained
    other = DigitsDataModule(preprocess="zca", seed=5)
    other.load_state_dict(data.state_dict())
    other.setup()
    assert torch.equal(other.preprocessing.matrix, data.preprocessing.matrix)


def test_the_numbers_per_channel_are_shown_after_loading():
    first, second = digits("channel"), digits("channel", seed=5)
    assert first.mean != second.mean
    second.load_state_dict(first.state_dict())
    assert (second.mean, second.std) == (first.mean, first.std)


def test_a_checkpoint_of_an_older_version_holds_no_numbers(trained, tmp_path):
    checkpoint = torch.load(trained[0], weights_only=True)
    del checkpoint["DigitsDataModule"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    data = DigitsDataModule(preprocess="zca", seed=5)
    toy_trainer().test(classifier(), data, ckpt_path=tmp_path / "old.ckpt", verbose=False)
    torch.testing.assert_close(data.preprocessing.mean.double(), pixels(data.train_set).mean(0), atol=1e-6, rtol=0)
    data.load_state_dict({})


def test_a_checkpoint_with_another_preprocessing_is_refused(trained):
    with pytest.raises(ValueError, match=r"`preprocess` must be 'zca' as in the checkpoint, got 'channel'. Set"):
        toy_trainer().test(classifier(), DigitsDataModule(), ckpt_path=trained[0], verbose=False)


def test_a_checkpoint_of_images_of_another_size_is_refused(tmp_path):
    data = image_folder(tmp_path, preprocess="mean_image")
    data.setup()
    larger = ImageFolderDataModule(str(data.data_dir), image_size=9, preprocess="mean_image")
    with pytest.raises(ValueError, match=r"`image_shape` must be \(3, 8, 8\) as in the checkpoint, got \(3, 9, 9\)"):
        larger.load_state_dict(data.state_dict())


# Any loader


def color_images(count=30):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("wrap", "image"),
    [
        (lambda x: x, None),
        (lambda x: [x, torch.zeros(len(x))], None),
        (lambda x: (x, x * 2, None), 0),  # two views must be named
        (lambda x: {"pixels": x, "label": torch.zeros(len(x))}, None),
        (lambda x: OrderedDict(mask=x * 2, pixels=x), "pixels"),
        (lambda x: (torch.zeros(len(x)), x), 1),
    ],
)
def test_batches_of_any_shape(wrap, image):
    x = color_images()
    layer = fit_preprocessing(map(wrap, x.split(7)), "channel", image=image)
    assert isinstance(layer, Standardize)
    assert layer.mean.flatten().tolist() == pytest.approx(x.mean((0, 2, 3)).tolist())
    assert layer.std.flatten().tolist() == pytest.approx(x.std((0, 2, 3), correction=0).tolist(), rel=1e-6)


def test_a_data_loader_and_a_linear_map():
    x = color_images(200)
    loader = DataLoader(TensorDataset(x, torch.zeros(200)), batch_size=64)
    layer = fit_preprocessing(loader, "pca_whitening")
    assert isinstance(layer, Decorrelate)
    torch.testing.assert_close(layer(x).flatten(1).T.cov(), torch.eye(48), atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_batches_and_layers_on_a_gpu():
    x = torch.randint(256, (200, 3, 4, 4), dtype=torch.uint8)
    for kind in PREPROCESSINGS[1:]:
        layer, other = fit_preprocessing(x.split(64), kind), fit_preprocessing(x.cuda().split(64), kind)
        for name, value in layer.state_dict().items():
            assert torch.equal(other.state_dict()[name], value)
        on_gpu = layer.cuda()(x.cuda())
        torch.testing.assert_close(layer.cpu()(x), on_gpu.cpu(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(layer.cuda().inverse(on_gpu).cpu(), x / 255, atol=1e-4, rtol=0)


def test_a_constant_channel_keeps_its_scale():
    x = color_images()
    x[:, 1] = 1000.1
    layer = fit_preprocessing([x], "channel")
    assert layer.std.flatten().tolist()[1] == 1
    assert layer(x)[:, 1].abs().max() < 1e-3


def test_the_random_states_are_left_as_they_were():
    before = torch.get_rng_state()
    fit_preprocessing([color_images(100)], "zca")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("batches", "options", "error", "message"),
    [
        ([], {}, ValueError, "`loader` must give at least one batch of images, got none"),
        ([[]], {}, ValueError, "`image` must name the images of a batch .* got None for nothing"),
        (
            [{"a": color_images(), "b": color_images()}],
            {},
            ValueError,
            "`image` must name the images of a batch .* got None for 'a': .* 'b': ",
        ),
        (
            [{"a": color_images()}],
            {"image": "x"},
            ValueError,
            "`image` must name an entry of the batch, got 'x'",
        ),
        ([color_images(1)], {"kind": "zca"}, ValueError, "of at least 2 images, got covariance and 1"),
        ([color_images()], {"kind": "channels"}, ValueError, "`kind` must be one of 'channel', .* got 'channels'"),
        ([color_images() / 0], {}, ValueError, "must be finite, got NaN or infinity in image 0, 1, 2"),
    ],
)
def test_bad_input(batches, options, error, message):
    with pytest.raises(error, match=message):
        fit_preprocessing(batches, **options)


# Ranks

SCRIPT = """
import json, os, sys, time, torch
from pathlib import Path
from torch import distributed
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from lightning_trainingkit.data import fit_preprocessing

folder, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
x = torch.rand(61, 2, 3, 3, generator=torch.Generator().manual_seed(0)) + 1000
found = {}
for shuffle in (False, True):
    sampler = DistributedSampler(x, 2, rank, shuffle=shuffle)  # 61 images: one is repeated
    loader = DataLoader(TensorDataset(x), batch_size=8, sampler=sampler)
    for kind in ("channel", "mean_image", "zca"):
        layer = fit_preprocessing(loader, kind)
        found[f"{kind} {shuffle}"] = {name: value.tolist() for name, value in layer.state_dict().items()}
found["whole"] = fit_preprocessing(x.split(8), "zca").matrix.tolist()
x[3, 0, 0, 0] = float("nan")  # of rank 1 alone
try:
    fit_preprocessing(loader, "channel")
except ValueError as error:
    found["error"] = str(error)
Path(folder, f"{rank}.tmp").write_text(json.dumps(found))
Path(folder, f"{rank}.tmp").rename(Path(folder, f"{rank}.json"))
while not Path(folder, f"{1 - rank}.json").exists():
    time.sleep(0.01)
os._exit(0)
"""


def test_two_ranks_fit_what_one_process_fits(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    ranks = [Process(tmp_path / "script.py", tmp_path, rank) for rank in range(2)]
    done = [rank.wait() for rank in ranks]
    assert [each.returncode for each in done] == [0, 0], done
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one == other
    x = torch.rand(61, 2, 3, 3, generator=torch.Generator().manual_seed(0)) + 1000
    for kind in ("channel", "mean_image", "zca"):
        expected = fit_preprocessing(x.split(8), kind).state_dict()
        for shuffle in (False, True):
            for name, value in one[f"{kind} {shuffle}"].items():
                torch.testing.assert_close(torch.tensor(value), expected[name], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(torch.tensor(one["whole"]), expected["matrix"])
    assert "must be finite, got NaN" in one["error"]
