"""What all callbacks share that change training batches, shown by Cutout."""

import copy
import pickle
from collections import namedtuple
from contextlib import nullcontext, suppress

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import Cutout, EpochSeed, HealthReport
from lightning_trainingkit.callbacks.noise.training_batch import BatchCallback
from lightning_trainingkit.tuning.spied_step import spy_on
from tests.toy import ToyModule, difference, toy_trainer

Pair = namedtuple("Pair", ["image", "label"])


class Spy(ToyModule):
    """Keeps the batches of each step."""

    def __init__(self):
        super().__init__()
        self.seen = {"train": [], "val": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch)
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch)

    def loss(self, batch):
        x, y = (batch["image"], batch["label"]) if isinstance(batch, dict) else batch
        return cross_entropy(self(x), y)


def loader(collate=None, batches=4, shuffle=False):
    data = TensorDataset(torch.ones(4 * batches, 1, 4, 4), torch.arange(4 * batches) % 2)
    return DataLoader(data, 4, collate_fn=collate, shuffle=shuffle)


def collate(kind):
    def stack(items):
        images, labels = torch.stack([item[0] for item in items]), torch.stack([item[1] for item in items])
        return {"list": [images, labels], "tuple": (images, labels), "named": Pair(images, labels)}.get(
            kind, {"image": images, "label": labels, "path": ["a.png"] * len(items)}
        )

    return stack


def fit(module, *callbacks, data=None, **options):
    L.seed_everything(0, verbose=False)
    data = data or loader()
    toy_trainer(*callbacks, **options).fit(module, data, data)
    return module


def holes(batches):
    """Where the images of batches are cut out."""
    return torch.cat([(batch["image"] if isinstance(batch, dict) else batch[0])[:, 0] == 0 for batch in batches])


class Add(BatchCallback):
    """Adds a number, or multiplies by it: the order shows."""

    order = 0

    def change(self, batch, generator):
        return batch.replaced(batch.images + 2)


class Double(Add):
    order = 2

    def change(self, batch, generator):
        return batch.replaced(batch.images * 2)


class Keep(L.Callback):
    def __init__(self):
        self.batches = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(batch)


@pytest.mark.parametrize("kind", ["list", "tuple", "named", "dict"])
def test_training_alone_sees_the_noise_and_other_hooks_see_the_users_batch(kind):
    keep = Keep()
    module = fit(Spy(), Cutout(2), keep, data=loader(collate(kind)))
    expected = {"list": list, "tuple": tuple, "named": Pair, "dict": dict}[kind]
    assert all(type(batch) is expected for batch in module.seen["train"])
    assert holes(module.seen["train"]).flatten(1).any(1).all()
    assert not holes(module.seen["val"]).any()
    assert not holes(keep.batches).any()


def test_the_order_in_the_list_does_not_matter():
    for callbacks in ([Add(), Double()], [Double(), Add()]):
        module = fit(Spy(), *callbacks, max_epochs=1)
        assert (module.seen["train"][0][0] == 6).all()


def test_a_validation_step_that_calls_the_training_step_sees_no_noise():
    class Shared(Spy):
        def validation_step(self, batch, batch_idx):
            self.training_step(batch, batch_idx)
            self.seen["val"].append(self.seen["train"].pop())

    module = fit(Shared(), Cutout(2))
    assert len(module.seen["val"]) == 2 + 8  # with the sanity check
    assert not holes(module.seen["val"]).any()
    assert holes(module.seen["train"]).any()


def test_a_step_without_an_index():
    class Short(ToyModule):
        def training_step(self, batch):
            assert (batch[0] == 0).any()
            return super().training_step(batch, 0)

    fit(Short(), Cutout(2), max_epochs=1)


@pytest.mark.parametrize("fails", [False, True])
def test_the_training_step_is_put_back(fails):
    class Failing(Spy):
        def training_step(self, batch, batch_idx):
            if fails:
                raise ArithmeticError
            return super().training_step(batch, batch_idx)

    module = Failing()
    callbacks = [Cutout(2), Add()]
    with pytest.raises(ArithmeticError) if fails else nullcontext():
        fit(module, *callbacks, max_epochs=1)
    assert "training_step" not in vars(module)
    own = module.training_step = lambda batch, batch_idx: Failing.training_step(module, batch, batch_idx)
    with pytest.raises(ArithmeticError) if fails else nullcontext():
        fit(module, *callbacks, max_epochs=1)
    assert module.training_step is own


@pytest.mark.parametrize("first", [False, True])
def test_beside_another_wrapper_of_the_step(first):
    class Wrap(L.Callback):
        def setup(self, trainer, pl_module, stage):
            self.losses = []
            spy_on(pl_module, lambda loss, calls, batch: self.losses.append(batch[0]))

    wrap, module = Wrap(), Spy()
    fit(module, *([wrap, Cutout(2)] if first else [Cutout(2), wrap]), max_epochs=1)
    assert holes(module.seen["train"]).any()
    assert (wrap.losses[0] == 0).any() == first  # the first wrapper stands behind the patch
    module.training_step([torch.ones(4, 1, 4, 4), torch.zeros(4).long()], 0)
    assert not holes(module.seen["train"][-1:]).any()


def test_copies_of_the_module_in_the_fit_run_their_own_step():
    class Copy(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            for copied in (copy.deepcopy(pl_module), pickle.loads(pickle.dumps(pl_module))):
                copied.training_step(batch, batch_idx)
                assert not holes(copied.seen["train"][-1:]).any()
                assert len(copied.seen["train"]) == len(pl_module.seen["train"]) + 1

    fit(Spy(), Cutout(2), Copy(), max_epochs=1, limit_train_batches=2)


def test_beside_health_report_and_a_learning_rate_finder(tmp_path):
    finder = LearningRateFinder(num_training_steps=3, early_stop_threshold=None)
    module = fit(Spy(), Cutout(2), HealthReport(verbose=False), finder, max_epochs=1, default_root_dir=tmp_path)
    assert holes(module.seen["train"]).flatten(1).any(1).all()


def test_a_module_compiled_as_a_whole_sees_the_noise():
    module = Spy()
    fit(torch.compile(module, backend="eager"), Cutout(2), max_epochs=1, limit_train_batches=1)
    assert holes(module.seen["train"]).any()


@pytest.mark.parametrize(
    ("limits", "off"),
    [({"max_epochs": 2}, 6), ({"max_epochs": 2, "max_steps": 4}, 3), ({"max_steps": 8, "max_epochs": -1}, 6)],
)
def test_it_is_off_for_the_last_part(limits, off):
    module = fit(Spy(), Cutout(2, until=0.75), **limits)
    changed = [bool(holes([batch]).any()) for batch in module.seen["train"]]
    assert changed == [True] * off + [False] * (len(changed) - off)


def test_a_length_that_nobody_knows():
    with pytest.raises(ValueError, match=r"`until` must be 1 where the training has no known length, got 0\.9"):
        fit(Spy(), Cutout(2, until=0.9), max_epochs=-1, max_time="00:00:01:00")


def test_the_same_seed_draws_the_same_and_no_other_generator_is_touched():
    def draws(callback, seed):
        module = Spy()
        torch.manual_seed(seed)
        toy_trainer(callback, max_epochs=1).fit(module, loader(), loader())
        return holes(module.seen["train"]), torch.get_rng_state(), module.state_dict()

    given, _, _ = draws(Cutout(2, seed=3), 0)
    again, _, _ = draws(Cutout(2, seed=3), 1)
    assert torch.equal(given, again)
    first, state, _ = draws(Cutout(2), 0)
    second, _, _ = draws(Cutout(2), 0)
    other, _, _ = draws(Cutout(2), 1)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:4], first[4:8])  # each batch draws for itself
    module = Spy()
    torch.manual_seed(0)
    toy_trainer(max_epochs=1).fit(module, loader(), loader())
    assert torch.equal(state, torch.get_rng_state())


def test_a_second_fit_takes_the_seed_of_its_own_start():
    callback, draws = Cutout(2), []
    for seed in (0, 1):
        module = Spy()
        torch.manual_seed(seed)
        toy_trainer(callback, max_epochs=1).fit(module, loader(), loader())
        draws.append(holes(module.seen["train"]))
    assert not torch.equal(*draws)


class Places(DataLoader):
    """A loader that can be resumed in mid-epoch, as torchdata's can."""

    begin = place = 0

    def __iter__(self):
        self.generator.manual_seed(0)  # batches in the same random order in each epoch
        batches, begin = list(super().__iter__()), self.begin
        self.begin = 0
        for self.place, batch in enumerate(batches[begin:], begin + 1):
            yield batch

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.begin = state["place"] % len(self)


class Plain(Spy):
    """Without dropout, whose random numbers a checkpoint in mid-epoch does not hold."""

    def __init__(self):
        super().__init__()
        self.net[4].p = 0.0


class Kill(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise SystemExit


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("killed", [3, 5, 7])
def test_killed_in_mid_epoch_and_resumed_from_the_last_validation(killed, tmp_path):
    """Epochs of 4 batches, validated after 2 and 4: the same batches and squares, the same weights."""

    def train(folder, seed, *callbacks, ckpt_path=None):
        torch.manual_seed(seed)
        data = torch.randn(16, 1, 4, 4, generator=torch.Generator().manual_seed(0)).abs() + 1
        batches = Places(TensorDataset(data, torch.arange(16) % 2), 4, shuffle=True, generator=torch.Generator())
        module = Plain()
        save = ModelCheckpoint(tmp_path / folder, save_top_k=-1, save_on_train_epoch_end=False)
        options = {"val_check_interval": 0.5, "num_sanity_val_steps": 0, "default_root_dir": tmp_path}
        trainer = toy_trainer(Cutout(2), save, *callbacks, **options)
        with suppress(SystemExit):
            trainer.fit(module, batches, DataLoader(batches.dataset, 16), ckpt_path=ckpt_path)
        return module, trainer

    unbroken, _ = train("unbroken", 0)
    _, broken = train("broken", 0, Kill(killed))
    resumed, _ = train("broken", 1, ckpt_path=broken.checkpoint_callback.best_model_path)
    rest = len(resumed.seen["train"])
    assert rest == 8 - (killed - 1)
    for ours, theirs in zip(resumed.seen["train"], unbroken.seen["train"][-rest:], strict=True):
        assert torch.equal(ours[0], theirs[0])
    assert difference(resumed.state_dict(), unbroken.state_dict()) == 0


def test_two_callbacks_that_blend():
    class Halve(Double):
        pass

    with pytest.raises(ValueError, match=r"Write Blend\(\[Double\(...\), Halve\(...\)\]\)"):
        fit(Spy(), Double(), Halve())


@pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor")
def test_a_step_that_takes_the_iterator():
    class Iterating(ToyModule):
        def training_step(self, dataloader_iter):
            return None

    with pytest.raises(
        TypeError, match="must take a batch beside callbacks that change batches, got `dataloader_iter`"
    ):
        fit(Iterating(), Cutout(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 0}, "`probability` must be above 0 and at most 1, got 0"),
        ({"probability": 1.5}, "`probability` must be"),
        ({"until": 0}, "`until` must be above 0 and at most 1, got 0"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Cutout(2, **options)


def test_beside_epoch_seed_the_draws_stay_the_seeds():
    one, two = (fit(Spy(), Cutout(2, seed=1), EpochSeed(seed), max_epochs=1) for seed in (1, 2))
    assert torch.equal(holes(one.seen["train"]), holes(two.seen["train"]))
