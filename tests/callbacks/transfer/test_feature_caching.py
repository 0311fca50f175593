import copy
import logging

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from lightning_trainingkit import ChannelsLast, EpochSeed, ReestimateBatchNorm, TransferLearning
from lightning_trainingkit.nn.transfer import feature_cache
from lightning_trainingkit.nn.transfer.frozen_front import find_front
from tests.toy import ToyModule, difference, toy_data, toy_loaders, toy_trainer

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # resumed on purpose


def transfer(phases="small_data", cache_features=True, **options):
    return TransferLearning(phases, cache_features=cache_features, verbose=False, **options)


class Counted(ToyModule):
    """Counts the images that pass through its first layer, in training and in evaluation."""

    def __init__(self, **options):
        torch.manual_seed(0)
        super().__init__(**options)
        self.seen = []
        self.net[0].register_forward_pre_hook(self.count)

    def count(self, module, args):
        self.seen.append((self.trainer.current_epoch, self.training, len(args[0])))

    def of_epoch(self, epoch, training=True):
        return sum(count for each, mode, count in self.seen if (each, mode) == (epoch, training))


class LogsRates(L.Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))


def fit(*callbacks, module=None, **options):
    L.seed_everything(0, verbose=False)
    module = module or Counted()
    rates = LogsRates()
    trainer = toy_trainer(*callbacks, rates, **{"max_epochs": 4, "num_sanity_val_steps": 0} | options)
    trainer.fit(module, *toy_loaders())
    return module, rates.losses


@pytest.mark.parametrize("where", [True, "disk"])
def test_each_image_passes_the_front_once_and_training_is_the_same(where, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        cached, losses = fit(transfer(cache_features=where), default_root_dir=tmp_path / "root")
    plain, expected = fit(transfer(cache_features=False))
    assert losses == pytest.approx(expected, rel=1e-5)
    assert difference(cached.state_dict(), plain.state_dict()) < 1e-6
    # some images to cut and to try the forward out
    assert 32 <= cached.of_epoch(0) <= 32 + 24
    assert 32 <= cached.of_epoch(0, False) <= 32 + 24
    # but for two images each to cut and to compare, with which each epoch looks whether all is still the same
    assert all(cached.of_epoch(epoch, mode) <= 2 for epoch in (1, 2, 3) for mode in (True, False))
    assert plain.of_epoch(3) == 32
    assert "keeps what net says of each image after flatten" not in caplog.text  # a module is known by its name
    assert "after 3 in training: 16 float32, 0.0625 KiB x 32 images = 0.001953 MiB" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "forward" not in vars(cached.net)


def test_what_is_kept_equals_what_is_computed_anew():
    class Compare(L.Callback):
        largest = 0.0

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            (cache,) = callback._caching.caches
            mode = cache.modes[True, True, None]
            kept, anew = cache._features(mode, mode.front, batch[0]), mode.front.front(batch[0])
            self.largest = max(self.largest, (kept[0] - anew[0]).abs().max().item())
            assert cache.hits >= len(batch[0])  # those of this call

    callback, compare = transfer(), Compare()
    toy_trainer(callback, compare, max_epochs=3).fit(ToyModule(), *toy_loaders())
    assert compare.largest < 1e-6


def test_each_phase_has_a_front_of_its_own_and_the_last_has_none():
    phases = [{"train": "head"}, {"train": ["head", "net.1"], "start": 2}, {"train": "all", "start": 4}]
    module, losses = fit(transfer(phases), max_epochs=6)
    _, expected = fit(transfer(phases, cache_features=False), max_epochs=6)
    assert losses == pytest.approx(expected, rel=1e-4)
    counts = [module.of_epoch(epoch) for epoch in range(6)]
    assert all(32 <= counts[epoch] <= 32 + 36 for epoch in (0, 2))  # some to cut and to try out
    assert all(counts[epoch] <= 2 for epoch in (1, 3))
    assert counts[4:] == [32, 32]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_epochs_that_were_begun_before_say_nothing_of_use(tmp_path):
    phases = [{"train": "head"}, {"train": ["head", "net.1"], "start": 0.2}]
    save = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    module = Counted()
    toy_trainer(transfer(phases), save, max_epochs=4).fit(module, *toy_loaders())  # begins at 3 of 4 batches
    for step in (3, 6):
        again = Counted()
        toy_trainer(transfer(phases), save, max_epochs=4).fit(
            again, *toy_loaders(), ckpt_path=tmp_path / f"step={step}.ckpt"
        )
        assert again.of_epoch(3) <= 2


def test_a_run_resumed_at_the_end_of_a_validation_goes_on(tmp_path):
    save = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=False)
    toy_trainer(transfer(), save, EpochSeed(0), max_epochs=2).fit(Counted(), *toy_loaders())
    module = Counted()
    trainer = toy_trainer(transfer(), save, EpochSeed(0), max_epochs=5)
    trainer.fit(module, *toy_loaders(), ckpt_path=tmp_path / "last.ckpt")
    assert trainer.current_epoch == 5
    assert module.of_epoch(4) <= 2


def test_forwards_of_other_shapes():
    class Parts(ToyModule):
        """No forward that the step calls: a backbone and a head."""

        def __init__(self):
            torch.manual_seed(0)
            super().__init__()
            self.parts = nn.ModuleDict({"backbone": self.net[:4], "head": nn.Linear(16, 2)})
            self.net = nn.Identity()
            self.seen = 0
            self.parts["backbone"][0].register_forward_pre_hook(self.count)

        def count(self, module, args):
            self.seen += len(args[0])

        def forward(self, x):
            return self.parts["head"](self.parts["backbone"](x))

    class Direct(Parts):
        def training_step(self, batch, batch_idx):
            return cross_entropy(self.parts["head"](self.parts["backbone"](batch[0])), batch[1])

    class Branches(Parts):
        def forward(self, x):
            return super().forward(x) if x.sum() > -1e9 else x  # can't be traced, its parts can

    for kind in (Parts, Direct, Branches):
        module = kind()
        toy_trainer(transfer(), max_epochs=5, limit_val_batches=0).fit(module, *toy_loaders())
        assert 32 <= module.seen <= 64


def test_precision_memory_format_and_accumulation():
    for options in ({"precision": "bf16-mixed"}, {"accumulate_grad_batches": 2}):
        _, losses = fit(transfer(), **options)
        _, expected = fit(transfer(cache_features=False), **options)
        assert losses == pytest.approx(expected, rel=1e-2 if "precision" in options else 1e-5)
    module = Counted()
    toy_trainer(transfer(), ChannelsLast(), max_epochs=3).fit(module, *toy_loaders())
    assert module.of_epoch(2) <= 2


def test_weights_that_change_are_noticed_and_ones_that_are_exchanged_go_by():
    class Meddle(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                with torch.no_grad():
                    pl_module.net[0].weight.mul_(1.5)

        def on_validation_start(self, trainer, pl_module):
            self.held = pl_module.net[0].weight
            other = self.held * (2 + trainer.current_epoch)
            pl_module.net[0]._parameters["weight"] = nn.Parameter(other, requires_grad=False)

        def on_validation_end(self, trainer, pl_module):
            pl_module.net[0]._parameters["weight"] = self.held
            if not trainer.sanity_checking:
                validated[-1].append(float(trainer.callback_metrics["val/loss"]))

    losses, validated = [], []
    for cached in (True, False):
        validated.append([])
        L.seed_everything(0, verbose=False)
        module, rates = Counted(), LogsRates()
        callbacks = [transfer(cache_features=cached), Meddle(), rates]
        trainer = toy_trainer(*callbacks, max_epochs=5)
        trainer.fit(module, *toy_loaders())
        assert module.of_epoch(2) >= 32
        losses.append(rates.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert validated[0] == pytest.approx(validated[1], rel=1e-5)
    assert validated[1][0] != validated[1][1]


@pytest.mark.parametrize("kind", ["toggles", "data", "buffer", "epoch", "leaf", "mode", "ema"])
def test_training_is_that_without_a_cache_whatever_changes(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(1, 4, 3), Scale(4), nn.Linear(16, 2)
            self.epoch = 0

        def forward(self, x):
            x = self.norm(self.conv(x).relu())
            if self.epoch >= 2:
                x = x * 0.5
            return self.last(x.flatten(1))

    class Scale(nn.BatchNorm2d):
        factor = 1.0

        def forward(self, x):
            return super().forward(x) * self.factor

    class Module(ToyModule):
        def __init__(self):
            torch.manual_seed(0)
            super().__init__()
            self.net = Net()

        def training_step(self, batch, batch_idx):
            if kind == "toggles":
                self.net.norm.requires_grad_(False)
                with torch.no_grad():
                    self(batch[0])
                self.net.norm.requires_grad_(self.current_epoch >= 1)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            if kind == "mode":
                self.net.norm.train(self.current_epoch % 2 == 1)
            super().validation_step(batch, batch_idx)
            self.net.norm.eval()

    class Change(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            net = pl_module.net
            if kind == "epoch":
                net.epoch = trainer.current_epoch
            elif kind == "leaf" and trainer.current_epoch == 2:
                net.norm.factor = 3.0
            elif kind == "data" and trainer.current_epoch == 2:
                net.conv.weight.data.mul_(2)
            elif kind == "buffer" and trainer.current_epoch == 2:
                net.norm.running_mean.add_(1)

        def on_validation_end(self, trainer, pl_module):
            seen[-1].append(float(trainer.callback_metrics["val/loss"]))

    phases = {
        "toggles": [{"train": "head"}, {"train": ["head", "net.norm"], "start": 1}],
        "ema": [{"train": "all"}, {"train": "head", "start": 1}],
    }.get(kind, "small_data")
    seen, modules = [], []
    for cached in (True, False):
        seen.append([])
        module = Module()
        L.seed_everything(0, verbose=False)
        ema = [EMAWeightAveraging(decay=0.7)] if kind == "ema" else []
        callback = transfer(phases, cache_features=cached)
        trainer = toy_trainer(Change(), callback, *ema, max_epochs=5, num_sanity_val_steps=0)
        trainer.fit(module, *toy_loaders())
        modules.append(module)
    assert seen[0] == pytest.approx(seen[1], rel=1e-4)
    assert difference(modules[0].state_dict(), modules[1].state_dict()) < 1e-4


def test_copies_of_the_module_have_a_forward_of_their_own(tmp_path):
    class Copies(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            torch.save(pl_module.net, tmp_path / "net.pt")
            for one in (copy.deepcopy(pl_module.net), torch.load(tmp_path / "net.pt", weights_only=False)):
                with torch.no_grad():
                    one[5].bias.fill_(7.0)
                    one[5].weight.zero_()
                assert one(torch.rand(2, 1, 4, 4)).tolist() == [[7.0, 7.0]] * 2
            self.copy = one

    copies = Copies()
    toy_trainer(transfer(), copies, max_epochs=2).fit(ToyModule(), *toy_loaders())
    assert copies.copy.eval()(torch.rand(1, 1, 4, 4)).tolist() == [[7.0, 7.0]]


def test_images_of_several_sizes():
    class Sizes(ToyModule):
        def __init__(self):
            torch.manual_seed(0)
            super().__init__()
            pool = nn.AdaptiveAvgPool2d(1) if self.pooled else nn.Identity()
            self.net = nn.Sequential(
                nn.Conv2d(1, 4, 3), pool, nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            )

        def training_step(self, batch, batch_idx):
            x = batch[0] if batch_idx % 2 else F.pad(batch[0], (0, 0, 0, 2))  # zeros below, that hash to nothing
            return cross_entropy(self(x), batch[1])

    Sizes.pooled = True
    results = []
    for cached in (True, False):
        L.seed_everything(0, verbose=False)
        loaders = DataLoader(toy_data(), 8), toy_loaders()[1]
        module = Sizes()
        toy_trainer(transfer(cache_features=cached), max_epochs=3).fit(module, *loaders)
        results.append(module.state_dict())
    assert difference(*results) < 1e-6
    Sizes.pooled = False
    with pytest.raises(ValueError, match="must be False where images have several sizes"):
        toy_trainer(transfer(), max_epochs=3).fit(Sizes(), *loaders)


@pytest.mark.parametrize("place", ["front", "rest"])
@pytest.mark.parametrize("registered", [True, False])
def test_tensors_that_the_module_replaces_within_an_epoch_are_noticed(place, registered):
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 4), nn.Linear(4, 2)
            self.register_buffer("front", torch.tensor(1.0)) if registered else setattr(
                self, "front", torch.tensor(1.0)
            )
            self.register_buffer("rest", torch.tensor(1.0)) if registered else setattr(self, "rest", torch.tensor(1.0))

        def forward(self, x):
            return self.head(self.conv(x * self.front).flatten(1)) * self.rest

    class Change(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            setattr(pl_module.net, place, torch.tensor(1.0 + (trainer.global_step > 5)))

    def module():
        torch.manual_seed(0)
        found = ToyModule()
        found.net = Tempered()
        return found

    _, losses = fit(transfer(), Change(), module=module())
    _, expected = fit(transfer(cache_features=False), Change(), module=module())
    assert losses == pytest.approx(expected, rel=1e-5)


class Schedule:
    heat = 1.0


class Annealed(ToyModule):
    """Its forward reads a number from one of many places; ``heat`` writes it there."""

    temperature = 1.0

    def __init__(self, kind):
        torch.manual_seed(0)
        super().__init__()
        self.kind, self.conv, self.head = kind, nn.Conv2d(1, 4, 4), nn.Linear(4, 2)
        self.head._heat = self._private = 1.0
        self.schedule = Schedule()
        self.settings, self.steps, self.net = {"heat": [1.0]}, 0, None

    @property
    def heated(self):
        return 1.0 + (self.trainer.global_step > 5)

    def heat(self, value):
        self.steps += 1  # which no forward reads
        if self.kind == "private":
            self._private = value
        elif self.kind == "dict":
            self.settings["heat"][0] = value
        elif self.kind == "hparams":
            self.hparams.lr = value
        elif self.kind == "object":
            self.schedule.heat = value
        elif self.kind == "class":
            Annealed.temperature = value
        elif self.kind == "part":
            self.head._heat = value
        elif self.kind == "absent" and value > 1:
            self.absent = value
        elif self.kind == "submodule" and value > 1 and not isinstance(self.scale, nn.Flatten):
            self.scale = nn.Flatten()

    def forward(self, x):
        found = self.head(self.conv(x).flatten(1))
        if self.kind == "property":
            return found * self.heated
        if self.kind == "step":
            return found * min(1.0, self.global_step / 10)
        if self.kind == "submodule":
            return found * (2.0 if isinstance(self.scale, nn.Flatten) else 1.0)
        places = {
            "private": lambda: self._private,
            "dict": lambda: self.settings["heat"][0],
            "hparams": lambda: self.hparams.lr,
            "object": lambda: self.schedule.heat,
            "trainer": lambda: min(1.0, self.trainer.global_step / 10),
            "class": lambda: self.temperature,
            "part": lambda: self.head._heat,
            "absent": lambda: getattr(self, "absent", 1.0),
        }
        return found * places[self.kind]()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    "kind",
    ["private", "dict", "hparams", "object", "class", "part", "absent", "property", "step", "trainer", "submodule"],
)
def test_what_a_traced_forward_reads_may_change_before_each_step(kind, monkeypatch):
    class Change(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            pl_module.heat(1.0 + (trainer.global_step > 5))

    cuts = []
    monkeypatch.setattr(feature_cache, "find_front", lambda *a, **k: cuts.append(1) or find_front(*a, **k))
    results = []
    for cached in (True, False):
        monkeypatch.setattr(Annealed, "temperature", 1.0)
        module = Annealed(kind)
        module.scale = nn.Identity()
        results.append(fit(transfer(cache_features=cached), Change(), module=module)[1])
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    # one to look at the phase, one for each of 4 epochs and validations, and one where the number changes
    assert len(cuts) <= (10 if kind not in ("step", "trainer", "property") else 26)


@pytest.mark.parametrize("step", [6, 8])
@pytest.mark.parametrize("kind", ["private", "in a dict", "tensor", "tensor in place", "tensor in a list"])
def test_attributes_of_a_frozen_part_that_change_within_or_between_epochs_are_noticed(kind, step):
    class Hidden(nn.Conv2d):
        def __init__(self):
            super().__init__(1, 4, 4)
            self._scale, self.held, self.tensor = 1.0, {"scale": 1.0}, torch.tensor(1.0)
            self.tensors = [torch.tensor(1.0)]

        def forward(self, x):
            return super().forward(x) * self._scale * self.held["scale"] * self.tensor * self.tensors[0]

    class Change(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == step:  # of 4 in each epoch
                hidden = pl_module.net[0]
                if kind == "private":
                    hidden._scale = 3.0
                elif kind == "tensor":
                    hidden.tensor = torch.tensor(3.0)
                elif kind == "tensor in place":
                    hidden.tensor.fill_(3.0)
                elif kind == "tensor in a list":
                    hidden.tensors[0].fill_(3.0)
                else:
                    hidden.held["scale"] = 3.0

    def module():
        torch.manual_seed(0)
        found = ToyModule()
        found.net = nn.Sequential(Hidden(), nn.Flatten(), nn.Linear(4, 2))
        return found

    _, losses = fit(transfer(), Change(), module=module())
    _, expected = fit(transfer(cache_features=False), Change(), module=module())
    assert losses == pytest.approx(expected, rel=1e-5)


def test_a_model_that_is_called_with_and_without_autocast_keeps_both():
    class Both(Counted):
        def training_step(self, batch, batch_idx):
            with torch.autocast("cpu", torch.bfloat16):
                low = self(batch[0]).float()
            return cross_entropy(low, batch[1]) + cross_entropy(self(batch[0]), batch[1])

    def module():
        torch.manual_seed(0)
        return Both()

    fitted, _ = fit(transfer(), module=module())
    plain, _ = fit(transfer(cache_features=False), module=module())
    assert difference(fitted.state_dict(), plain.state_dict()) < 1e-6
    assert fitted.of_epoch(3) <= 4 < plain.of_epoch(3)


def test_a_sample_with_a_nan_is_no_augmentation():
    data = toy_data()
    data.tensors[0][0] = float("nan")
    with pytest.raises(RuntimeError, match="stop"):
        toy_trainer(transfer(), Stop(), num_sanity_val_steps=0).fit(ToyModule(), DataLoader(data, 8), toy_loaders()[1])


class Stop(L.Callback):
    def on_train_batch_start(self, *_):
        raise RuntimeError("stop")


def test_a_frozen_part_that_changes_in_each_epoch_is_refused():
    class Change(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            pl_module.net[0].weight.data.mul_(1.1)

    trainer = toy_trainer(transfer(), Change(), max_epochs=5)
    with pytest.raises(RuntimeError, match="where the frozen part changes"):
        trainer.fit(ToyModule(), *toy_loaders())
    assert trainer.current_epoch == 2


def test_an_input_that_needs_a_gradient_passes_through():
    class Adversarial(Counted):
        def training_step(self, batch, batch_idx):
            x = batch[0].requires_grad_()
            loss = cross_entropy(self(x), batch[1])
            (self.gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
            return loss

    module = Adversarial()
    toy_trainer(transfer(), max_epochs=1).fit(module, *toy_loaders())
    assert module.gradient.abs().sum() > 0


class Augmented(Dataset):
    def __init__(self, draw):
        self.data, self.draw = toy_data(), draw

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        return x + self.draw(), y


def test_augmentation_is_refused_before_training_or_after_two_epochs():
    class MovesBatches(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            batch[0] += torch.rand(())

    module = Counted()
    augmented = DataLoader(Augmented(lambda: torch.randn(())), 8)
    torch.manual_seed(5)
    with pytest.raises(ValueError, match="whose first sample is not the same twice: augmentation"):
        toy_trainer(transfer(), num_sanity_val_steps=0).fit(module, augmented, toy_loaders()[1])
    assert not module.seen
    trainer = toy_trainer(MovesBatches(), transfer(), max_epochs=4)
    with pytest.raises(RuntimeError, match="got 0 images of 32 in the last epoch that had been seen before"):
        trainer.fit(module, *toy_loaders())
    assert trainer.current_epoch == 1
    assert all(p.requires_grad for p in module.parameters())
    assert "forward" not in vars(module.net)


def test_looking_at_the_data_twice_draws_no_random_number():
    states = []

    class State(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            states.append(torch.random.get_rng_state())

    for cached in (True, False):
        torch.manual_seed(0)
        data = Augmented(lambda: torch.rand(()) * 0)
        toy_trainer(transfer(cache_features=cached), State(), max_epochs=1).fit(
            ToyModule(), DataLoader(data, 8), toy_loaders()[1]
        )
    assert torch.equal(*states)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.front, self.head = nn.Sequential(nn.Conv2d(1, 4, 4), nn.Flatten()), nn.Linear(4, 2)

    def forward(self, x=None, other=None, *, scale=1.0, **more):
        return self.head(self.front(other if x is None else x)) * scale


class Bare(Scaled):
    def __init__(self):
        super().__init__()
        self.bare = nn.Sequential(nn.ReLU())

    def forward(self, x):
        return self.bare(super().forward(x))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 1, 1), Scaled()

    def forward(self, x):
        return self.body(self.stem(x))


def test_arguments_that_are_their_defaults_and_hooks_where_they_are_called_are_no_obstacle():
    class Calls(Counted):
        def __init__(self):
            super().__init__()
            self.net, self.hooked = Scaled(), 0
            self.net.front[0].register_forward_pre_hook(self.count)
            for each in (self.net, self.net.head):
                each.register_forward_hook(self.add)

        def add(self, *_):
            self.hooked += self.training

        def forward(self, x):
            return self.net(x=x, other=None, scale=1.0)

    module = Calls()
    toy_trainer(transfer(), max_epochs=3).fit(module, *toy_loaders())
    assert module.of_epoch(2) <= 2
    assert 24 <= module.hooked <= 28  # of the trial too


def test_a_wholly_frozen_part_knows_the_images_of_training_from_others(caplog):
    class Apart(Counted):
        noise = 0.0

        def forward(self, x):
            noise = self.noise * torch.randn_like(x) if self.trainer.training else 0
            return self.parts[1](self.parts[0](x + noise))

        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([self.net[:4], self.net[5]])
            self.net = nn.Identity()

    with caplog.at_level(logging.INFO):
        toy_trainer(transfer(), max_epochs=3).fit(module := Apart(), *toy_loaders())
    assert module.of_epoch(2) <= 2
    assert "in training: 16 float32, 0.0625 KiB x 32 images" in caplog.text
    assert "in evaluation: 16 float32, 0.0625 KiB x 32 images" in caplog.text
    module = Apart()
    module.noise = 1.0
    with pytest.raises(RuntimeError, match="got 0 images of 32 in the last epoch that had been seen before"):
        toy_trainer(transfer(), max_epochs=3).fit(module, *toy_loaders())
    with pytest.raises(ValueError, match=r"`cache_limit` must leave room .*phase 1 needs"):
        toy_trainer(transfer(cache_limit=3e-6), num_sanity_val_steps=0).fit(Apart(), *toy_loaders())


def test_batch_norm_is_estimated_anew_as_without_a_cache():
    phases = [{"train": "head"}, {"train": ["head", "net.1"], "start": 2}]
    one, _ = fit(transfer(phases), ReestimateBatchNorm())
    two, _ = fit(transfer(phases, cache_features=False), ReestimateBatchNorm())
    assert difference(one.state_dict(), two.state_dict()) < 1e-6


def test_what_cannot_be_kept_is_refused_with_the_reason():
    class Early(ToyModule):
        def __init__(self):
            super().__init__()
            self.net = EarlyDropout()

    class EarlyDropout(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.conv(F.dropout(x, 0.5, self.training)).flatten(1))

    class Several(ToyModule):
        def __init__(self, **given):
            super().__init__()
            self.net, self.given = Scaled(), given

        def forward(self, x):
            return self.net(**{name: x if value == "x" else value for name, value in self.given.items()})

    class Branching(Scaled):
        def forward(self, x):
            return super().forward(x) if x.sum() > -1e9 else x

    class Hooked(ToyModule):
        def __init__(self, kind, part, register=nn.Module.register_forward_hook):
            super().__init__()
            self.net = kind()
            register(self.net.get_submodule(part), lambda *_: None)

    class Apart(ToyModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(self.net, nn.Identity())

        def forward(self, x):
            return self.net[0][5](self.net[0][:5](x))

    branching = Several(x="x")
    branching.net = Branching()
    for module, error, said in (
        (
            Early(),
            ValueError,
            "the front of net can't be kept, as in phase 1: `dropout` is random in training, and nothing frozen",
        ),
        (Several(x="x", scale=2.0), TypeError, r"net is not called with one tensor of images, got .* \(x, scale\)"),
        (Several(x=None, other="x"), TypeError, r"net is not called with one tensor of images, got .* \(x, other\)"),
        (Several(other="x"), TypeError, r"net is not called with one tensor of images, got a call with \(other\)"),
        (Hooked(Scaled, "front.0"), ValueError, r"phase 1: `front.0` \(Conv2d\) has a forward hook, which would not"),
        (Hooked(Mixed, "body"), ValueError, r"phase 1: `body` \(Scaled\) has a forward hook, which would not see"),
        (
            Hooked(Mixed, "body", nn.Module.register_forward_pre_hook),
            ValueError,
            r"phase 1: `body` \(Scaled\) has a forward pre-hook, which would not see",
        ),
        (Hooked(Bare, "bare"), ValueError, r"phase 1: `bare` \(Sequential\) has a forward hook, which would not see"),
        (branching, ValueError, "need not be traced: let `training_step` call it and the rest"),
        (Apart(), RuntimeError, "which is none of net.0. Call one of them as a module"),
    ):
        trainer = toy_trainer(transfer(), num_sanity_val_steps=0)
        with pytest.raises(error, match=said):
            trainer.fit(module, *toy_loaders())
        assert trainer.global_step <= 1
    for whole in (True, False):
        module = ToyModule()
        if not whole:
            module.net.compile(backend="eager")
        with pytest.raises(ValueError, match="`cache_features` must be False for a compiled module, got ToyModule"):
            toy_trainer(transfer()).fit(torch.compile(module, backend="eager") if whole else module, *toy_loaders())


def test_the_limit_is_known_before_the_first_step_for_all_phases():
    later = [{"train": "all"}, {"train": "head", "start": 2}]
    for phases, limit, said in ((later, 3e-6, "phase 2 needs"), ("small_data", 1e-9, "phase 1 needs")):
        module = Counted()
        trainer = toy_trainer(transfer(phases, cache_limit=limit), max_epochs=4)
        with pytest.raises(ValueError, match=f"`cache_limit` must leave room .*{said}"):
            trainer.fit(module, *toy_loaders())
        assert trainer.global_step == 0
        assert all(p.requires_grad for p in module.parameters())

    class Unsized(Dataset):
        def __getitem__(self, index):
            return toy_data()[index]

    loader = DataLoader(Unsized(), batch_sampler=[list(range(n, n + 8)) for n in range(0, 32, 8)])
    with pytest.raises(ValueError, match="GiB, and 32 images"):
        toy_trainer(transfer(cache_limit=2.5e-6), max_epochs=4).fit(Counted(), loader, toy_loaders()[1])
    module = Counted()
    toy_trainer(transfer(), max_epochs=2).fit(module, loader, toy_loaders()[1])
    assert module.of_epoch(1) <= 2


@pytest.mark.parametrize("options", [{"cache_features": "tape"}, {"cache_limit": 0}])
def test_arguments(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must"):
        TransferLearning(**options)


def test_a_subset_of_the_images_in_each_epoch_is_refused_and_the_same_again_is_not():
    data, val = toy_data(400), toy_loaders()[1]
    with pytest.raises(RuntimeError, match="another subset in each epoch"):
        toy_trainer(transfer(), max_epochs=4, limit_train_batches=1).fit(
            Counted(), DataLoader(data, 8, shuffle=True), val
        )
    module = Counted()
    again = torch.utils.data.RandomSampler(data, replacement=True)
    toy_trainer(transfer(), max_epochs=4).fit(module, DataLoader(data, 8, sampler=again), val)
    assert module.of_epoch(3) < 60
