import copy
import errno
import logging
import os

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from lightning_trainingkit import ChannelsLast, EpochSeed, ReestimateBatchNorm, TransferLearning
from tests.toy import ToyModule, difference, toy_data, toy_loaders, toy_trainer

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # resumed on purpose


def transfer(phases="small_data", cache_features=True, **options):
    return TransferLearning(phases, cache_features=cache_features, verbose=False, **options)


class Split(ToyModule):
    """The same net as features and a classifier with dropout, as torchvision's models are."""

    def __init__(self, **options):
        super().__init__(**options)
        self.net = nn.Sequential(self.net[:4], self.net[4:])


class Counted(Split):
    """Counts the images that pass through its first layer, in training and in evaluation."""

    def __init__(self, **options):
        torch.manual_seed(0)
        super().__init__(**options)
        self.seen = []
        self.net[0][0].register_forward_pre_hook(self.count)

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
    assert "caches net before `1` in phase 1, training: 32 images x 0.0625 KiB" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "forward" not in vars(cached.net)


def test_phases_that_train_more_than_the_head_are_not_cached_and_the_schedule_says_so(capsys, caplog):
    phases = [{"train": "head"}, {"train": "last 2", "start": 2}, {"train": "all", "start": 4}]
    with caplog.at_level(logging.INFO):
        module, losses = fit(TransferLearning(phases, cache_features=True), max_epochs=6)
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.strip().startswith(("1 ", "2 ", "3 "))]
    assert [line.rstrip().endswith("not cached") for line in rows] == [False, True, True]
    assert rows[0].rstrip().endswith("if possible")
    assert "does not cache phase 2 (net: its trainable parameters lie in several submodules" in caplog.text
    _, expected = fit(transfer(phases, cache_features=False), max_epochs=6)
    assert losses == pytest.approx(expected, rel=1e-4)
    counts = [module.of_epoch(epoch) for epoch in range(6)]
    assert 32 <= counts[0] <= 32 + 24  # some to find the boundary
    assert counts[1] <= 2
    assert counts[2:] == [32, 32, 32, 32]


def test_a_run_resumed_in_a_phase_that_is_not_cached_is_not_refused(tmp_path):
    phases = [{"train": "head"}, {"train": "all", "start": 1}]
    save = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", save_on_train_epoch_end=False)
    unbroken, resumed = Counted(), Counted()
    toy_trainer(transfer(phases), save, EpochSeed(0), max_epochs=3).fit(unbroken, *toy_loaders())
    again = toy_trainer(transfer(phases), save, EpochSeed(0), max_epochs=3)
    again.fit(resumed, *toy_loaders(), ckpt_path=tmp_path / "epoch=1.ckpt")
    assert difference(unbroken.state_dict(), resumed.state_dict()) == 0


def test_a_later_phase_of_the_head_alone_is_cached():
    phases = [{"train": "all"}, {"train": "head", "start": 2}]
    module, losses = fit(transfer(phases))
    _, expected = fit(transfer(phases, cache_features=False))
    assert losses == pytest.approx(expected, rel=1e-4)
    assert module.of_epoch(3) <= 2 < 32 <= module.of_epoch(2)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_epochs_that_were_begun_before_say_nothing_of_use(tmp_path):
    phases = [{"train": "all"}, {"train": "head", "start": 0.2}]
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


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 4, 3), Scale(4), nn.Linear(16, 2)
        self.epoch, self.later = 0, False

    def forward(self, x):
        x = self.norm(self.conv(x).relu())
        if self.epoch >= 2:
            x = x * 0.5
        x = self.last(x.flatten(1))
        return x * 2 if self.later else x


class Scale(nn.BatchNorm2d):
    factor = 1.0

    def forward(self, x):
        return super().forward(x) * self.factor


class Netted(ToyModule):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__()
        self.net = Net()


CHANGES = {
    "weights": lambda net: net.conv.weight.data.mul_(2),
    "buffer": lambda net: net.norm.running_mean.add_(1),
    "attribute that the forward reads": lambda net: setattr(net, "epoch", 2),
    "attribute after the head": lambda net: setattr(net, "later", True),
    "attribute of a layer": lambda net: setattr(net.norm, "factor", 3.0),
    "frozen weights that train": lambda net: net.conv.requires_grad_(True),
    "hook": lambda net: net.conv.register_forward_hook(lambda *_: None),
}


@pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_validation_start"])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_frozen_part_that_changes_is_an_error_at_the_next_epoch_or_validation(kind, hook):
    class Change(L.Callback):
        pass

    def change(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            CHANGES[kind](pl_module.net)

    setattr(Change, hook, change)
    trainer = toy_trainer(Change(), transfer(), max_epochs=5)
    module = Netted()
    with pytest.raises(RuntimeError, match=r"must be False where the frozen part changes .*, got Net: "):
        trainer.fit(module, *toy_loaders())
    assert trainer.current_epoch == 2
    assert trainer.global_step == (8 if hook == "on_train_epoch_start" else 12)
    assert "forward" not in vars(module.net)


@pytest.mark.parametrize("kind", ["mode", "averaged", "toggles"])
def test_training_and_validation_are_those_without_a_cache(kind):
    class Module(Netted):
        def training_step(self, batch, batch_idx):
            if kind == "toggles":
                self.net.norm.requires_grad_(False)
                with torch.no_grad():
                    self(batch[0])
                self.net.norm.requires_grad_(self.current_epoch >= 1)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            if kind == "mode":
                self.net.norm.momentum = 0.0
                self.net.norm.train(self.current_epoch % 2 == 1)
            super().validation_step(batch, batch_idx)
            self.net.norm.eval()

    class Note(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            seen[-1].append(float(trainer.callback_metrics["val/loss"]))

    later = [{"train": "head"}, {"train": ["head", "net.norm"], "start": 1}]
    seen, modules = [], []
    for cached in (True, False):
        seen.append([])
        L.seed_everything(0, verbose=False)
        module = Module()
        average = [EMAWeightAveraging(decay=0.7)] if kind == "averaged" else []
        callback = transfer(later if kind == "toggles" else "small_data", cache_features=cached)
        toy_trainer(Note(), callback, *average, max_epochs=5, num_sanity_val_steps=0).fit(module, *toy_loaders())
        modules.append(module)
    assert seen[0] == pytest.approx(seen[1], rel=1e-4)
    assert difference(modules[0].state_dict(), modules[1].state_dict()) < 1e-4


def test_copies_of_the_module_have_a_forward_of_their_own(tmp_path):
    class Copies(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            torch.save(pl_module.net, tmp_path / "net.pt")
            for one in (copy.deepcopy(pl_module.net), torch.load(tmp_path / "net.pt", weights_only=False)):
                with torch.no_grad():
                    one[1][1].bias.fill_(7.0)
                    one[1][1].weight.zero_()
                assert one(torch.rand(2, 1, 4, 4)).tolist() == [[7.0, 7.0]] * 2
            self.copy = one

    copies = Copies()
    toy_trainer(transfer(), copies, max_epochs=2).fit(Split(), *toy_loaders())
    assert copies.copy.eval()(torch.rand(1, 1, 4, 4)).tolist() == [[7.0, 7.0]]


def test_images_of_several_sizes():
    class Sizes(ToyModule):
        def __init__(self):
            torch.manual_seed(0)
            super().__init__()
            pool = nn.AdaptiveAvgPool2d(1) if self.pooled else nn.Identity()
            head = nn.Sequential(nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.net = nn.Sequential(nn.Conv2d(1, 4, 3), pool, head)

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
    with pytest.raises(RuntimeError, match=r"images have several sizes, got Sequential: features of several shapes"):
        toy_trainer(transfer(), max_epochs=3).fit(Sizes(), *loaders)


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
    module = Counted()
    toy_trainer(transfer(), num_sanity_val_steps=0, max_epochs=3).fit(module, DataLoader(data, 8), toy_loaders()[1])
    assert module.of_epoch(2) <= 2


def test_several_backward_passes_in_one_step():
    class Several(Counted):
        def __init__(self):
            super().__init__()
            self.automatic_optimization, self.scale = False, nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            for loss in (
                lambda: self.scale(batch[0][:, 0, 0, :1]).mean(),
                lambda: cross_entropy(self(batch[0]), batch[1]),
            ):
                optimizer.zero_grad()
                self.manual_backward(loss())
                optimizer.step()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Several()
    toy_trainer(transfer([{"train": ["net.1", "scale"]}]), max_epochs=3).fit(module, *toy_loaders())
    assert module.of_epoch(2) <= 2


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
            Split(), DataLoader(data, 8), toy_loaders()[1]
        )
    assert torch.equal(*states)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.front, self.head = nn.Sequential(nn.Conv2d(1, 4, 4), nn.Flatten()), nn.Linear(4, 2)

    def forward(self, x=None, other=None):
        return self.head(self.front(other if x is None else x))


def test_hooks_of_what_is_called_are_no_obstacle():
    class Calls(Counted):
        def __init__(self):
            super().__init__()
            self.net, self.hooked = Pair(), 0
            self.net.front[0].register_forward_pre_hook(self.count)
            for each in (self.net, self.net.head):
                each.register_forward_hook(self.add)

        def add(self, *_):
            self.hooked += self.training

    module = Calls()
    toy_trainer(transfer(), max_epochs=3).fit(module, *toy_loaders())
    assert module.of_epoch(2) <= 2
    assert 24 <= module.hooked <= 28  # of the trial and the comparisons too


def test_a_wholly_frozen_part_knows_the_images_of_training_from_others(caplog):
    class Apart(Counted):
        noise = 0.0

        def forward(self, x):
            noise = self.noise * torch.randn_like(x) if self.trainer.training else 0
            return self.parts[1](self.parts[0](x + noise))

        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([self.net[0], self.net[1][1]])
            self.net = nn.Identity()

    with caplog.at_level(logging.INFO):
        toy_trainer(transfer(), max_epochs=3).fit(module := Apart(), *toy_loaders())
    assert module.of_epoch(2) <= 2
    for kind in ("training", "evaluation"):
        assert f"caches parts.0 before its end in phase 1, {kind}: 32 images x 0.0625 KiB" in caplog.text
    module = Apart()
    module.noise = 1.0
    with pytest.raises(RuntimeError, match="got 0 images of 32 in the last epoch that had been seen before"):
        toy_trainer(transfer(), max_epochs=3).fit(module, *toy_loaders())
    with pytest.raises(ValueError, match=r"`cache_limit` must leave room .*phase 1 needs"):
        toy_trainer(transfer(cache_limit=3e-6), num_sanity_val_steps=0).fit(Apart(), *toy_loaders())


def test_batch_norm_is_estimated_anew_as_without_a_cache():
    phases = [{"train": "head"}, {"train": "all", "start": 2}]
    one, _ = fit(transfer(phases), ReestimateBatchNorm())
    two, _ = fit(transfer(phases, cache_features=False), ReestimateBatchNorm())
    assert difference(one.state_dict(), two.state_dict()) < 1e-6


def test_what_cannot_be_kept_is_refused_with_the_reason():
    class Early(Pair):
        def forward(self, x):
            return self.head(F.dropout(self.front(x), 0.5, self.training))

    class Late(Pair):
        def forward(self, x):
            return super().forward(x).log_softmax(1)

    def of(net, **given):
        module = ToyModule()
        module.net = net
        module.forward = lambda x: net(**dict.fromkeys(given, x)) if given else net(x)
        return module

    hooked = Pair()
    hooked.front[0].register_forward_hook(lambda *_: None)

    class Apart(ToyModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(self.net, nn.Identity())

        def forward(self, x):
            return self.net[0][5](self.net[0][:5](x))

    for module, said in (
        (of(Early()), r"phase 1 \(net: random numbers are drawn before `head`, as by dropout\)"),
        (of(Late()), r"phase 1 \(net: the forward of Late goes on after `head`\)"),
        (of(Pair(), other="x"), r"phase 1 \(net: it is not called with one tensor of images\)"),
        (of(Pair(), x="x", other="x"), r"phase 1 \(net: it is not called with one tensor of images\)"),
        (of(hooked), r"`front.0` \(Conv2d\) has a hook, which would not see every image"),
        (ToyModule(), r"phase 1 \(net: random numbers are drawn before `5`, as by dropout\)"),
        (Apart(), "got a training step that calls none of net.0 as a module"),
    ):
        trainer = toy_trainer(transfer(), num_sanity_val_steps=0)
        with pytest.raises(ValueError, match=rf"`cache_features` must be False where no phase can be cached, .*{said}"):
            trainer.fit(module, *toy_loaders())
        assert trainer.global_step == 0
        assert all(p.requires_grad for p in module.parameters())
    with pytest.raises(ValueError, match=r"phase 1 \(net: its trainable parameters lie in several"):
        toy_trainer(transfer([{"train": "last 2"}])).fit(Split(), *toy_loaders())
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
    with pytest.raises(ValueError, match=r"got 2.5e-06 GiB, and images so far need"):
        toy_trainer(transfer(cache_limit=2.5e-6), max_epochs=4).fit(Counted(), loader, toy_loaders()[1])
    module = Counted()
    toy_trainer(transfer(), max_epochs=2).fit(module, loader, toy_loaders()[1])
    assert module.of_epoch(1) <= 2


def test_room_on_the_disk_is_reserved_before_the_first_step_for_all_phases(tmp_path, monkeypatch):
    allocate = os.posix_fallocate

    def small(file, start, size):
        if start + size > 2**21:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(file, start, size)

    monkeypatch.setattr(os, "posix_fallocate", small)
    later = [{"train": "all"}, {"train": "head", "start": 2}]
    for phases in (later, "small_data"):
        module = Counted()
        trainer = toy_trainer(transfer(phases, "disk"), max_epochs=4, default_root_dir=tmp_path, limit_val_batches=0)
        with pytest.raises(ValueError, match=rf"`cache_features='disk'` must have room .*{tmp_path}, got .* GiB"):
            trainer.fit(module, DataLoader(toy_data(32), 8), toy_loaders()[1])
        assert trainer.global_step == 0
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"cache_features": "tape"}, {"cache_limit": 0}])
def test_arguments(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must"):
        TransferLearning(**options)


def test_a_subset_of_the_images_in_each_epoch_is_refused_and_the_same_again_is_not():
    data, val = toy_data(400), toy_loaders()[1]
    with pytest.raises(RuntimeError, match="a different subset in each epoch"):
        toy_trainer(transfer(), max_epochs=4, limit_train_batches=1).fit(
            Counted(), DataLoader(data, 8, shuffle=True), val
        )
    module = Counted()
    again = torch.utils.data.RandomSampler(data, replacement=True)
    toy_trainer(transfer(), max_epochs=4).fit(module, DataLoader(data, 8, sampler=again), val)
    assert module.of_epoch(3) < 60


@pytest.mark.parametrize("called", ["whole", "parts"])
def test_a_backbone_that_its_user_has_frozen_is_cached(called):
    class Frozen(Counted):
        def __init__(self, **options):
            super().__init__(**options)
            self.net[0].requires_grad_(False)
            if called == "parts":
                self.backbone, self.head = self.net
                self.net = None

        def forward(self, x):
            return self.net(x) if called == "whole" else self.head(self.backbone(x))

    cached, losses = fit(transfer([{"train": "all"}]), module=Frozen())
    plain, expected = fit(transfer([{"train": "all"}], cache_features=False), module=Frozen())
    assert losses == pytest.approx(expected, rel=1e-5)
    assert difference(cached.state_dict(), plain.state_dict()) < 1e-6
    assert cached.of_epoch(2) < plain.of_epoch(2) / 4


class OpenedOnce(Dataset):
    """Opens its file at the first read, as data sets of zip, HDF5 and LMDB files do."""

    def __init__(self):
        self.data, self.opened_by = toy_data(), None

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        self.opened_by = self.opened_by or os.getpid()
        assert self.opened_by == os.getpid(), "a file that another process has opened"
        return self.data[index]


def test_a_data_set_is_looked_at_where_its_loader_reads_it():
    loader = DataLoader(OpenedOnce(), 8, num_workers=1)
    toy_trainer(transfer(), max_epochs=1).fit(Counted(), loader, toy_loaders()[1])
    assert loader.dataset.opened_by is None


def test_a_flip_alone_is_augmentation():
    class Flipped(Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, index):
            x, y = toy_data()[index]
            return (x.flip(-1) if torch.rand(()) < 0.5 else x), y

    for seed in range(3):
        L.seed_everything(seed, verbose=False)
        with pytest.raises(ValueError, match="first sample is not the same"):
            toy_trainer(transfer(), max_epochs=1).fit(Counted(), DataLoader(Flipped(), 8), toy_loaders()[1])
