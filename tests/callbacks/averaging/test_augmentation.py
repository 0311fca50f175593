"""What a user's steps see with TestTimeAugmentation, against averages written out here."""

import copy
import pickle

import lightning as L
import pytest
import timm
import torch
import torchvision
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms.functional import five_crop, hflip, ten_crop

from lightning_trainingkit.callbacks.averaging.augmentation import TestTimeAugmentation
from lightning_trainingkit.callbacks.channels_last import ChannelsLast
from tests.toy import toy_trainer

CLASSES = 5


def make_net(channels=3, sharpness=1.0):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)
    )
    net[-1].weight.data.mul_(sharpness)
    return net


class Classifier(L.LightningModule):
    """Calls a net as users do, and keeps what came of it."""

    def __init__(self, net=None):
        super().__init__()
        self.net = net or make_net()
        self.seen = []

    def test_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.seen.append(logits)
        self.log("test/loss", cross_entropy(logits, y), batch_size=len(y))

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0])

    def outputs(self):
        outputs, self.seen = torch.cat(self.seen), []
        return outputs


def images(n=12, size=12):
    x = 2 * torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(n) % CLASSES


def loader(n=12, size=12, batch_size=5):
    return DataLoader(TensorDataset(*images(n, size)), batch_size)


@torch.no_grad()
def explicit(net, views, batch_size=5, **options):
    """The loop that a user would write: probabilities of each view, summed; their logarithm."""
    net = net.eval()
    batches = images(**options)[0].split(batch_size)
    return torch.cat([sum(net(view).softmax(1) for view in views(x)).div(len(views(x))).log() for x in batches])


def flips(x):
    return [x, hflip(x)]


def ten(x):
    return ten_crop(x, 10)


def run(module, *callbacks, loaders=None, **options):
    trainer = toy_trainer(*callbacks, **options)
    (metrics, *_) = trainer.test(module, loaders or loader(), verbose=False)
    return trainer, metrics


@pytest.mark.parametrize(("views", "by_hand"), [("flip", flips), ("ten_crop(10)", ten)])
@pytest.mark.parametrize("max_batch", [None, 3, 64])
def test_sequential(views, by_hand, max_batch):
    module = Classifier()
    callback = TestTimeAugmentation(views, target="net", max_batch=max_batch)
    trainer, metrics = run(module, callback)
    expected = explicit(module.net, by_hand)
    torch.testing.assert_close(module.outputs(), expected, rtol=0, atol=1e-6)
    losses = [cross_entropy(expected[at], images()[1][at]) * len(expected[at]) for at in (slice(0, 10), slice(10, 12))]
    assert metrics["test/loss"] == pytest.approx(sum(losses).item() / 12, abs=1e-6)
    torch.testing.assert_close(torch.cat(trainer.predict(module, loader())), expected, rtol=0, atol=1e-6)
    assert callback.passes_per_sample == {"flip": 2, "ten_crop(10)": 10}[views]


def test_torchvision_resnet():
    torch.manual_seed(0)
    module = Classifier(torchvision.models.resnet18(num_classes=CLASSES))
    run(module, TestTimeAugmentation("ten_crop(28)", target="net"), loaders=loader(6, 32))
    expected = explicit(module.net, lambda x: ten_crop(x, 28), n=6, size=32)
    torch.testing.assert_close(module.outputs(), expected, rtol=0, atol=1e-6)


def test_timm_model():
    torch.manual_seed(0)
    module = Classifier(timm.create_model("resnet10t", num_classes=CLASSES))
    run(module, TestTimeAugmentation("five_crop(32)", target="net"), loaders=loader(5, 40))
    expected = explicit(module.net, lambda x: five_crop(x, 32), n=5, size=40)
    torch.testing.assert_close(module.outputs(), expected, rtol=0, atol=1e-6)


class DictBatches(Classifier):
    """Passes a dict of the images and their sizes through its own forward, with an argument by name."""

    def forward(self, batch, *, temperature):
        assert batch["id"].shape == (len(batch["image"]),)
        assert len(batch["path"]) == len(batch["image"])
        return self.net(batch["image"]) / temperature

    def test_step(self, batch, batch_idx):
        self.seen.append(self(batch, temperature=2.0))

    def predict_step(self, batch, batch_idx):
        return self(batch=batch, temperature=torch.tensor(2.0))


@pytest.mark.parametrize("max_batch", [None, 3, 20])
def test_dict_batches_through_the_modules_own_forward(max_batch):
    x, _ = images()
    module = DictBatches()
    data = DataLoader([{"image": each, "id": k, "path": f"{k}.png"} for k, each in enumerate(x)], 5)
    trainer, _ = run(module, TestTimeAugmentation("flip", max_batch=max_batch), loaders=data)
    expected = explicit(lambda_net(lambda x: module.net(x) / 2), flips)
    torch.testing.assert_close(module.outputs(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cat(trainer.predict(module, data)), expected, rtol=0, atol=1e-6)


def lambda_net(function):
    class Net(nn.Module):
        def forward(self, x):
            return function(x)

    return Net()


def test_bf16_is_averaged_in_single_precision():
    module = Classifier()
    run(module, TestTimeAugmentation("ten_crop(10)", target="net"), precision="bf16-mixed")
    found = module.outputs()
    assert found.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        expected = explicit(lambda_net(lambda x: module.net(x).float()), ten)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_images_stay_channels_last():
    strides = []
    module = Classifier()
    module.net[0].register_forward_pre_hook(lambda _, args: strides.append(args[0].stride()[1]))
    run(module, ChannelsLast(), TestTimeAugmentation("ten_crop(10)", target="net"))
    torch.testing.assert_close(module.outputs(), explicit(module.net, ten), rtol=0, atol=1e-6)
    assert set(strides[:30]) == {1}


def compile_in_place(module, backend):
    module.net.compile(backend=backend)
    return module


def compile_net(module, backend):
    module.net = torch.compile(module.net, backend=backend)
    return module


def compile_all(module, backend):
    return torch.compile(module, backend=backend)


class Graphs:
    """A backend that counts what was compiled, and how often that ran."""

    def __init__(self):
        self.compiled, self.ran = 0, 0

    def __call__(self, graph, inputs):
        self.compiled += 1

        def call(*args):
            self.ran += 1
            return graph(*args)

        return call


@pytest.mark.parametrize("compile_it", [compile_in_place, compile_net, compile_all])
@pytest.mark.parametrize("early_exit", [False, True])
def test_compiled_module(compile_it, early_exit):
    torch._dynamo.reset()
    module, graphs = Classifier(make_net(sharpness=20 if early_exit else 1)), Graphs()
    net = copy.deepcopy(module.net)
    compiled = compile_it(module, graphs)
    callback = TestTimeAugmentation("ten_crop(10)", target="net", early_exit=early_exit)
    run(compiled)  # compiled without the callback first, which it must notice
    plain, before = module.outputs(), graphs.ran
    for _ in range(2):
        run(compiled, callback)
        found, expected = module.outputs(), explicit(net, ten)
        assert torch.equal(found.argmax(1), expected.argmax(1))
        if not early_exit:
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    calls = 3 * 10 * 2
    rest = 3 * 2 * 2 if compile_it is compile_all else 0  # what stands before and after the target in a compiled step
    assert (calls * 0.6 if early_exit else calls) <= graphs.ran - before <= calls + rest
    if early_exit:
        assert callback.passes_per_sample < 10
    assert graphs.compiled <= 12  # few, although the passes differ in size
    run(compiled)
    torch.testing.assert_close(module.outputs(), plain, rtol=0, atol=0)


def test_compiled_by_inductor():
    torch._dynamo.reset()
    module = Classifier()
    net = copy.deepcopy(module.net)
    module.net.compile()
    run(module, TestTimeAugmentation("ten_crop(10)", target="net"), loaders=loader(10))
    torch.testing.assert_close(module.outputs(), explicit(net, ten, n=10), rtol=0, atol=1e-6)


class Measured(Classifier):
    """Logs torchmetrics, of the target's output."""

    def __init__(self, net=None):
        super().__init__(net)
        self.accuracy = MulticlassAccuracy(CLASSES, average="micro")

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        logits = self.net(batch[0])
        self.seen.append(logits)
        self.accuracy(logits, batch[1])
        self.log("test/acc", self.accuracy)


def test_early_exit_keeps_the_accuracy_and_logs_what_it_saved(tmp_path):
    results = []
    for early_exit in (False, True):
        module = Measured(make_net(sharpness=20))
        logger = CSVLogger(tmp_path, version=str(early_exit))
        callback = TestTimeAugmentation("ten_crop(10)", target="net", early_exit=early_exit)
        _, metrics = run(module, callback, loaders=loader(50), logger=logger)
        results.append((module.outputs(), metrics, callback.passes_per_sample))
    (full, without, all_passes), (found, metrics, passes) = results
    assert torch.equal(found.argmax(1), full.argmax(1))
    assert metrics["test/acc"] == without["test/acc"]
    assert "test/passes_saved" not in without
    assert (all_passes, passes < 9) == (10, True)
    assert metrics["test/passes_saved"] == pytest.approx(1 - passes / 10)
    assert "test/passes_saved" in (tmp_path / "lightning_logs" / "True" / "metrics.csv").read_text()


def test_early_exit_in_predict():
    module = Classifier(make_net(sharpness=20))
    callback = TestTimeAugmentation("ten_crop(10)", target="net", early_exit=True, average="votes")
    found = torch.cat(toy_trainer(callback).predict(module, loader(50)))
    votes = sum(nn.functional.one_hot(module.net.eval()(x).argmax(1), CLASSES) for x in ten(images(50)[0]))
    clear = votes.topk(2).values.diff().squeeze(1) != 0
    assert torch.equal(found.argmax(1)[clear], votes.argmax(1)[clear])
    assert callback.passes_per_sample < 9


def test_several_loaders():
    module = Measured()
    _, metrics = run(module, TestTimeAugmentation("flip", target="net"), loaders=[loader(), loader(7)])
    expected = [explicit(module.net, flips, n=n) for n in (12, 7)]
    torch.testing.assert_close(module.outputs(), torch.cat(expected), rtol=0, atol=1e-6)
    accuracy = (expected[0].argmax(1) == images(12)[1]).float().mean().item()
    assert metrics["test/acc/dataloader_idx_0"] == pytest.approx(accuracy)


def test_weights_of_a_checkpoint(tmp_path):
    module, other = Classifier(), Classifier(make_net(sharpness=5))
    trainer = toy_trainer()
    trainer.strategy.connect(other)
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    trainer = toy_trainer(TestTimeAugmentation("flip", target="net"))
    trainer.test(module, loader(), ckpt_path=tmp_path / "other.ckpt", weights_only=True, verbose=False)
    torch.testing.assert_close(module.outputs(), explicit(other.net, flips), rtol=0, atol=1e-6)


def test_callbacks_with_different_targets_average_one_within_the_other():
    class Nested(Classifier):
        def forward(self, x):
            return 2 * self.net(x)

        def test_step(self, batch, batch_idx):
            self.seen.append(self(batch[0]))

    module = Nested()
    run(module, TestTimeAugmentation([["identity", "rot90"]]), TestTimeAugmentation("flip", target="net"))

    def inner(x):
        return 2 * sum(module.net(view).softmax(1) for view in flips(x)).div(2).log()

    expected = explicit(lambda_net(inner), lambda x: [x, torch.rot90(x, 1, (2, 3))])
    torch.testing.assert_close(module.outputs(), expected, rtol=0, atol=1e-6)


def test_logits_and_views_of_ones_own():
    module = Classifier()
    callback = TestTimeAugmentation(["flip", torch.tanh], target="net", average="logits")
    run(module, callback)
    net = module.net.eval()
    with torch.no_grad():
        expected = [sum(map(net, [*flips(x), *flips(x.tanh())])) / 4 for x in images()[0].split(5)]
    torch.testing.assert_close(module.outputs(), log_softmax(torch.cat(expected), 1), rtol=0, atol=1e-6)


def test_pickles_and_copies_also_after_use():
    callback = TestTimeAugmentation(["scales(10, 12)", "flip"], target="net", stages="test")
    module = Classifier()
    run(module, callback)
    expected = module.outputs()
    for each in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        run(module, each)
        torch.testing.assert_close(module.outputs(), expected, rtol=0, atol=0)
        assert each.stages == "test"


def test_image_smaller_than_its_crop():
    with pytest.raises(ValueError, match=r"`ten_crop\(16\)` must be no larger than the images, got images of 12 x 12"):
        run(Classifier(), TestTimeAugmentation("ten_crop(16)", target="net"))
