import copy
import math
import pickle

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn.functional import cross_entropy, dropout, one_hot
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from lightning_trainingkit import EpochSeed
from lightning_trainingkit.callbacks.averaging.augmentation import TestTimeAugmentation
from lightning_trainingkit.callbacks.averaging.monte_carlo_dropout import MonteCarloDropout
from tests.toy import ToyModule, difference, toy_data, toy_loaders, toy_trainer


class Spy(ToyModule):
    """Notes what its steps are given, and the modes in which its net is called."""

    def __init__(self):
        torch.manual_seed(3)
        super().__init__()
        self.net[1].running_mean.fill_(0.3)  # so that a BatchNorm in training mode would show
        self.net[5].weight.data.mul_(4)  # so that the masks disagree
        self.outputs, self.modes = [], []
        self.net[0].register_forward_pre_hook(self._note)
        self.accuracy = MulticlassAccuracy(2, average="micro")

    def _note(self, *_):
        self.modes.append([name for name, each in self.net.named_modules() if each.training])

    def test_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.outputs.append(logits.clone())
        self.accuracy(logits, batch[1])
        self.log("test/loss", cross_entropy(logits, batch[1]))
        self.log("test/acc", self.accuracy)


class Drawing(ToyModule):
    """Draws in its own forward, where nothing shows it."""

    def __init__(self):
        super().__init__()
        self.net[4] = nn.Identity()

    def forward(self, x):
        return dropout(self.net(x), 0.5, self.training)


def loader(size=37):
    return DataLoader(toy_data(size), 8)


def images(size=37):
    return toy_data(size).tensors[0]


def passes_by_hand(module, seed, batches, views=(lambda x: x,), passes=5):
    """Log-probabilities ``(K, N, C)`` of a loop with dropout on, batch for batch."""
    net = copy.deepcopy(module.net).eval()
    net[4].train()
    torch.manual_seed(seed)
    with torch.no_grad():
        each = [torch.stack([net(view(x)) for _ in range(passes) for view in views]) for x in batches]
    return torch.cat(each, 1).log_softmax(2)


def entropies(log_probabilities):
    """Of each sample, written as in the papers: of the mean, and the mutual information."""
    p = log_probabilities.double().exp()
    mean = p.mean(0)
    of_mean = -(mean * mean.log()).sum(1)
    return of_mean, of_mean + (p * p.log()).sum(2).mean(0)


def assert_close(found, expected):
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", [None, "net"])
def test_the_mean_is_that_of_a_loop_with_the_same_seed(target):
    module, callback = Spy(), MonteCarloDropout(5, target=target)
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(11)
    (logged,) = toy_trainer(callback).test(module, loader(), verbose=False)
    expected = passes_by_hand(module, 11, images().split(8))
    mean = expected.exp().mean(0)
    assert_close(torch.cat(module.outputs).exp(), mean)
    labels = toy_data(37).tensors[1]
    assert logged["test/acc"] == pytest.approx((mean.argmax(1) == labels).float().mean().item())
    assert logged["test/loss"] == pytest.approx(cross_entropy(mean.log(), labels).item(), abs=1e-6)

    entropy, information = entropies(expected)
    assert_close(callback.entropy, entropy)
    assert_close(callback.mutual_information, information)
    assert logged["test/entropy"] == pytest.approx(entropy.mean().item(), abs=1e-6)  # the last batch is smaller
    assert logged["test/mutual_information"] == pytest.approx(information.mean().item(), abs=1e-6)
    assert callback.mutual_information.mean() > 0.01
    assert (callback.entropy <= math.log(2) + 1e-6).all()

    prefix = "net." if target is None else ""
    assert callback.random_layers == {f"{prefix}4": "Dropout"}
    assert module.modes == [["4"]] * 5 * 5
    assert difference(module.state_dict(), before) == 0


def test_predict():
    module, callback = Spy(), MonteCarloDropout(5, target="net")
    torch.manual_seed(11)
    predicted = toy_trainer(callback).predict(module, loader())
    expected = passes_by_hand(module, 11, images().split(8))
    assert_close(torch.cat(predicted).exp(), expected.exp().mean(0))
    assert_close(callback.mutual_information, entropies(expected)[1])
    callback.mutual_information.add_(1)  # an ordinary tensor, not one of inference mode
    assert callback.entropy.device.type == "cpu"
    assert not callback.entropy.requires_grad
    assert callback.passes_per_sample == 5


@pytest.mark.parametrize("views_first", [False, True])
@pytest.mark.parametrize("max_batch", [None, 100])
def test_it_multiplies_with_views(views_first, max_batch):
    module = Spy()
    callback = MonteCarloDropout(5, target="net", max_batch=max_batch)
    callbacks = [callback, TestTimeAugmentation("flip", target="net")]
    torch.manual_seed(11)
    toy_trainer(*callbacks[:: -1 if views_first else 1]).test(module, loader(), verbose=False)
    assert len(module.modes) == 5 * 5 * (2 if max_batch is None else 1)
    assert callback.passes_per_sample == 10
    assert len(callback.entropy) == 37
    if max_batch is None:
        expected = passes_by_hand(module, 11, images().split(8), [lambda x: x, lambda x: x.flip(3)])
        assert_close(torch.cat(module.outputs).exp(), expected.exp().mean(0))
        assert_close(callback.entropy, entropies(expected)[0])
        assert_close(callback.mutual_information, entropies(expected)[1])


@pytest.mark.parametrize("average", ["logits", "geometric", "votes"])
def test_other_averages_have_an_entropy_alone(average):
    module, callback = Spy(), MonteCarloDropout(5, average=average)
    torch.manual_seed(11)
    (logged,) = toy_trainer(callback).test(module, loader(), verbose=False)
    passes = passes_by_hand(module, 11, images().split(8))
    expected = one_hot(passes.argmax(2), 2).float().mean(0) if average == "votes" else passes.mean(0).softmax(1)
    assert_close(torch.cat(module.outputs).exp(), expected)
    assert_close(callback.entropy, torch.special.entr(expected).sum(1))
    assert callback.mutual_information is None
    assert "test/mutual_information" not in logged


def test_a_large_batch_is_cut():
    module, callback = Spy(), MonteCarloDropout(5, max_batch=6)
    calls = []
    module.net[0].register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    torch.manual_seed(11)
    toy_trainer(callback).test(module, DataLoader(toy_data(8), 8), verbose=False)
    assert calls == [6, 2] * 5
    net = module.net.eval()
    net[4].train()
    torch.manual_seed(11)
    with torch.no_grad():
        passes = [torch.cat([net(part) for part in images(8).split(6)]) for _ in range(5)]
    assert_close(callback.mutual_information, entropies(torch.stack(passes).log_softmax(2))[1])


def test_one_pass():
    callback = MonteCarloDropout(1)
    (logged,) = toy_trainer(callback).test(Spy(), loader(), verbose=False)
    assert logged["test/mutual_information"] == pytest.approx(0, abs=1e-6)
    assert (callback.mutual_information >= 0).all()
    assert logged["test/entropy"] > 0.1


@pytest.mark.parametrize("sizes", [(9, 5), (24, 5, 8)])
def test_each_loader_has_an_entropy_of_its_own(sizes):
    callback = MonteCarloDropout(3)
    logged = {}
    for each in toy_trainer(callback).test(Plain(), [loader(size) for size in sizes], verbose=False):
        logged |= each
    for name, measured in (("entropy", callback.entropy), ("mutual_information", callback.mutual_information)):
        assert measured.shape == (sum(sizes),)  # one after the other
        found = [logged[f"test/{name}/dataloader_idx_{index}"] for index in range(len(sizes))]
        assert found == pytest.approx([part.double().mean().item() for part in measured.split(sizes)], abs=1e-6)
        assert f"test/{name}" not in logged


def test_loaders_that_run_together_have_one_entropy():
    together = CombinedLoader({"a": loader(9), "b": loader(9)}, "max_size")

    class Both(ToyModule):
        def test_step(self, batch, batch_idx):
            self(batch["a"][0])

    (logged,) = toy_trainer(MonteCarloDropout(3)).test(Both(), together, verbose=False)
    assert {name for name in logged if "entropy" in name} == {"test/entropy"}


class Plain(ToyModule):
    def test_step(self, batch, batch_idx, dataloader_idx=0):
        super().test_step(batch, batch_idx)


def test_a_stage_that_is_run_again_gives_the_same_and_another_seed_another():
    module, callback = Spy(), MonteCarloDropout(5)
    found = []
    for seed in (1, None, 2):
        if seed is not None:
            L.seed_everything(seed, verbose=False)
        state = torch.get_rng_state()
        toy_trainer(callback).test(module, loader(), verbose=False)
        assert seed is None or torch.initial_seed() == seed
        torch.set_rng_state(state)
        found.append(callback.mutual_information)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    batches = found[0][:32].view(4, 8)
    assert not any(torch.equal(batches[0], other) for other in batches[1:])


def fit(folder, *callbacks, epochs=4, ckpt_path=None):
    torch.manual_seed(0)
    module = ToyModule()
    save = ModelCheckpoint(folder, save_top_k=-1, save_on_train_epoch_end=False)
    trainer = toy_trainer(*callbacks, save, max_epochs=epochs, default_root_dir=folder)
    trainer.fit(module, *toy_loaders(), ckpt_path=ckpt_path)
    return module, trainer


def test_validation_leaves_the_training_as_it_would_be(tmp_path):
    with_masks, trainer = fit(tmp_path / "with", MonteCarloDropout(3, stages="validate"))
    without, plain = fit(tmp_path / "without")
    assert difference(with_masks.state_dict(), without.state_dict()) == 0
    assert trainer.callback_metrics["val/loss"] != plain.callback_metrics["val/loss"]
    assert {"val/entropy", "val/mutual_information"} <= trainer.callback_metrics.keys()


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("seeded", [False, True])
def test_a_resumed_fit_has_the_masks_of_an_unbroken_one(tmp_path, seeded):
    """With EpochSeed the whole fit is the same; the masks begin with the seed in each stage, with and without it."""
    callbacks = [MonteCarloDropout(3, stages="validate"), *([EpochSeed(7)] if seeded else [])]
    module, unbroken = fit(tmp_path / "unbroken", *callbacks)
    _, first = fit(tmp_path / "resumed", *copy.deepcopy(callbacks), epochs=2)
    path = first.checkpoint_callback.best_model_path
    resumed, second = fit(tmp_path / "resumed", *copy.deepcopy(callbacks), ckpt_path=path)
    if seeded:
        assert difference(module.state_dict(), resumed.state_dict()) == 0
        for name in ("val/loss", "val/entropy", "val/mutual_information"):
            assert unbroken.callback_metrics[name] == second.callback_metrics[name]
    again = [toy_trainer(each[0]).validate(module, toy_loaders()[1], verbose=False) for each in [callbacks] * 2]
    assert again[0] == again[1]


def test_the_random_layers_are_printed_once(caplog):
    callback = MonteCarloDropout(3, stages=["validate", "test"])
    with caplog.at_level("INFO"):
        trainer = toy_trainer(callback, num_sanity_val_steps=0)
        trainer.fit(Spy(), *toy_loaders())
        trainer.test(Spy(), loader(), verbose=False)
    lines = [record.message for record in caplog.records if "Monte-Carlo" in record.message]
    assert lines == ["Monte-Carlo dropout: 3 passes, random in net.4 (Dropout)."]


def test_layers_of_the_users():
    callback = MonteCarloDropout(5, layers="")
    toy_trainer(callback).test(Drawing(), loader(), verbose=False)
    assert callback.random_layers == {"": "Drawing"}
    assert callback.mutual_information.mean() > 0.001


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (Drawing(), {}, r"`target` must have a layer that draws random numbers .*BatchNorm2d, Conv2d, Drawing"),
        (Drawing(), {"target": "net"}, r"`target` must have a layer that draws"),
        (
            Spy(),
            {"target": "nte"},
            r"`target` must name a submodule of Spy, got 'nte', which matches none\. Nearest names: net",
        ),
        (Spy(), {"layers": "net.9"}, r"`layers` must match names in Spy, got 'net\.9'.* Nearest names: net\.0, net\.1"),
        (Spy(), {"layers": "net.1"}, r"`layers` must match others than layers with running statistics"),
    ],
)
def test_modules_that_do_not_fit(module, options, message):
    before = {name: each.training for name, each in module.named_modules()}
    with pytest.raises(ValueError, match=message):
        toy_trainer(MonteCarloDropout(3, **options)).test(module, loader(), verbose=False)
    assert "forward" not in vars(module)
    assert all(each.training is not True or before[name] for name, each in module.named_modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"passes": 0}, "`passes` must be at least 1, got 0"),
        ({"passes": 1.5}, "`passes` must be an integer, got 1.5"),
        ({"average": "mean"}, "`average` must be one of 'probabilities'"),
        ({"max_batch": 0}, "`max_batch` must be at least 1"),
        ({"stages": "fit"}, "`stages` must be some of validate, test, predict"),
    ],
)
def test_arguments_that_are_wrong(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MonteCarloDropout(**options)


def test_an_early_exit_would_lose_passes():
    callbacks = [MonteCarloDropout(3), TestTimeAugmentation("flip", early_exit=True)]
    with pytest.raises(ValueError, match="`early_exit` must be False with random masks"):
        toy_trainer(*callbacks).test(Spy(), loader(), verbose=False)


def test_a_compiled_module():
    module, callback = ToyModule(), MonteCarloDropout(5, target="net")
    plain, x = copy.deepcopy(module), images(8)
    module.net.compile(backend="eager")
    with torch.no_grad():
        module.net.eval()(x)  # compiled in eval mode before
    torch.manual_seed(11)
    (found,) = toy_trainer(callback).predict(module, DataLoader(toy_data(8), 8))
    assert_close(found.exp(), passes_by_hand(plain, 11, [x]).exp().mean(0))
    torch.compiler.reset()


def test_bfloat16():
    module, callback = Spy(), MonteCarloDropout(5)
    torch.manual_seed(11)
    toy_trainer(callback, precision="bf16-mixed").test(module, loader(), verbose=False)
    assert_close(callback.entropy, torch.special.entr(torch.cat(module.outputs).exp()).sum(1))
    expected = entropies(passes_by_hand(module, 11, images().split(8)))[1]
    torch.testing.assert_close(callback.mutual_information.double(), expected, rtol=0.1, atol=0.01)


def test_it_pickles_with_what_it_found():
    callback = MonteCarloDropout(3)
    toy_trainer(callback).test(Spy(), loader(), verbose=False)
    for other in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        assert torch.equal(other.entropy, callback.entropy)
        toy_trainer(other).test(Spy(), loader(5), verbose=False)
        assert len(other.entropy) == 5


@pytest.mark.parametrize("masks_first", [True, False])
def test_masks_inside_another_average_are_refused(masks_first):
    module = Spy()
    callbacks = [MonteCarloDropout(3, target="net"), TestTimeAugmentation("flip")]
    with pytest.raises(ValueError, match="must be the same for MonteCarloDropout and views, got 'net'"):
        toy_trainer(*callbacks[:: 1 if masks_first else -1]).test(module, loader(), verbose=False)
    assert "forward" not in vars(module) | vars(module.net)
    toy_trainer(MonteCarloDropout(3), TestTimeAugmentation("flip", target="net")).test(module, loader(), verbose=False)
