"""What GradientStats logs, against the same training as a plain loop of torch."""

import copy
import math

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import GradientStats
from tests.toy import ToyModule, toy_loaders, toy_trainer

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, fused=True),
}


class Recorded(Logger):
    """A logger that keeps what it gets."""

    name, version = "recorded", "0"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        if any(name.startswith("gradients/") for name in metrics):
            self.rows.append((step, metrics))

    def log_hyperparams(self, *args, **kwargs):
        pass


class Small(L.LightningModule):
    def __init__(self, optimizer="sgd"):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3))
        self.optimizer = optimizer

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return OPTIMIZERS[self.optimizer](self.parameters())


def fit(module, *callbacks, n=1, epochs=1, stats=None, **options):
    """Fit on four batches of 6 an epoch, in order; what was logged."""
    logger, stats = Recorded(), stats or GradientStats(every_n_steps=n)
    trainer = toy_trainer(stats, *callbacks, max_epochs=epochs, logger=logger, **options)
    trainer.fit(module, DataLoader(TensorDataset(X, Y), 6))
    return logger.rows, stats, trainer


def length(tensors):
    return math.sqrt(sum(float(each.double().square().sum()) for each in tensors))


def plain_loop(module, accumulate=1, clip=None, autocast=False):
    """The metrics of each step of the same training."""
    rows, optimizer = [], module.configure_optimizers()
    for step in range(4 // accumulate):
        optimizer.zero_grad()
        for batch in range(step * accumulate, (step + 1) * accumulate):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = module.training_step((X[batch * 6 : batch * 6 + 6], Y[batch * 6 : batch * 6 + 6]), batch)
            (loss / accumulate).backward()
        gradients = {name: each.grad.clone() for name, each in module.named_parameters()}
        if clip is not None:
            clip(module.parameters())
        clipped = length([each.grad for each in module.parameters()])
        before = {name: each.detach().clone() for name, each in module.named_parameters()}
        optimizer.step()
        row = {"gradients/norm": length(gradients.values())} | ({"gradients/clipped_norm": clipped} if clip else {})
        moved = {name: before[name] - each.detach() for name, each in module.named_parameters()}
        row["gradients/update_ratio"] = length(moved.values()) / length(before.values())
        dot = sum(float((moved[name] * gradients[name]).sum()) for name in moved)
        row["gradients/descent"] = dot / length(moved.values()) / length(gradients.values())
        for layer in ("net.0", "net.2"):
            parts = [f"{layer}.weight", f"{layer}.bias"]
            row[f"gradients/{layer}/norm"] = length([gradients[part] for part in parts])
            row[f"gradients/{layer}/update_ratio"] = length([moved[part] for part in parts]) / length(
                [before[part] for part in parts]
            )
            signs = gradients[f"{layer}.weight"].sign().mean(1).abs()
            row[f"gradients/{layer}/sign_agreement"] = float(signs.sum()) / len(signs)
        rows.append(row)
    return rows


def assert_rows(found, expected, rel=1e-3):
    assert len(found) == len(expected)
    for (_, row), wanted in zip(found, expected, strict=True):
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=rel)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_step_is_as_in_a_plain_loop(optimizer):
    rows, _, _ = fit(Small(optimizer))
    assert_rows(rows, plain_loop(Small(optimizer)))
    assert [step for step, _ in rows] == [1, 2, 3, 4]
    assert not any("clipped" in name for name in rows[0][1])


def test_bf16_mixed():
    rows, _, _ = fit(Small(), precision="bf16-mixed")
    assert_rows(rows, plain_loop(Small(), autocast=True))


def test_accumulated_gradients_count_as_one_step():
    rows, _, _ = fit(Small(), accumulate_grad_batches=2)
    assert_rows(rows, plain_loop(Small(), accumulate=2))


CLIPS = {
    "norm": lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.05),
    "value": lambda parameters: nn.utils.clip_grad_value_(parameters, 0.05),
}


@pytest.mark.parametrize("algorithm", CLIPS)
def test_the_norm_before_and_after_the_trainer_clips(algorithm):
    rows, _, _ = fit(Small(), gradient_clip_val=0.05, gradient_clip_algorithm=algorithm)
    assert_rows(rows, plain_loop(Small(), clip=CLIPS[algorithm]))
    assert all(row["gradients/clipped_norm"] < row["gradients/norm"] for _, row in rows)


@pytest.mark.parametrize("hook", ["configure_gradient_clipping", "on_before_optimizer_step"])
def test_the_norm_before_and_after_the_module_clips_by_itself(hook):
    def clip(self, *args, **kwargs):
        CLIPS["norm"](self.parameters())

    rows, _, _ = fit(type("Clipping", (Small,), {hook: clip})())
    assert_rows(rows, plain_loop(Small(), clip=CLIPS["norm"]))


def half_precision():
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))


@pytest.mark.parametrize("optimizer", ["sgd", "fused"])
def test_gradients_are_unscaled_beside_an_amp_scaler(optimizer):
    found, _, _ = fit(Small(optimizer), plugins=half_precision())
    full, _, _ = fit(Small(optimizer))
    for (_, half), (_, single) in zip(found, full, strict=True):
        assert half["gradients/norm"] == pytest.approx(single["gradients/norm"], rel=0.02)
        assert half["gradients/update_ratio"] == pytest.approx(single["gradients/update_ratio"], rel=0.05)


@pytest.mark.parametrize("optimizer", ["sgd", "fused"])
def test_a_step_that_the_scaler_skips_is_not_logged(optimizer):
    class Overflowing(Small):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (math.inf if batch_idx == 1 else 1.0)

    module = Overflowing(optimizer)
    rows, _, _ = fit(module, plugins=half_precision())
    assert len(rows) == 3
    assert all(math.isfinite(value) for _, row in rows for value in row.values())
    assert all(each.isfinite().all() for each in module.parameters())


def test_without_a_scaler_a_gradient_that_is_not_finite_is_logged():
    class Exploding(Small):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (math.inf if batch_idx == 3 else 1.0)

    rows, stats, _ = fit(Exploding())
    assert not math.isfinite(rows[-1][1]["gradients/norm"])
    assert not stats.summaries["net.0"].finite


class Manual(Small):
    """Two optimizers: the second one steps at every third batch."""

    raw = False

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(6, 3)

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers(use_pl_optimizer=not self.raw)
        for number, (net, optimizer) in enumerate(zip((self.net, self.other), optimizers, strict=True)):
            if number == 0 or batch_idx % 3 == 2:
                optimizer.zero_grad()
                self.manual_backward(cross_entropy(net(batch[0]), batch[1]))
                optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in (self.net, self.other)]


@pytest.mark.parametrize("raw", [False, True])
def test_several_optimizers_in_manual_optimization_each_count_their_own_steps(raw):
    module = Manual()
    module.raw = raw
    rows, _, _ = fit(module, n=2, epochs=3)
    second = [row for _, row in rows if "gradients/optimizer_1/norm" in row]
    assert len([row for _, row in rows if "gradients/optimizer_0/norm" in row]) == 6
    assert len(second) == 2  # of its three steps the first and the third
    assert {"gradients/other/norm"} == {name for name in second[0] if name.startswith("gradients/other/n")}
    first = [row for _, row in rows if "gradients/net.0/norm" in row]
    reference = plain_loop(Small())
    for name in ("norm", "update_ratio", "sign_agreement"):
        key = f"gradients/net.0/{name}"
        assert [row[key] for row in first[:2]] == pytest.approx([reference[0][key], reference[2][key]], rel=1e-3)


def test_every_n_steps_and_a_resumed_run_samples_the_same_steps(tmp_path):
    rows, stats, _ = fit(Small(), n=3, epochs=2)
    assert [step for step, _ in rows] == [1, 4, 7]
    assert stats.state_dict() == {"steps": [8]}
    _, _, trainer = fit(Small(), n=3, epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    logger = Recorded()
    resumed = toy_trainer(GradientStats(every_n_steps=3), max_epochs=2, logger=logger)
    resumed.fit(Small(), DataLoader(TensorDataset(X, Y), 6), ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert [step for step, _ in logger.rows] == [7]
    assert logger.rows[0][1] == pytest.approx(rows[2][1], rel=1e-5)


def test_all_positive_inputs_of_one_unit_give_the_zig_zag():
    class OneUnit(L.LightningModule):
        """The lecture's case: a unit whose inputs are sigmoids."""

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 40), nn.Sigmoid(), nn.Linear(40, 1))

        def training_step(self, batch, batch_idx):
            return (self.net(batch[0][:1]) - 5).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    rows, _, _ = fit(OneUnit())
    assert [row["gradients/net.2/sign_agreement"] for _, row in rows] == [1.0] * 4
    assert all(row["gradients/net.0/sign_agreement"] < 1 for _, row in rows)


def test_layers_by_pattern_name_modules_too_and_the_whole_is_theirs():
    rows, stats, _ = fit(Small(), stats=GradientStats("*.0", 1))
    assert list(stats.summaries) == ["net.0"]
    assert rows[0][1]["gradients/norm"] == rows[0][1]["gradients/net.0/norm"]
    assert list(fit(Small(), stats=GradientStats(["net"], 1))[1].summaries) == ["net.0", "net.2"]


def test_layers_that_unfreeze_and_groups_that_are_added():
    class Unfreezing(Small):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 1:
                self.net[0].requires_grad_(True)
            if batch_idx == 2:
                self.optimizers().optimizer.add_param_group({"params": self.net[2].parameters()})

        def configure_optimizers(self):
            return torch.optim.SGD([*self.net[0].parameters(), self.extra], lr=0.1)

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * self.extra

    module = Unfreezing()
    module.extra = nn.Parameter(torch.ones(()))
    module.net[0].requires_grad_(False)
    rows, _, _ = fit(module)
    seen = [[layer for layer in ("extra", "net.0", "net.2") if f"gradients/{layer}/norm" in row] for _, row in rows]
    assert seen == [["extra"], ["extra", "net.0"], ["extra", "net.0", "net.2"], ["extra", "net.0", "net.2"]]


def test_the_training_is_the_same_with_and_without():
    with_stats, without = Small("adamw"), Small("adamw")
    fit(with_stats, epochs=2)
    toy_trainer(max_epochs=2).fit(without, DataLoader(TensorDataset(X, Y), 6))
    assert all(torch.equal(a, b) for a, b in zip(with_stats.parameters(), without.parameters(), strict=True))


@pytest.mark.parametrize("raises", [False, True])
def test_the_optimizers_are_left_as_found(raises):
    class Raising(Small):
        def on_before_optimizer_step(self, optimizer):
            if raises and self.trainer.global_step == 2:
                raise ArithmeticError

    stats, module = GradientStats(every_n_steps=1), Raising()
    trainer = toy_trainer(stats, max_epochs=1)
    try:
        trainer.fit(module, DataLoader(TensorDataset(X, Y), 6))
    except ArithmeticError:
        assert raises
    (optimizer,) = trainer.optimizers
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert stats.state_dict() == {"steps": [2 if raises else 4]}
    copy.deepcopy(stats)


def test_a_second_fit_starts_anew():
    stats = GradientStats(every_n_steps=3)
    first, _, _ = fit(Small(), stats=stats)
    second, _, _ = fit(Small(), stats=stats)
    assert first == second


def test_an_optimizer_whose_step_calls_its_parents():
    torch.optim.SGD([torch.ones(1)], lr=0.1)  # torch hooks a class when its first object is made

    class Child(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    class WithChild(Small):
        def configure_optimizers(self):
            return Child(self.parameters(), lr=0.1, momentum=0.9)

    rows, stats, _ = fit(WithChild())
    assert_rows(rows, plain_loop(Small()))
    assert stats.state_dict() == {"steps": [4]}


@pytest.mark.filterwarnings("ignore:.training_step. returned .None.")
def test_a_training_step_without_a_loss_logs_nothing():
    class Skipping(Small):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    rows, _, _ = fit(Skipping())
    assert len([row for _, row in rows if "gradients/norm" in row]) == 3


def test_a_compiled_module_has_the_same_numbers_under_its_own_names():
    module = Small()
    module.net = torch.compile(module.net, backend="aot_eager", fullgraph=True)
    rows, _, _ = fit(module)
    assert_rows(rows, plain_loop(Small()))


class WithLBFGS(Small):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters())


class Twice(torch.optim.SGD):
    """Asks for two gradients a step, as SAM does."""

    def step(self, closure):
        closure()
        return super().step(closure)


class WithTwice(Small):
    def configure_optimizers(self):
        return Twice(self.parameters(), lr=0.1)


class WithRawTwice(WithTwice):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        def closure():
            loss = super(WithTwice, self).training_step(batch, batch_idx)
            self.manual_backward(loss)
            return loss

        self.optimizers(use_pl_optimizer=False).step(closure)


@pytest.mark.parametrize(("module", "name"), [(WithLBFGS, "LBFGS"), (WithTwice, "Twice"), (WithRawTwice, "Twice")])
def test_several_gradients_a_step_are_refused(module, name):
    with pytest.raises(TypeError, match=f"need one gradient a step, got {name}"):
        fit(module())


def test_bad_arguments():
    with pytest.raises(ValueError, match="`every_n_steps` must be at least 1, got 0"):
        GradientStats(every_n_steps=0)
    with pytest.raises(TypeError, match="`every_n_steps` must be an integer"):
        GradientStats(every_n_steps=0.5)
    for layers in ("", [], [""], [3]):
        with pytest.raises(ValueError, match="`layers` must hold patterns"):
            GradientStats(layers)
    with pytest.raises(ValueError, match=r"must match a layer with parameters, got 'nets.0'.* Nearest names: net.0"):
        fit(Small(), stats=GradientStats(["net.2", "nets.0"]))
    frozen = Small()
    frozen.requires_grad_(False)
    with pytest.raises(ValueError, match="an optimizer with a trainable parameter, got 4 parameters without"):
        fit(frozen)


def test_a_validation_and_another_module_do_not_matter():
    module = ToyModule()
    logger = Recorded()
    toy_trainer(GradientStats(every_n_steps=4), logger=logger).fit(module, *toy_loaders())
    assert [step for step, _ in logger.rows] == [1, 5]
    assert {name.split("/")[1] for _, row in logger.rows for name in row if name.count("/") == 2} == {
        "net.0",
        "net.1",
        "net.5",
    }
