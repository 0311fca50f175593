import copy
import json
import logging
import re
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_trainingkit import EpochSeed, ImageClassifier, TransferLearning
from tests import process
from tests.callbacks.transfer.transfer_killed import KILLED, SCHEDULES, STEPS
from tests.toy import ScriptedModule, ToyModule, difference, toy_loaders, toy_trainer

THREE = [{"train": "head"}, {"train": ["head", "net.1"], "start": 1}, {"train": "all", "start": 2, "lr_scale": 0.1}]


def transfer(phases=THREE, **options):
    return TransferLearning(phases, **{"verbose": False, "lr_decay": 1.0} | options)


class Watched(ToyModule):
    """Notes at each step what is open, what is in training mode, and what moves."""

    def __init__(self, **options):
        torch.manual_seed(0)
        super().__init__(**options)
        self.steps = []

    def training_step(self, batch, batch_idx):
        self.steps.append(
            {
                "epoch": self.current_epoch,
                "step": self.trainer.global_step,
                "open": [name for name, p in self.named_parameters() if p.requires_grad],
                "grads": [name for name, p in self.named_parameters() if p.grad is not None],
                "training": [name for name, m in self.named_modules() if m.training],
                "weights": {name: value.clone() for name, value in self.state_dict().items()},
                "groups": [(len(g["params"]), g["lr"]) for g in self.trainer.optimizers[0].param_groups],
            }
        )
        return super().training_step(batch, batch_idx)


def moved(before, after):
    return {name for name, value in before["weights"].items() if not torch.equal(value, after["weights"][name])}


def test_each_phase_trains_what_it_names_and_nothing_else_moves():
    module = Watched(lr=0.1)
    module.configure_optimizers = lambda: torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    trainer = toy_trainer(transfer(), max_epochs=4)
    trainer.fit(module, *toy_loaders())
    head, norm, conv = ({f"net.{n}.{kind}" for kind in ("weight", "bias")} for n in (5, 1, 0))
    statistics = {f"net.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    wanted = {0: head, 1: head | norm, 2: head | norm | conv, 3: head | norm | conv}
    for one, next_one in pairwise(module.steps):
        epoch = one["epoch"]
        assert set(one["open"]) == wanted[epoch]
        assert moved(one, next_one) == wanted[epoch] | (statistics if epoch else set())
        assert set(one["grads"]) <= wanted[epoch]
    assert all(p.requires_grad for p in module.parameters())
    assert all(m.training for m in module.modules())


def test_what_is_closed_keeps_no_graph_and_no_state_of_the_optimizer():
    module = Watched()
    seen = []
    module.net[5].register_forward_pre_hook(lambda _, args: seen.append(args[0].requires_grad))
    trainer = toy_trainer(transfer("small_data"), max_epochs=2)
    trainer.fit(module, *toy_loaders())
    assert not any(seen)
    held = {id(p) for p in trainer.optimizers[0].state}
    assert held == {id(p) for p in module.net[5].parameters()}


@pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")  # the user's own
def test_what_is_closed_is_in_eval_mode_also_after_validations_and_whatever_the_module_says():
    class Stubborn(Watched):
        def on_train_epoch_start(self):
            self.train()

    module = Stubborn()
    toy_trainer(transfer("small_data"), max_epochs=3, val_check_interval=0.5).fit(module, *toy_loaders())
    for step in module.steps:
        # the dropout in front of the open head is the head's
        assert step["training"] == ["", "net", "net.2", "net.3", "net.4", "net.5"]
    module = Watched()
    module.net[4].eval()
    toy_trainer(transfer("small_data"), max_epochs=2).fit(module, *toy_loaders())
    assert all("net.4" not in step["training"] for step in module.steps)
    assert not module.net[4].training


def test_the_step_uses_the_factors_and_nothing_else_sees_them():
    module = Watched(lr=0.2)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.2)
    gradients = []

    class Gradients(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            gradients.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})
            assert [(len(g["params"]), g["lr"]) for g in optimizer.param_groups] == [(6, 0.2)]

    phases = [{"train": "head"}, {"train": "all", "start": 1, "lr_scale": 0.5}]
    callback = transfer(phases, lr_decay=0.25, warmup_steps=3)
    toy_trainer(callback, Gradients(), max_epochs=2).fit(module, *toy_loaders())
    for (one, next_one), grads in zip(pairwise(module.steps), gradients[:-1], strict=True):
        rise = min(1, (one["step"] - 4 + 1) / 4)
        low = 0.5 * 0.25 * rise
        factors = {"net.5": 0.5, "net.0": low, "net.1": low} if one["epoch"] else {"net.5": 1}
        assert {name[:5] for name in grads} == set(factors)
        for name, gradient in grads.items():
            step = next_one["weights"][name] - one["weights"][name]
            torch.testing.assert_close(step, -0.2 * factors[name[:5]] * gradient, rtol=1e-4, atol=1e-7)
        assert one["groups"] == [(6, 0.2)]


def test_a_dict_gives_factors_by_name_without_lr_decay_and_learning_rates_tells_them():
    told = []

    class Tell(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            told.append(callback.learning_rates)

    scale = {"all": 0.5, "net.0": 0.01, "*.bias": 1.0}
    callback = transfer([{"train": "all", "lr_scale": scale}], lr_decay=0.3)
    toy_trainer(callback, Tell(), max_epochs=1).fit(Watched(lr=0.2), *toy_loaders())
    weights = {"net.0.weight": 0.002, "net.1.weight": 0.1, "net.5.weight": 0.1}
    assert told[0] == pytest.approx(weights | {f"net.{n}.bias": 0.2 for n in (0, 1, 5)})
    assert callback.learning_rates == {}


def test_a_share_of_training_begins_within_an_epoch_between_two_steps():
    phases = [{"train": "head"}, {"train": "all", "start": 0.3}]
    module = Watched()
    toy_trainer(transfer(phases), max_epochs=1, accumulate_grad_batches=2).fit(module, *toy_loaders(batch_size=4))
    begun = [len(step["open"]) == 6 for step in module.steps]
    assert begun == [False] * 4 + [True] * 4  # 3 of 8 batches would be in the middle of a step
    module = Watched()
    toy_trainer(transfer(phases), max_epochs=-1, max_steps=10).fit(module, *toy_loaders())
    assert [len(step["open"]) == 6 for step in module.steps] == [False] * 3 + [True] * 7


def test_patience_begins_the_next_phase_from_the_best_weights(tmp_path):
    phases = [{"train": "head"}, {"train": ["head", "net.1"], "patience": 2}, {"train": "all", "start": 6}]
    values = [3.0, 2.0, 2.5, 2.2, 5.0, 5.0, 5.0, 5.0]
    for options, saving in (({}, []), ({"enable_checkpointing": True}, [ModelCheckpoint(monitor="val/loss")])):
        module = ScriptedModule(values)
        opened, at_start = [], []

        class Opened(L.Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx, opened=opened, at_start=at_start):
                if batch_idx == 0:
                    opened.append(sum(p.requires_grad for p in pl_module.parameters()))
                    at_start.append({k: v.clone() for k, v in pl_module.state_dict().items()})

        callback = transfer(phases, restore_best=True)
        folder = tmp_path / str(len(saving))
        trainer = toy_trainer(callback, *saving, Opened(), max_epochs=8, default_root_dir=folder, **options)
        trainer.fit(module, *toy_loaders())
        assert opened == [2, 2, 2, 2, 4, 4, 6, 6]
        assert difference(at_start[4], module.seen[1]) == 0  # of epoch 1, with 2.0
        assert difference(at_start[6], module.seen[1]) == 0  # nothing was better since
        assert difference(at_start[5], module.seen[4]) == 0  # else it just goes on
    assert len(list((tmp_path / "0" / "checkpoints").glob("TransferLearning-*.pt"))) == 1


def test_a_metric_of_training_is_followed_too():
    class Logs(ToyModule):
        def training_step(self, batch, batch_idx):
            self.log("loss", 1.0, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    phases = [{"train": "head"}, {"train": "all", "patience": 2}]
    callback = transfer(phases, monitor="loss")
    trainer = toy_trainer(callback, max_epochs=4, check_val_every_n_epoch=2)
    trainer.fit(Logs(), *toy_loaders())
    assert callback.phase == 1
    assert callback.state_dict()["began"] == [[1, 12]]  # the first is an improvement


def test_a_metric_that_validation_logs_every_other_epoch_is_judged_once():
    callback = transfer([{"train": "head"}, {"train": "all", "patience": 2}])
    trainer = toy_trainer(callback, max_epochs=7, check_val_every_n_epoch=2)
    trainer.fit(ScriptedModule([1.0]), *toy_loaders())
    assert callback.state_dict()["began"] == [[1, 24]]


def test_a_metric_that_nobody_logs_is_an_error_after_the_first_epoch():
    callback = transfer([{"train": "head"}, {"train": "all", "patience": 2}], monitor="val/width")
    trainer = toy_trainer(callback, num_sanity_val_steps=0)
    with pytest.raises(RuntimeError, match=r"`monitor` must be a logged metric, got 'val/width'. Logged are: train/l"):
        trainer.fit(ToyModule(), *toy_loaders())
    assert trainer.current_epoch == 0
    toy_trainer(transfer(monitor="val/width"), max_epochs=3).fit(ToyModule(), *toy_loaders())  # which nothing asks for


def test_validations_rarer_than_epochs_are_waited_for():
    callback = transfer([{"train": "head"}, {"train": "all", "patience": 1}])
    trainer = toy_trainer(callback, max_epochs=6, val_check_interval=8, check_val_every_n_epoch=None)
    trainer.fit(ScriptedModule([1.0]), *toy_loaders())
    assert callback.state_dict()["began"] == [[1, 16]]


def test_stochastic_weight_averaging_is_refused():
    swa = StochasticWeightAveraging(0.01)
    with pytest.raises(ValueError, match="must not hold StochasticWeightAveraging"):
        toy_trainer(transfer(), swa, max_epochs=4).fit(ToyModule(), *toy_loaders())


def test_what_the_module_has_frozen_itself_stays_frozen():
    module = Watched()
    module.net[0].requires_grad_(False)
    before = module.net[0].weight.clone()
    toy_trainer(transfer(), max_epochs=4).fit(module, *toy_loaders())
    assert torch.equal(module.net[0].weight, before)
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True, True, True]
    assert all("net.0" not in step["training"] for step in module.steps)
    assert module.net[0].training


def test_what_is_closed_again_loses_its_momentum():
    phases = [{"train": "all"}, {"train": "head", "start": 1}]
    module = Watched()
    trainer = toy_trainer(transfer(phases), max_epochs=2)
    trainer.fit(module, *toy_loaders())
    assert set(trainer.optimizers[0].state) == set(module.net[5].parameters())


@pytest.mark.parametrize("where", ["training_step", "on_before_optimizer_step", "validation_step"])
def test_whatever_raises_flags_modes_and_groups_are_as_they_were(where):
    class Raising(ToyModule):
        pass

    def fail(self, *args):
        if self.trainer.current_epoch == 1 and not self.trainer.sanity_checking:
            raise ArithmeticError
        return getattr(ToyModule, where)(self, *args)

    setattr(Raising, where, fail)
    module = Raising()
    trainer = toy_trainer(transfer(), max_epochs=3)
    with pytest.raises(ArithmeticError):
        trainer.fit(module, *toy_loaders())
    assert all(p.requires_grad for p in module.parameters())
    (group,) = trainer.optimizers[0].param_groups
    assert len(group["params"]) == 6
    hooks = trainer.optimizers[0]._optimizer_step_pre_hooks, trainer.optimizers[0]._optimizer_step_post_hooks
    assert not any(hooks)
    # what Lightning leaves, and no part otherwise
    assert {m.training for m in module.modules()} == {where != "validation_step"}


@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")
def test_fresh_layers_of_equal_shape_all_train():
    """BaseFinetuning.filter_on_optimizer compares by value: equal layers are taken for one (Lightning 2.6.6)."""

    class OneByOne(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.backbone)

        def finetune_function(self, pl_module, epoch, optimizer):
            for layer in pl_module.backbone[1:] if epoch == 1 else []:
                self.unfreeze_and_add_param_group(layer, optimizer, lr=0.01)

    class Equal(ToyModule):
        def __init__(self):
            super().__init__()
            layers = [nn.Linear(16, 16) for _ in range(4)]
            for layer in layers:
                nn.init.eye_(layer.weight)
                nn.init.zeros_(layer.bias)
            self.backbone = nn.Sequential(nn.Flatten(), *layers)
            self.net = nn.Linear(16, 2)

        def forward(self, x):
            return self.net(self.backbone(x))

        def configure_optimizers(self):
            return torch.optim.SGD(filter(lambda p: p.requires_grad, self.parameters()), lr=0.1)

    def trained(callback):
        module = Equal()
        before = copy.deepcopy(module.state_dict())
        toy_trainer(callback, max_epochs=3).fit(module, *toy_loaders())
        return sum(not torch.equal(before[f"backbone.{n}.weight"], module.backbone[n].weight) for n in (1, 2, 3, 4))

    assert trained(transfer([{"train": "head"}, {"train": "all", "start": 1}])) == 4
    assert trained(OneByOne()) < 4  # else this test shows nothing


class Manual(ToyModule):
    """Two optimizers, stepped by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = cross_entropy(self(batch[0]), batch[1])
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.net[0].parameters(), 0.1), torch.optim.Adam(self.net[1:].parameters(), 0.01)]


def test_manual_optimization_with_several_optimizers():
    module = Manual()
    before = copy.deepcopy(module.state_dict())
    seen = []

    class Watch(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append([not torch.equal(before[f"net.{n}.weight"], pl_module.net[n].weight) for n in (0, 1, 5)])

    toy_trainer(transfer(), Watch(), max_epochs=3).fit(module, *toy_loaders())
    assert seen == [[False, False, True], [False, True, True], [True, True, True]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's compiler
def test_compiled_modules():
    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            self.seen.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    for way in ("whole", "part", "in place", "forward"):
        module, watch = ToyModule(), Watch()
        watch.seen = []
        if way == "part":
            module.net = torch.compile(module.net, backend="aot_eager")
        elif way == "in place":
            module.net.compile(backend="aot_eager")
        elif way == "forward":
            module.net.forward = torch.compile(module.net.forward, backend="aot_eager")
        fitted = torch.compile(module, backend="aot_eager") if way == "whole" else module
        toy_trainer(transfer(), watch, max_epochs=4).fit(fitted, *toy_loaders())
        steps = [
            {int(name.split(".")[-2]) for name in one if not torch.equal(one[name], after[name])}
            for one, after in pairwise(watch.seen)
        ]
        assert steps == [{5}, {1, 5}, {0, 1, 5}]
        module.zero_grad()
        module(toy_loaders()[1].dataset[0][0][None]).sum().backward()
        assert all(p.grad is not None for p in module.parameters())


def test_phases_are_logged_and_monitors_see_the_optimizers_own_rates(tmp_path):
    logger = CSVLogger(tmp_path)
    monitor = LearningRateMonitor("step")
    trainer = toy_trainer(transfer(), monitor, logger=logger, max_epochs=3)
    trainer.fit(ToyModule(lr=0.4), *toy_loaders())
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    columns = lines[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in lines[1:]]
    phases = [(row["step"], row["transfer/phase"], row["transfer/parameters"]) for row in rows if row["transfer/phase"]]
    assert [tuple(map(float, row)) for row in phases] == [(0, 1, 34), (4, 2, 42), (8, 3, 82)]
    rates = [float(row["lr-SGD"]) for row in rows if row.get("lr-SGD")]
    assert rates[0] == 0.4
    assert rates[-1] == pytest.approx(0.4 * 0.7**2)


def test_the_schedule_is_printed_before_training(capsys, caplog):
    with caplog.at_level(logging.INFO):
        toy_trainer(TransferLearning(), max_epochs=4).fit(ToyModule(), *toy_loaders())
    out = capsys.readouterr().out
    assert re.search(r"1\s+at once\s+head: net.5\s+34 \(41.5%\)\s+1\b", out)
    assert re.search(r"2\s+0.25 of training\s+last 2: all\s+82 \(100.0%\)\s+0.03 to 0.1\b", out)
    assert "phase 2 of 2 from epoch 1" in caplog.text
    phases = [{"train": "head"}, {"train": "[b]*", "patience": 3}]
    with pytest.raises(ValueError, match=re.escape("got '[b]*', which matches none")):
        toy_trainer(TransferLearning(phases)).fit(ToyModule(), *toy_loaders())


def test_the_presets_on_a_small_resnet(capsys):
    from lightning_trainingkit import DigitsDataModule

    module = ImageClassifier("small_resnet", 10, model_options={"width": 4})
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=4,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        accelerator="cpu",
        callbacks=[TransferLearning()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DigitsDataModule())
    out = capsys.readouterr().out
    assert re.search(r"1\s+at once\s+head: model.head\s+170", out)
    assert re.search(r"2\s+0.25 of training\s+last 2: model.blocks.1", out)


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ([{"train": "net.9"}], r"phases\[0\]\['train'\]` must name trainable layers, got 'net.9'.* net.5"),
        (
            [{"train": "head"}, {"train": "all", "start": 4}],
            "must lie before the end of .*, got epoch 4 of 4 epochs",
        ),
        ([{"train": "head"}, {"train": "net.0", "start": 0.5}, {"train": "all", "start": 2}], "after the start of the"),
        ([{"train": "head", "lr_scale": {"net.0": 0.1}}], "must name trainable layers of this phase, got 'net.0'"),
    ],
)
def test_phases_that_do_not_fit_are_errors_before_training(phases, said):
    module = Watched()
    with pytest.raises(ValueError, match=said):
        toy_trainer(transfer(phases), max_epochs=4).fit(module, *toy_loaders())
    assert not module.steps


class Hooked(Watched):
    """Reads its features through a forward hook."""

    def __init__(self):
        super().__init__()
        self.head, self.body, self.net = self.net[5], self.net[:5], nn.Identity()
        self.features = []
        self.body.register_forward_hook(lambda module, args, output: self.features.append(output))

    def forward(self, x):
        self.body(x)
        return self.head(self.features.pop())


@pytest.mark.parametrize("train", ["head", "last 2"])
def test_a_head_behind_a_forward_hook_must_be_named(train):
    module = Hooked()
    said = rf"`phases\[1\]` must name trainable .* forward hook \(body\), got '{train}'. Name some of head, body"
    with pytest.raises(ValueError, match=said):
        toy_trainer(transfer([{"train": "all"}, {"train": train, "start": 1}])).fit(module, *toy_loaders())
    assert not module.steps
    toy_trainer(transfer([{"train": "head.*"}]), max_epochs=1).fit(module, *toy_loaders())
    assert module.steps[0]["open"] == ["head.weight", "head.bias"]


def test_other_errors_before_training():
    class Filtered(Watched):
        def configure_optimizers(self):
            return torch.optim.SGD(self.net[5].parameters(), 0.1)

    class Limited(Watched):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters())

    class Frozen(Watched):
        def configure_optimizers(self):
            self.requires_grad_(False)
            return super().configure_optimizers()

    for kind, error, said in (
        (Filtered, ValueError, "got an optimizer without net.0.weight, net.0.bias, net.1.weight"),
        (Limited, TypeError, "at each step, got LBFGS"),
        (Frozen, ValueError, "with requires_grad=True, got none"),
    ):
        module = kind()
        with pytest.raises(error, match=said):
            toy_trainer(transfer(), max_epochs=4).fit(module, *toy_loaders())
        assert not module.steps
    with pytest.raises(ValueError, match=r"got epoch 2 of 1\.5 epochs, which begin with 0"):
        toy_trainer(transfer(), max_epochs=-1, max_steps=6).fit(Watched(), *toy_loaders())
    with pytest.raises(ValueError, match="must be an epoch where the training has no end"):
        toy_trainer(transfer("more_data"), max_epochs=-1).fit(Watched(), *toy_loaders())
    toy_trainer(transfer(), fast_dev_run=True).fit(Watched(), *toy_loaders())  # which is shorter than the schedule


@pytest.mark.parametrize(
    ("start", "begins", "options"),
    [
        (2, 8, {"max_steps": 6, "max_epochs": -1, "accumulate_grad_batches": 3}),  # two steps to an epoch of 4 batches
        (2, 8, {"max_steps": 5, "max_epochs": 3, "accumulate_grad_batches": 2}),
        (0.75, 5, {"max_steps": 6, "max_epochs": -1}),
        (0.75, 9, {"max_steps": 100, "max_epochs": 3}),
        (0.9, 11, {"max_epochs": 3, "accumulate_grad_batches": 3}),
        (0.8, 5, {"max_epochs": 2, "limit_train_batches": 3}),
    ],
)
def test_a_phase_begins_as_late_as_it_can_and_no_later(start, begins, options):
    def fit(start):
        module = Watched()
        toy_trainer(transfer([{"train": "head"}, {"train": "all", "start": start}]), **options).fit(
            module, *toy_loaders()
        )
        return [number for number, step in enumerate(module.steps) if len(step["open"]) == 6]

    assert fit(start)[0] == begins
    too_late = start + 1 if isinstance(start, int) else 0.99
    with pytest.raises(ValueError, match=r"`phases\[1\]\['start'\]` must (lie before the end of|be at most 0\.[5-9])"):
        fit(too_late)


def test_a_phase_that_never_began_is_a_warning_where_no_length_was_known():
    class Manual(Watched):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(super().training_step(batch, batch_idx))
            self.optimizers().step()

    accumulate = GradientAccumulationScheduler({0: 4, 1: 1})
    phases = [{"train": "head"}, {"train": "all", "start": 2}]
    for module, callbacks in ((Manual(), []), (Watched(), [accumulate])):
        with pytest.warns(
            match=r"`phases\[1\]` should have begun at epoch 2, and the training has ended after 2 epochs"
        ):
            toy_trainer(transfer(phases), *callbacks, max_epochs=-1, max_steps=8 if not callbacks else 5).fit(
                module, *toy_loaders()
            )
        assert len(module.steps[-1]["open"]) == 2
    begun = Watched()
    toy_trainer(transfer(phases), accumulate, max_epochs=-1, max_steps=6).fit(begun, *toy_loaders())
    assert len(begun.steps[-1]["open"]) == 6


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_warm_up_goes_on_through_the_next_phase_and_begins_anew_after_a_break(tmp_path):
    class Tell(L.Callback):
        def __init__(self, stop=None):
            self.stop, self.told = stop, {}

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == self.stop:
                raise ArithmeticError
            self.told[trainer.global_step] = callback.learning_rates

    head, conv, norm = "net.5.weight", "net.0.weight", "net.1.weight"
    phases = [["head"], ["head", "net.1"], ["head", "net.1", "net.0"], ["net.0"], ["net.0", "net.1"]]
    phases = [{"train": train} | ({"start": number} if number else {}) for number, train in enumerate(phases)]
    told = []
    for stop, resume in ((None, None), (14, None), (None, tmp_path / "epoch=2.ckpt")):
        callback, tell = transfer(phases, warmup_steps=9), Tell(stop)
        save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        module = Watched(lr=1.0)
        module.configure_optimizers = lambda module=module: torch.optim.SGD(module.parameters(), lr=1.0)
        with pytest.raises(ArithmeticError) if stop else nullcontext():
            toy_trainer(callback, save, tell, max_epochs=5).fit(module, *toy_loaders(), ckpt_path=resume)
        told.append(tell.told)
    rates = told[0]
    for step in range(20):
        rises = {head: 0, norm: 4 if step < 12 else 16, conv: 8}
        wanted = {name: min(1, (step - since + 1) / 10) if since else 1 for name, since in rises.items()}
        trained = {name: rate for name, rate in wanted.items() if name in rates[step]}
        assert {name: rates[step][name] for name in trained} == pytest.approx(trained), step
        assert len(trained) == [1, 2, 3, 1, 2][step // 4]
    assert {step: rates[step] for step in range(12, 20)} == told[2]


def test_sharded_strategies_are_refused():
    for strategy in (FSDPStrategy(), ModelParallelStrategy()):
        with pytest.raises(TypeError, match=f"got {type(strategy).__name__}"):
            transfer().setup(SimpleNamespace(strategy=strategy), ToyModule(), "fit")


def test_numbers_of_numpy_can_be_loaded_from_a_checkpoint(tmp_path):
    phases = [
        {"train": "head", "lr_scale": np.float32(0.5)},
        {"train": "all", "patience": np.int64(2)},
        {"train": "all", "start": np.float32(0.5)},
    ]
    state = transfer(phases, lr_decay=np.sqrt(0.1)).state_dict()
    torch.save(state, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == state


@pytest.mark.parametrize("options", [{"lr_decay": 0}, {"lr_decay": 1.1}, {"warmup_steps": -1}, {"mode": "avg"}])
def test_arguments_out_of_range(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}` must"):
        TransferLearning(**options)


@pytest.mark.parametrize(
    "options",
    [
        *({"lr_decay": True}, {"lr_decay": "0.3"}, {"warmup_steps": 2.5}, {"cache_limit": None}, {"monitor": 3}),
        *({"restore_best": "yes"}, {"verbose": 1}),
    ],
)
def test_arguments_of_a_wrong_type(options):
    (name,) = options
    with pytest.raises(TypeError, match=f"`{name}` must be"):
        TransferLearning(**options)


def test_a_monitor_that_is_logged_by_step_alone_is_an_error():
    class Logs(ToyModule):
        def training_step(self, batch, batch_idx):
            self.log("loss", 1.0)
            return super().training_step(batch, batch_idx)

    phases = [{"train": "head"}, {"train": "all", "patience": 2}]
    with pytest.raises(RuntimeError, match="got 'loss', which `training_step` logs by step alone"):
        toy_trainer(transfer(phases, monitor="loss"), max_epochs=4).fit(Logs(), *toy_loaders())


def test_a_loss_of_nothing_that_trains_and_modes_that_the_step_undoes_are_errors():
    class Apart(Manual):
        def training_step(self, batch, batch_idx):
            self.manual_backward(self.net[0](batch[0]).sum())

    class Undoing(ToyModule):
        def training_step(self, batch, batch_idx):
            self.train()
            return super().training_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match=r"`phases\[0\]\['train'\]` must name .* got head, and a loss"):
        toy_trainer(transfer(), max_epochs=4).fit(Apart(), *toy_loaders())
    with pytest.raises(RuntimeError, match="`Undoing` must leave frozen layers in eval mode"):
        toy_trainer(transfer(), max_epochs=4).fit(Undoing(), *toy_loaders())


def test_a_shared_parameter_has_both_its_names():
    module = Watched()
    module.again = module.net[0]
    toy_trainer(transfer([{"train": ["head", "again"]}]), max_epochs=1).fit(module, *toy_loaders())
    assert set(module.steps[0]["open"]) == {"net.0.weight", "net.0.bias", "net.5.weight", "net.5.bias"}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_best_weights_are_there_on_resume_though_a_model_checkpoint_has_replaced_its_file(tmp_path):
    phases = [{"train": "head"}, {"train": "all", "start": 5}]

    def fit(stop=None, resume=None):
        best = ModelCheckpoint(tmp_path / "best", monitor="val/loss")
        newest = ModelCheckpoint(tmp_path / "newest", filename="{epoch}", every_n_epochs=2, save_top_k=1)
        options = {"max_epochs": 6, "default_root_dir": tmp_path}
        trainer = toy_trainer(transfer(phases, restore_best=True), best, newest, Stop(stop), **options)
        trainer.fit(ScriptedModule([5.0, 4.0, 3.0, 9.0, 9.0, 9.0]), *toy_loaders(), ckpt_path=resume)

    with pytest.raises(ArithmeticError):
        fit(stop=14)
    fit(resume=tmp_path / "newest" / "epoch=1.ckpt")  # which says that epoch 1 was the best: its file was replaced


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_checkpoint_of_another_schedule_is_refused_and_one_of_this_goes_on(tmp_path):
    save = ModelCheckpoint(tmp_path, save_last=True)
    toy_trainer(transfer(), save, max_epochs=3).fit(ToyModule(), *toy_loaders())
    path = tmp_path / "last.ckpt"
    module = Watched()
    with pytest.raises(ValueError, match="`phases` must be the same as in the checkpoint to resume"):
        toy_trainer(transfer("more_data"), save, max_epochs=4).fit(module, *toy_loaders(), ckpt_path=path)
    assert not module.steps
    toy_trainer(transfer(), save, max_epochs=4).fit(module, *toy_loaders(), ckpt_path=path)
    assert [len(step["open"]) for step in module.steps] == [6] * 4
    toy_trainer(transfer("more_data"), logger=False).test(module, toy_loaders()[1], ckpt_path=path, verbose=False)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_best_weights_that_are_gone_are_an_error_on_resume(tmp_path):
    phases = [{"train": "head"}, {"train": "all", "start": 3}]
    save = ModelCheckpoint(tmp_path / "saved", save_last=True)
    options = {"max_epochs": 4, "default_root_dir": tmp_path}
    trainer = toy_trainer(transfer(phases, restore_best=True), save, **options)
    stop = type("Stop", (L.Callback,), {"on_train_epoch_end": lambda self, t, m: setattr(t, "should_stop", True)})()
    trainer.callbacks.append(stop)
    trainer.fit(ToyModule(), *toy_loaders())
    (kept,) = (tmp_path / "checkpoints").glob("TransferLearning-*.pt")
    kept.unlink()
    with pytest.raises(FileNotFoundError, match="`restore_best` must find the best weights"):
        toy_trainer(transfer(phases, restore_best=True), save, **options).fit(
            ToyModule(), *toy_loaders(), ckpt_path=tmp_path / "saved" / "last.ckpt"
        )
    trainer = toy_trainer(transfer(phases, restore_best=False), save, **options)  # as the error advises
    trainer.fit(ToyModule(), *toy_loaders(), ckpt_path=tmp_path / "saved" / "last.ckpt")
    assert trainer.current_epoch == 4
    with pytest.raises(
        ValueError, match=r"`lr_decay` must be the same as in the checkpoint to resume, got 0\.9, and the check"
    ):
        toy_trainer(transfer(phases, lr_decay=0.9), save, **options).fit(
            ToyModule(), *toy_loaders(), ckpt_path=tmp_path / "saved" / "last.ckpt"
        )


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    process.run(Path(__file__).with_name("transfer_killed.py"), folder, folder=folder)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("step", KILLED)
def test_killed_in_each_phase_and_resumed(killed, schedule, step):
    found = killed[f"{schedule}, killed at {step}"]
    print(f"{schedule}, killed at step {step}: resumed from step {found['resumed from']} in phase {found['phases'][0]}")
    assert found["resumed from"] == step // 4 * 4
    assert found["phases"] == {6: [1, 2, 3], 10: [2, 3], 14: [2, 3], 22: [3]}[step]
    assert found["weights"] == found["optimizer"] == 0
    assert found["phase and rates"]
    assert found["steps"] == STEPS


class Stop(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise ArithmeticError


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("restore", [True, False])
def test_phases_that_wait_for_the_metric_go_on_after_a_resume(tmp_path, restore):
    phases = [{"train": "head"}, {"train": ["head", "net.1"], "patience": 2}, {"train": "all", "patience": 1}]

    def fit(folder, stop=None, resume=None):
        L.seed_everything(0, verbose=False)
        module = ScriptedModule([3.0, 2.0, 2.5, 2.2, 5.0, 4.0, 4.5, 1.0])
        callback = transfer(phases, restore_best=restore, warmup_steps=3)
        save = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=False)
        trainer = toy_trainer(callback, save, Stop(stop), EpochSeed(0), max_epochs=8, default_root_dir=folder)
        trainer.fit(module, *toy_loaders(), ckpt_path=resume)
        state = callback.state_dict()
        return module.state_dict(), {key: state[key] for key in ("phase", "began", "wait", "best")}

    weights, state = fit(tmp_path / "whole")
    assert (state["phase"], state["began"][1]) == (2, [2, 28])
    for epoch in range(7):
        folder = tmp_path / str(epoch)
        with pytest.raises(ArithmeticError):
            fit(folder, stop=4 * epoch + 6 if epoch < 6 else 30)
        weights_too, state_too = fit(folder, resume=folder / f"epoch={epoch}.ckpt")
        assert difference(weights, weights_too) == 0
        assert state_too == state


def test_two_ranks_end_equal_to_each_other_and_to_one_process(tmp_path):
    script = Path(__file__).with_name("transfer_on_two_ranks.py")
    process.run_ranks(script, tmp_path, 2, folder=tmp_path)
    process.run(script, tmp_path, 1, folder=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    print(f"largest difference between the ranks: {found}; to one process: {difference(one, two)}")
    assert found["ours"] == found["ours, cached"] == 0
    assert found["ours, cached, to not cached"] < 1e-5
    assert difference(one, two) < 1e-6
    assert "without it on another rank" in found["without room"][0]  # both ranks stop
    assert "No space left on device" in found["without room"][1]
    assert found["BackboneFinetuning"] > 1e-3  # Lightning #20340: else this test shows nothing


AT_STEPS = {"every_n_train_steps": 1}
AT_VALIDATIONS = {"save_on_train_epoch_end": False}
AT_EPOCH_ENDS = {"save_on_train_epoch_end": True}
BEFORE = {"save_top_k": 0}  # a callback that stands before ours saves at the end of batches
AT_BEGINNING = {"save_top_k": 0, "save_last": False}  # the same, as validations begin
EACH_SECOND = {"check_val_every_n_epoch": 2}
ACROSS = {"check_val_every_n_epoch": None}


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("monitor", "saves", "step", "lost", "options"),
    [
        ("val/loss", AT_STEPS, 3, 0, {}),
        ("val/loss", AT_STEPS, 4, 1, {}),
        ("val/loss", AT_STEPS, 2, 1, {"val_check_interval": 0.5}),
        ("val/loss", AT_STEPS, 2, 1, {"accumulate_grad_batches": 2}),
        ("val/loss", AT_STEPS, 5, 0, ACROSS | {"val_check_interval": 6}),
        ("val/loss", AT_STEPS, 6, 1, ACROSS | {"val_check_interval": 6}),
        ("val/loss", AT_VALIDATIONS, 4, 0, {}),
        ("val/loss", AT_VALIDATIONS, 2, 0, {"val_check_interval": 0.5}),
        ("val/loss", AT_VALIDATIONS, 8, 0, EACH_SECOND),
        ("val/loss", AT_VALIDATIONS, 6, 0, ACROSS | {"val_check_interval": 6}),
        ("val/loss", AT_EPOCH_ENDS, 8, 0, EACH_SECOND),
        ("loss", AT_STEPS, 4, 1, {"limit_val_batches": 0}),
        ("loss", AT_STEPS, 6, 1, {}),
        ("loss", AT_STEPS, 8, 1, {"val_check_interval": 0.5}),
        ("loss", AT_VALIDATIONS, 4, 1, {}),
        ("loss", AT_EPOCH_ENDS, 8, 0, {}),
        ("loss", BEFORE, 5, 1, {}),
        ("val/loss", AT_BEGINNING, 4, 1, {}),
        ("loss", AT_BEGINNING, 4, 1, {}),
    ],
)
def test_a_resumed_run_judges_each_check_once_and_no_epoch_in_part(tmp_path, monitor, saves, step, lost, options):
    class Logs(ToyModule):
        def training_step(self, batch, batch_idx):
            self.log("loss", float(self.current_epoch), on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    class Saves(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if saves is BEFORE:
                trainer.save_checkpoint(tmp_path / f"step={trainer.global_step}.ckpt")

        def on_validation_start(self, trainer, pl_module):
            if saves is AT_BEGINNING:
                trainer.save_checkpoint(tmp_path / f"step={trainer.global_step}.ckpt")

    def fit(resume=None):
        callback = transfer([{"train": "head"}, {"train": "all", "patience": 99}], monitor=monitor)
        save = ModelCheckpoint(tmp_path, filename="{step}", **{"save_top_k": -1} | saves)
        trainer = toy_trainer(Saves(), callback, save, max_epochs=5, **options)
        trainer.fit(Logs(lr=0.0), *toy_loaders(), ckpt_path=resume)
        return callback.state_dict()["wait"]

    checks = fit()
    assert fit(tmp_path / f"step={step}.ckpt") == checks - lost


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_checkpoint_of_another_metric_is_refused_where_both_follow_one(tmp_path):
    class Logs(ScriptedModule):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("accuracy", [0.1, 0.2, 0.9, 0.3, 0.4, 0.5][self.current_epoch])

    def fit(folder, resume=None, **options):
        callback = transfer([{"train": "all"}, {"train": "head", "start": 5}], **options)
        save = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        trainer = toy_trainer(callback, save, max_epochs=6, default_root_dir=folder)
        trainer.fit(Logs([2.0, 1.5, 3.0, 4.0, 5.0, 6.0]), *toy_loaders(), ckpt_path=resume)
        return Path(callback.state_dict()["best_file"]).name

    other = {"restore_best": True, "monitor": "accuracy", "mode": "max"}
    fit(tmp_path / "none", restore_best=False)
    assert "epoch=2" in fit(tmp_path / "none", tmp_path / "none" / "epoch=1.ckpt", **other)
    fit(tmp_path / "loss", restore_best=True)
    with pytest.raises(ValueError, match="`monitor` must be the same as in the checkpoint to resume, got 'accuracy'"):
        fit(tmp_path / "loss", tmp_path / "loss" / "epoch=1.ckpt", **other)


@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
def test_weights_that_nobody_kept_are_not_taken_for_the_best(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    phases = [{"train": "all"}, {"train": "head", "start": 5}, {"train": "all", "patience": 99}]

    def fit(folder, restore, resume=None):
        save = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        callback = transfer(phases, restore_best=restore)
        trainer = toy_trainer(callback, save, max_epochs=6, default_root_dir=folder)
        trainer.fit(ScriptedModule([2.0, 1.5, 0.5, 3.0, 4.0, 5.0]), *toy_loaders(), ckpt_path=resume)
        return Path(callback.state_dict()["best_file"]).name

    fit(tmp_path / "1", True)
    fit(tmp_path / "2", False, tmp_path / "1" / "epoch=1.ckpt")
    assert "epoch=4" in fit(tmp_path / "3", True, tmp_path / "2" / "epoch=3.ckpt")
    assert caplog.text.count("the checkpoint has no best weights, the best by val/loss begins here") == 1


@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_an_average_that_has_not_begun_is_not_the_best(tmp_path):
    class Notes(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step in (16, 21):
                (average,) = (each for each in trainer.callbacks if isinstance(each, EMAWeightAveraging))
                moved.setdefault(trainer.global_step, difference(start, pl_module.state_dict()))
                apart[:] = [difference(average._average_model.module.state_dict(), pl_module.state_dict())]

    def fit(resume=None, restore=True):
        module = ScriptedModule([2.0, 1.0, 3.0, 4.0, 5.0])
        module.load_state_dict(start)
        average = EMAWeightAveraging(decay=0.9, update_starting_at_step=20)
        callbacks = average, transfer([{"train": "all"}, {"train": "head", "start": 4}], restore_best=restore)
        best = ModelCheckpoint(tmp_path / "best", monitor="val/loss")
        newest = ModelCheckpoint(tmp_path / str(restore), filename="{epoch}", save_top_k=-1)
        trainer = toy_trainer(*callbacks, Notes(), best, newest, max_epochs=6, default_root_dir=tmp_path)
        trainer.fit(module, *toy_loaders(), ckpt_path=resume)

    start = copy.deepcopy(ToyModule().state_dict())
    first = tmp_path / "True" / "epoch=1.ckpt"
    for resume, restore in ((None, True), (first, True), (None, False), (tmp_path / "False" / "epoch=1.ckpt", True)):
        moved, apart = {}, []
        if restore:
            with pytest.warns(UserWarning, match="val/loss does not count until the average of weights begins"):
                fit(resume, restore)
        else:
            fit(resume, restore)
        assert moved[16] > 0.01  # the phase began from the trained weights, not those of the start
        assert apart == [0]  # the average begins with a copy, as without a restoring


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:TransferLearning. val/loss does not count until the average")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize(
    ("newest", "seldom"), [("epoch=1", {"every_n_epochs": 2}), ("step=10", {"every_n_train_steps": 10})]
)
def test_an_untrained_best_that_is_gone_is_not_asked_for_on_resume(tmp_path, newest, seldom):
    class Notes(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 20:
                began.update(copy.deepcopy(pl_module.state_dict()))

    def fit(stop=None, resume=None):
        average = EMAWeightAveraging(decay=0.9, update_starting_at_step=10)
        callback = transfer([{"train": "all"}, {"train": "head", "start": 5}], restore_best=True)
        others = ModelCheckpoint(tmp_path, filename="{epoch}-{step}", **seldom), Stop(stop)
        best = ModelCheckpoint(tmp_path, filename="best-{epoch}", monitor="val/loss")
        trainer = toy_trainer(average, callback, *others, best, Notes(), max_epochs=6, default_root_dir=tmp_path)
        trainer.fit(ScriptedModule([3.0, 3.0, 2.0, 1.0, 1.5, 1.6]), *toy_loaders(), ckpt_path=resume)

    began = {}
    with pytest.raises(ArithmeticError):
        fit(stop=13)
    (resume,) = tmp_path.glob(f"*{newest}*.ckpt")
    assert not (tmp_path / "best-epoch=0.ckpt").exists()  # the first average that was trained replaced it
    fit(resume=resume)
    best = torch.load(tmp_path / "best-epoch=3.ckpt", weights_only=True)["state_dict"]
    assert difference(began, best) == 0


class Unsafe:
    """Stands in hyperparameters, and would run code when it is loaded."""


def test_the_best_weights_come_back_whatever_the_hyperparameters_hold(tmp_path):
    class Notes(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 12:
                began.update(copy.deepcopy(pl_module.state_dict()))

    module, began = ScriptedModule([2.0, 1.0, 3.0, 4.0]), {}
    module.save_hyperparameters({"unsafe": Unsafe()})
    callback = transfer([{"train": "all"}, {"train": "head", "start": 3}], restore_best=True)
    toy_trainer(callback, Notes(), max_epochs=4, default_root_dir=tmp_path).fit(module, *toy_loaders())
    assert difference(began, module.seen[1]) == 0


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_best_is_the_newest_though_another_checkpoint_was_saved_before_it(tmp_path):
    class Notes(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 16:
                began.update(copy.deepcopy(pl_module.state_dict()))

    def fit(folder, stop=None, resume=None):
        callback = transfer([{"train": "all"}, {"train": "head", "start": 4}], restore_best=True)
        newest = ModelCheckpoint(folder, filename="newest-{epoch}")
        best = ModelCheckpoint(folder, filename="{epoch}", monitor="val/loss", save_top_k=-1)
        trainer = toy_trainer(callback, newest, best, Notes(), Stop(stop), max_epochs=5, default_root_dir=folder)
        trainer.fit(ScriptedModule([1.0, 0.5, 3.0]), *toy_loaders(), ckpt_path=resume)

    began = {}
    with pytest.raises(ArithmeticError):
        fit(tmp_path, stop=10)
    fit(tmp_path, resume=tmp_path / "newest-epoch=1.ckpt")
    best = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)["state_dict"]
    assert difference(began, best) == 0


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:The checkpoint was not created with WeightAveraging")
@pytest.mark.filterwarnings("ignore:TransferLearning. val/loss does not count until the average")
@pytest.mark.parametrize(("averages", "late"), [(True, 0), (False, 14), (False, 99)])
def test_the_best_of_before_a_resume_comes_back_beside_an_average(tmp_path, averages, late):
    class Notes(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 16:
                began.update(copy.deepcopy(pl_module.state_dict()))

    def fit(average, resume=None):
        callbacks = [EMAWeightAveraging(decay=0.9, update_starting_at_step=late)] * average
        callbacks += [transfer([{"train": "all"}, {"train": "head", "start": 4}], restore_best=True), Notes()]
        save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        trainer = toy_trainer(*callbacks, save, max_epochs=6, default_root_dir=tmp_path)
        module = ScriptedModule([1.0, 2.0, 0.5 if resume and late == 99 else 3.0, 4.0, 5.0, 6.0])
        trainer.fit(module, *toy_loaders(), ckpt_path=resume)
        return module

    began = {}
    best = fit(averages).seen[0]
    fit(True, tmp_path / "epoch=1.ckpt")
    assert difference(began, best) == 0


@pytest.mark.filterwarnings("ignore:TransferLearning. loss does not count until the average")
def test_a_metric_of_training_does_not_count_before_an_average_has_begun():
    class Logs(ToyModule):
        def training_step(self, batch, batch_idx):
            self.log("loss", 1.0, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    callback = transfer([{"train": "head"}, {"train": "all", "patience": 2}], monitor="loss")
    average = EMAWeightAveraging(update_starting_at_step=6)  # in epoch 1
    toy_trainer(average, callback, max_epochs=5).fit(Logs(), *toy_loaders())
    assert callback.state_dict()["began"] == [[1, 16]]  # the first that counts is an improvement


@pytest.mark.parametrize("start", [4, 5])
def test_stochastic_weight_averages_begin_anew_from_restored_weights(tmp_path, start):
    class Notes(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 4 * start:
                restored.update(copy.deepcopy(pl_module.net[0].state_dict()))

    module, restored = ScriptedModule([2.0, 1.0, 3.0, 4.0, 5.0]), {}
    module.net[1] = nn.Identity()
    phases = [{"train": "all"}, {"train": "head", "start": start}]
    average = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    callbacks = average, transfer(phases, restore_best=True), Notes()
    toy_trainer(*callbacks, max_epochs=6, default_root_dir=tmp_path).fit(module, *toy_loaders())
    assert difference(module.net[0].state_dict(), restored) < 1e-6  # frozen since: all that is averaged is equal


def test_an_average_of_weights_goes_back_with_them(tmp_path):
    class Averages(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 17:
                (average,) = (each for each in trainer.callbacks if isinstance(each, EMAWeightAveraging))
                self.apart = difference(average._average_model.module.state_dict(), pl_module.state_dict())

    module = ScriptedModule([2.0, 1.0, 3.0, 4.0, 5.0])
    phases = [{"train": "all"}, {"train": "head", "start": 4, "lr_scale": 1e-9}]
    averages = Averages()
    callbacks = EMAWeightAveraging(decay=0.9), transfer(phases, restore_best=True), averages
    toy_trainer(*callbacks, max_epochs=5, default_root_dir=tmp_path).fit(module, *toy_loaders())
    assert averages.apart < 1e-6
