import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, nll_loss, one_hot
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import ClasswiseWrapper, MetricCollection, MinMaxMetric, R2Score, RunningMean, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score, MulticlassRecall
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.wrappers import BootStrapper, Running

from lightning_trainingkit import CutMix, ImageClassifier, Mixup
from tests.callbacks.noise.fixed_blends import (
    WEIGHT,
    FixedCutMix,
    FixedMixup,
    Spy,
    blended_by_hand,
    data,
    fit,
)
from tests.toy import difference, toy_trainer


def by_hand(module, callback, batches, loss=cross_entropy):
    """Train the module's net in a loop, and return the losses and the logits of each batch."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses, logits = [], []
    module.train()
    for x, y in batches:
        mixed, weight = blended_by_hand(callback, x)
        scores = module.net(mixed)
        total = weight * loss(scores, y) + (1 - weight) * loss(scores, y.flip(0))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
        logits.append(scores.detach())
    return losses, logits


def batches(size=4):
    return list(zip(*(each.split(size) for each in data()), strict=True))


def blended_accuracy(logits, weight):
    """Share of right answers: those for the own target and those for the partner's, each with its weight."""
    right = 0.0
    for scores, (_, y) in zip(logits, batches(), strict=True):
        classes = scores.argmax(1)
        right += float((weight * (classes == y) + (1 - weight) * (classes == y.flip(0))).sum())
    return right / 12


@pytest.mark.parametrize("callback", [FixedMixup(3), FixedCutMix(3)])
def test_a_fit_equals_a_loop_written_by_hand(callback):
    module = Spy()
    twin = copy.deepcopy(module)
    trainer = fit(module, callback)
    assert module.net.forwards == 3
    losses, _ = by_hand(twin, callback, batches())
    assert difference(module.state_dict(), twin.state_dict()) < 1e-6  # with the statistics of the BatchNorm
    assert module.net[1].num_batches_tracked == 3
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_the_classifier_of_the_kit_logs_the_blended_accuracy():
    module = ImageClassifier(Spy().net, 3, optimizer="SGD", lr=0.1, weight_decay=0.0, schedule=None)
    twin = SimpleNamespace(net=copy.deepcopy(module.model), parameters=None, train=lambda: None)
    twin.parameters = twin.net.parameters
    twin.net.train()
    callback = FixedMixup(3)
    trainer = fit(module, callback, validates=True)
    losses, logits = by_hand(twin, callback, batches())
    assert difference(module.model.state_dict(), twin.net.state_dict()) < 1e-6
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert trainer.callback_metrics["train/acc"].item() == pytest.approx(blended_accuracy(logits, WEIGHT), rel=1e-6)


def whole(module, x):
    return module(x)


def by_parts(module, x):
    features = module.net[:2](x)  # a new Sequential: its children are the ones that are shared
    return module.net[4](module.net[3](torch.relu(features)))


STEPS = {
    "self(x)": (whole, lambda x: x),
    "self.forward(x)": (lambda module, x: module.forward(x), lambda x: x),
    "self.net(x)": (lambda module, x: module.net(x), lambda x: x),
    "a new tensor first": (lambda module, x: module(x * 2), lambda x: x * 2),
    "a view first": (lambda module, x: module(x.flatten(1).view(-1, 1, 4, 4)), lambda x: x),
    "in place before": (lambda module, x: module(x.mul_(2)), lambda x: x * 2),
    "by parts": (by_parts, lambda x: x),
}


@pytest.mark.parametrize("kind", STEPS)
def test_layers_run_once_however_the_step_calls_them(kind):
    forward, prepare = STEPS[kind]
    module = Spy(lambda module, batch: cross_entropy(forward(module, batch[0]), batch[1]))
    twin = copy.deepcopy(module)
    x, y = data()
    kept = x.clone()
    fit(module, FixedMixup(3), x, y)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for x_, y_ in batches():
        scores = twin.net(prepare(blended_by_hand(FixedMixup(3), x_)[0]))
        optimizer.zero_grad()
        (WEIGHT * cross_entropy(scores, y_) + (1 - WEIGHT) * cross_entropy(scores, y_.flip(0))).backward()
        optimizer.step()
    assert module.net[1].num_batches_tracked == 3
    assert difference(module.state_dict(), twin.state_dict()) < 1e-6
    assert torch.equal(x, kept)  # the data set


def test_a_model_that_takes_the_target_shares_the_layers_that_do_not(capsys):
    class Model(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.body, self.head = net[:4], net[4]

        def forward(self, x, y):
            return {"loss": cross_entropy(self.head(self.body(x)), y)}

    module = Spy(lambda module, batch: module.model(batch[0], y=batch[1])["loss"])
    module.model = Model(module.net)
    fit(module, FixedMixup(3))
    assert module.net[1].num_batches_tracked == 3


def test_dropout_masks_are_shared():
    seen = []

    def step(module, batch):
        seen.append(module.drop(module(batch[0])))
        return cross_entropy(seen[-1], batch[1])

    module = Spy(step)
    module.drop = nn.Dropout(0.5)
    fit(module, FixedMixup(3))
    assert all(torch.equal(seen[i], seen[i + 1]) for i in range(0, 6, 2))


def test_a_layer_that_runs_twice_is_named_once(capsys, caplog):
    def step(module, batch):
        logits = module.net(batch[0] + torch.randn_like(batch[0]))  # other noise in each call
        return cross_entropy(logits, batch[1])

    module = Spy(step)
    with caplog.at_level("INFO"):
        fit(module, FixedMixup(3), max_epochs=2)
    lines = [record.message for record in caplog.records if "run twice" in record.message]
    assert lines == [
        "FixedMixup: layers run twice for a blended batch, once with each target, since their inputs or outputs "
        "differ: net.0, net.1, net.4."
    ]


def test_an_output_that_the_step_changes_in_place_stays_right():
    module = Spy(lambda module, batch: cross_entropy(module.net(batch[0]).mul_(3), batch[1]))
    twin = copy.deepcopy(module)
    fit(module, FixedMixup(3))
    by_hand(twin, FixedMixup(3), batches(), lambda scores, y: cross_entropy(3 * scores, y))
    assert difference(module.state_dict(), twin.state_dict()) < 1e-6


@pytest.mark.parametrize("how", ["in place", "wrapped"])
def test_a_compiled_net_is_shared_and_compiled_once(how):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    module = Spy(lambda module, batch: cross_entropy(module.net(batch[0]), batch[1]))
    module.net = nn.Sequential(*module.net)  # a count compiles anew
    twin = copy.deepcopy(module)
    if how == "in place":
        module.net.compile(backend=backend)
    else:
        module.net = torch.compile(module.net, backend=backend)
    fit(module, FixedMixup(3), max_epochs=2)
    for _ in range(2):
        by_hand(twin, FixedMixup(3), batches())
    assert len(compiled) == 1
    found = {name.replace("_orig_mod.", ""): value for name, value in module.state_dict().items()}
    assert difference(found, twin.state_dict()) < 1e-6


def test_returned_and_logged_values_are_blended():
    outputs, losses = [], []

    def step(module, batch):
        x, y = batch
        logits = module(x)
        each = cross_entropy(logits, y, reduction="none")
        losses.append(each.mean().item())
        module.log_dict({"right": (logits.argmax(1) == y).sum(), "rate": 0.1}, on_step=False, on_epoch=True)
        module.log("first", each[0], on_step=True, on_epoch=False, prog_bar=True)
        return {"loss": each.mean(), "logits": logits, "number": 7}

    module = Spy(step)
    module.on_train_batch_end = lambda output, *_: outputs.append(output)
    trainer = fit(module, FixedMixup(3))
    pairs = [WEIGHT * a + (1 - WEIGHT) * b for a, b in zip(losses[::2], losses[1::2], strict=True)]
    assert [output["loss"].item() for output in outputs] == pytest.approx(pairs, rel=1e-6)
    assert outputs[0]["number"] == 7
    assert outputs[0]["logits"].shape == (4, 3)
    assert trainer.callback_metrics["rate"].item() == pytest.approx(0.1)
    assert set(trainer.callback_metrics) == {"right", "rate", "first"}


class Metered(Spy):
    """Updates and logs metrics in the usual ways."""

    def __init__(self):
        super().__init__()
        self.scores = MetricCollection(
            {"acc": MulticlassAccuracy(3), "recall": MulticlassRecall(3), "f1": MulticlassF1Score(3, average="micro")}
        )
        self.single = MulticlassAccuracy(3, average="micro")
        self.held = [MulticlassAccuracy(3, average="micro")]  # in a plain list
        self.steps = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.steps.append(logits.detach())
        self.scores.update(logits, y)
        self.log_dict(self.scores, on_step=False, on_epoch=True)
        self.log("single", self.single(logits, y), on_step=False, on_epoch=True)
        self.log("object", self.single, on_step=True, on_epoch=True)
        self.held[0].update(logits, y)
        return cross_entropy(logits, y)

    def on_train_epoch_end(self):
        self.held_value = self.held[0].compute().item()
        self.held[0].reset()  # Lightning resets the metrics that it knows


def test_metrics_hold_the_blend_of_their_states():
    module = Metered()
    trainer = fit(module, FixedMixup(3), max_epochs=2)
    logits = module.steps[6::2]  # of the second epoch, once a pair
    assert len(module.steps) == 12
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    accuracy = blended_accuracy(logits, WEIGHT)
    for name in ("single", "object_epoch", "f1"):
        assert logged[name] == pytest.approx(accuracy, rel=1e-5)
    assert module.held_value == pytest.approx(accuracy, rel=1e-5)
    hits, counts = torch.zeros(3), torch.zeros(3)
    for scores, (_, y) in zip(logits, batches(), strict=True):
        for weight, target in ((WEIGHT, y), (1 - WEIGHT, y.flip(0))):
            counts += weight * one_hot(target, 3).sum(0)
            hits += weight * (one_hot(target, 3) * (scores.argmax(1) == target)[:, None]).sum(0)
    assert logged["recall"] == pytest.approx((hits / counts).mean().item(), rel=1e-5)
    assert logged["acc"] == pytest.approx(logged["recall"])
    assert module.single.update_count == 0  # Lightning has reset it


def test_a_wrapped_metric_that_the_step_computes():
    def step(module, batch):
        logits = module(batch[0])
        module.classes.update(logits, batch[1])
        module.log_dict(module.classes.compute(), on_step=True, on_epoch=False)
        return cross_entropy(logits, batch[1])

    module = Spy(step)
    module.classes = ClasswiseWrapper(MulticlassRecall(3, average=None))
    trainer = fit(module, FixedMixup(3))
    states = module.classes.metric.tp / (module.classes.metric.tp + module.classes.metric.fn)
    assert list(module.classes.compute().values()) == pytest.approx(states.tolist())
    assert len(trainer.callback_metrics) == 3


def test_states_of_metrics_have_one_type_in_all_batches():
    """Ranks may blend different batches, and add up their states."""
    types = []

    class Half(FixedMixup):
        def draws(self, count, size, generator):
            return super().draws(count, size, generator) if len(types) % 2 else None

    def step(module, batch):
        logits = module(batch[0])
        module.accuracy.update(logits, batch[1])
        return cross_entropy(logits, batch[1])

    module = Spy(step)
    module.accuracy = MulticlassAccuracy(3, average="micro")
    module.on_train_batch_end = lambda *_: types.append(module.accuracy.tp.dtype)
    fit(module, Half(3))
    assert types == [torch.float64] * 3
    assert float(module.accuracy.tp + module.accuracy.fn) == pytest.approx(12)


def test_a_step_that_reads_what_a_hook_collects():
    features = []

    def step(module, batch):
        features.clear()
        logits = module(batch[0])
        return cross_entropy(logits, batch[1]) + features[0].square().mean()

    module = Spy(step)
    module.net[2].register_forward_hook(lambda layer, inputs, output: features.append(output))
    fit(module, FixedMixup(3))
    assert module.net[1].num_batches_tracked == 3


def attack(module, x, y):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(module.net(x), y), x)
    return cross_entropy(module.net((x + 0.1 * gradient.sign()).detach()), y)


def adapt(module, x, y):
    weights = dict(module.net.named_parameters())
    loss = cross_entropy(functional_call(module.net, weights, (x,)), y)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    adapted = {name: each - gradient for (name, each), gradient in zip(weights.items(), gradients, strict=True)}
    return cross_entropy(functional_call(module.net, adapted, (x,)), y)


@pytest.mark.parametrize("loss", [attack, adapt])
def test_a_step_that_differentiates_its_loss(loss):
    module = Spy(lambda module, batch: loss(module, *batch))
    module.net[1] = nn.GroupNorm(2, 4)
    twin = copy.deepcopy(module)
    fit(module, FixedMixup(3))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for x, y in batches():
        mixed = blended_by_hand(FixedMixup(3), x)[0]
        optimizer.zero_grad()
        (WEIGHT * loss(twin, mixed, y) + (1 - WEIGHT) * loss(twin, mixed, y.flip(0))).backward()
        optimizer.step()
    assert difference(module.net.state_dict(), twin.net.state_dict()) < 1e-6


def test_a_step_that_frees_the_graph_is_told_to_keep_it():
    def step(module, batch):
        (gradient,) = torch.autograd.grad(cross_entropy(module(batch[0]), batch[1]), module.net[0].weight)
        return cross_entropy(module(batch[0]), batch[1]) * (1 + gradient.norm())

    with pytest.raises(TypeError, match=r"must keep the graph of layers that run once .* retain_graph=True"):
        fit(Spy(step), FixedMixup(3))


def test_what_a_shared_layer_logs_and_counts_is_logged_and_counted_once():
    class Net(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.net, self.calls, self.log = module.net, SumMetric(), module.log_norm

        def forward(self, x):
            self.calls.update(1.0)
            self.log(x.norm())
            return self.net(x)

    module = Spy(lambda module, batch: cross_entropy(module.outer(batch[0]), batch[1]))
    module.log_norm = lambda value: module.log("norm", value, on_step=False, on_epoch=True)
    module.outer = Net(module)
    trainer = fit(module, FixedMixup(3))
    norms = [blended_by_hand(FixedMixup(3), x)[0].norm() for x, _ in batches()]
    assert module.outer.calls.compute() == 3
    assert trainer.callback_metrics["norm"].item() == pytest.approx(float(sum(norms)) / 3, rel=1e-5)


def test_a_metric_of_sums_and_counts_computes():
    seen, values = [], []

    def step(module, batch):
        predicted = module(batch[0])[:, 0]
        module.r2.update(predicted, batch[1])
        seen.append((predicted.detach(), batch[1]))
        return (predicted - batch[1]).square().mean()

    module = Spy(step)
    module.r2 = R2Score()
    module.on_train_epoch_end = lambda: values.append(module.r2.compute().item())
    x, y = data()
    fit(module, FixedMixup(), x, y.float())
    predicted, target = (torch.cat(each) for each in zip(*seen, strict=True))
    weights = torch.tensor([WEIGHT, 1 - WEIGHT]).repeat_interleave(4).repeat(3)
    spread = target - (weights * target).sum() / weights.sum()
    expected = 1 - (weights * (predicted - target).square()).sum() / (weights * spread.square()).sum()
    assert values[0] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(
    "metric", [RunningMean(3), *(kind(MulticlassAccuracy(3)) for kind in (Running, BootStrapper, MinMaxMetric))]
)
def test_metrics_that_keep_more_than_states_are_refused(metric):
    def step(module, batch):
        logits = module(batch[0])
        module.metric.update(*((logits.mean(),) if isinstance(metric, RunningMean) else (logits, batch[1])))
        return cross_entropy(logits, batch[1])

    module = Spy(step)
    module.metric = metric
    with pytest.raises(
        TypeError, match=f"got {type(metric).__name__}, whose (window|samples|extremes) cannot be blended"
    ):
        fit(module, FixedMixup(3))


def test_a_metric_with_other_states_than_sums_is_refused_and_left_as_it_was():
    def step(module, batch):
        logits = module(batch[0])
        module.accuracy.update(logits, batch[1])
        module.auroc.update(logits, batch[1])
        return cross_entropy(logits, batch[1])

    module = Spy(step)
    module.accuracy, module.auroc = MulticlassAccuracy(3), MulticlassAUROC(3)
    with pytest.raises(TypeError, match="got MulticlassAUROC, whose preds, target cannot be blended"):
        fit(module, FixedMixup(3))
    assert module.accuracy.update_count == 0
    assert module.accuracy.tp.sum() == 0
    assert "log" not in vars(module)
    assert not any("_call_impl" in vars(each) for each in module.modules())


LOSSES = {
    "nll": lambda logits, y: nll_loss(logits.log_softmax(1), y),
    "ignore_index": lambda logits, y: cross_entropy(logits, torch.where(y == 2, -100, y), ignore_index=-100),
    "a class for each": lambda logits, y: binary_cross_entropy_with_logits(logits, one_hot(y, 3).float()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_hard_targets_stay_right(name):
    module = Spy(lambda module, batch: LOSSES[name](module(batch[0]), batch[1]))
    twin = copy.deepcopy(module)
    fit(module, FixedMixup(3))
    by_hand(twin, FixedMixup(3), batches(), LOSSES[name])
    assert difference(module.state_dict(), twin.state_dict()) < 1e-6


@pytest.mark.parametrize("targets", ["pair", "soft"])
def test_several_labels_an_image(targets):
    x, y = data()
    several = torch.stack([y == 0, y > 0, y > 1], 1).float()
    module = Spy(lambda module, batch: binary_cross_entropy_with_logits(module(batch[0]), batch[1]))
    twin = copy.deepcopy(module)
    fit(module, FixedMixup(targets=targets), x, several)
    pieces = list(zip(x.split(4), several.split(4), strict=True))
    by_hand(twin, FixedMixup(), pieces, binary_cross_entropy_with_logits)  # this loss is linear in the targets
    assert difference(module.state_dict(), twin.state_dict()) < 1e-6


def test_masks_are_paired():
    x, _ = data()
    masks = (x[:, 0] > 0).long()
    module = Spy(lambda module, batch: cross_entropy(module.segment(batch[0]), batch[1]))
    module.segment = nn.Conv2d(1, 2, 1)
    twin = copy.deepcopy(module)
    fit(module, FixedMixup(2), x, masks)
    twin.net = twin.segment
    by_hand(twin, FixedMixup(2), list(zip(x.split(4), masks.split(4), strict=True)))
    assert difference(module.segment.state_dict(), twin.segment.state_dict()) < 1e-6


@pytest.mark.parametrize("draw", ["batch", "image"])
def test_soft_targets_are_the_blended_probabilities(draw):
    seen = []

    def step(module, batch):
        seen.append(batch)
        return cross_entropy(module(batch[0]), batch[1])

    module = Spy(step)
    fit(module, FixedMixup(3, targets="soft", draw=draw))
    assert len(seen) == 3
    for (x, y), (mixed, soft) in zip(batches(), seen, strict=True):
        torch.testing.assert_close(mixed, WEIGHT * x + (1 - WEIGHT) * x.flip(0))
        torch.testing.assert_close(soft, WEIGHT * one_hot(y, 3).float() + (1 - WEIGHT) * one_hot(y.flip(0), 3).float())


def test_soft_targets_stay_soft_after_until():
    shapes = []

    def step(module, batch):
        shapes.append(tuple(batch[1].shape))
        return cross_entropy(module(batch[0]), batch[1])

    fit(Spy(step), Mixup(3, targets="soft", until=0.5))
    assert shapes == [(4, 3)] * 3


def scored(module, batch):
    logits = module(batch[0])
    module.accuracy(logits, batch[1])
    return cross_entropy(logits, batch[1])


SOFT = {
    "metric": (scored, "`targets` must be 'pair' beside MulticlassAccuracy"),
    "nll": (
        lambda module, batch: nll_loss(module(batch[0]).log_softmax(1), batch[1]),
        "`targets` must be 'pair' where `training_step` takes hard targets",
    ),
    "argmax": (
        lambda module, batch: (module(batch[0]).argmax(1) == batch[1]).float().mean(),
        "`targets` must be 'pair' where `training_step` compares classes with targets",
    ),
    "conversion": (
        lambda module, batch: cross_entropy(module(batch[0]), batch[1].long()[:, 0]),
        "`targets` must be 'pair' where `training_step` converts targets to classes",
    ),
    "a function of torchmetrics": (
        lambda module, batch: multiclass_accuracy(module(batch[0]), batch[1], 3),
        "`targets` must be 'pair' beside multiclass_accuracy",
    ),
}


@pytest.mark.parametrize("name", SOFT)
def test_soft_targets_are_refused_where_the_step_takes_hard_ones(name):
    step, message = SOFT[name]
    module = Spy(step)
    module.accuracy = MulticlassAccuracy(3, validate_args=False)
    with pytest.raises(TypeError, match=message):
        fit(module, Mixup(3, targets="soft"), batch_size=3)  # (3,) broadcasts with (3, 3)


def test_an_error_of_memory_is_no_error_of_the_targets():
    def step(module, batch):
        raise torch.cuda.OutOfMemoryError("out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        fit(Spy(step), Mixup(3, targets="soft"))


def test_a_step_sees_plain_tensors_beside_its_soft_targets():
    kinds = []

    def step(module, batch):
        logits = module(batch[0])
        targets = batch[1].to(logits.dtype)[:, :]
        kinds.extend(map(type, (logits, targets.sum(), cross_entropy(logits, targets))))
        return cross_entropy(logits, targets)

    fit(Spy(step), Mixup(3, targets="soft"))
    assert set(kinds) == {torch.Tensor}


def test_the_sampled_blend_leaves_the_batch_and_the_random_state_alone():
    states = []

    class Watching(Spy):
        def on_train_batch_start(self, batch, batch_idx):
            states.append((batch[0].clone(), torch.get_rng_state()))

        def on_train_batch_end(self, outputs, batch, batch_idx):
            before, state = states[-1]
            assert torch.equal(batch[0], before)
            assert torch.equal(torch.get_rng_state(), state)

    fit(Watching(), Mixup(3, alpha=1.0, seed=0))
    assert len(states) == 3


def test_until_and_probability():
    seen = []

    def step(module, batch):
        seen.append(any(torch.equal(batch[0], x) for x, _ in batches()))
        return cross_entropy(module(batch[0]), batch[1])

    fit(Spy(step), Mixup(3, alpha=1.0, until=0.5, seed=0), max_epochs=2)
    assert seen == [False] * 6 + [True] * 3  # two calls for each blended batch
    seen.clear()
    fit(Spy(step), Mixup(3, alpha=1.0, probability=0.5, seed=0), max_epochs=20)
    plain = sum(seen)
    assert 15 < plain < 45
    assert (len(seen) - plain) / 2 + plain == 60


def test_a_last_batch_of_one_image_is_left_as_it_is():
    seen = []

    def step(module, batch):
        seen.append(len(batch[0]))
        return cross_entropy(module(batch[0]), batch[1])

    x, y = data()
    fit(Spy(step), Mixup(3), x[:5], y[:5])
    assert seen == [4, 4, 1]


ARGUMENTS = {
    "alpha": ({"alpha": 0}, "`alpha` must be at least 0.01, got 0. To train without blends"),
    "targets": ({"targets": "hard"}, "`targets` must be one of 'pair', 'soft'"),
    "draw": ({"draw": "image"}, "`draw` must be 'batch' for targets='pair'"),
    "probability": ({"probability": 1.5}, "`probability` must be above 0 and at most 1"),
    "num_classes": ({"num_classes": 1}, "`num_classes` must be at least 2"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name):
    arguments, message = ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        Mixup(**arguments)


def test_steps_that_cannot_be_called_with_pairs_are_refused_before_training():
    module = Spy()
    module.automatic_optimization = False
    with pytest.raises(TypeError, match="`automatic_optimization` must be True for targets='pair'"):
        fit(module, Mixup(3))
    with pytest.raises(TypeError, match="got a LightningModule compiled as a whole"):
        fit(torch.compile(Spy(), backend="eager"), Mixup(3))


REFUSED = {
    "range": (Mixup(2), {}, ValueError, "must be a class index from 0 to 1, got 2 for image 2 of the first batch"),
    "bytes": (Mixup(3), {"x": torch.zeros(8, 1, 4, 4).byte()}, TypeError, "`image` must be floating point"),
    "nan": (Mixup(3), {"x": data(8)[0].log()}, ValueError, "got NaN or infinity in image 0"),
    "one image": (Mixup(3), {"batch_size": 1}, ValueError, "`batch_size` must be at least 2 to blend images"),
    "no classes": (Mixup(targets="soft"), {}, ValueError, "`num_classes` must be given for class indices"),
    "columns": (
        Mixup(4, targets="soft"),
        {"y": torch.zeros(8, 3)},
        ValueError,
        "`num_classes` must be 3 for targets",
    ),
    "soft masks": (
        Mixup(3, targets="soft"),
        {"y": torch.zeros(8, 4, 4).long()},
        TypeError,
        "class indices .N,. for targets='soft'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_batches_that_have_no_blend(name):
    callback, options, error, message = REFUSED[name]
    x, y = data(8)
    with pytest.raises(error, match=message):
        fit(Spy(), callback, **{"x": x, "y": y, **options})


def test_targets_of_other_kinds_are_refused():
    images = torch.rand(4, 1, 4, 4)
    boxes = [torch.rand(count, 4) for count in (1, 2, 3, 1)]
    loader = DataLoader(TensorDataset(images), 4, collate_fn=lambda rows: (images, boxes))
    with pytest.raises(TypeError, match="`target` must be a tensor, got list"):
        toy_trainer(Mixup(3)).fit(Spy(), loader)


STRANGE = {
    "a class": lambda module, loss, y: {"loss": loss, "target": y},
    "text": lambda module, loss, y: {"loss": loss, "note": str(y)},
}


@pytest.mark.parametrize("name", STRANGE)
def test_returned_values_without_a_blend_are_refused(name):
    def step(module, batch):
        return STRANGE[name](module, cross_entropy(module(batch[0]), batch[1]), batch[1])

    with pytest.raises(TypeError, match=r"`training_step\['(target|note)'\]` must be a float tensor or a number"):
        fit(Spy(step), FixedMixup(3))


def test_names_that_one_call_alone_logs_are_refused():
    def step(module, batch):
        loss = cross_entropy(module(batch[0]), batch[1])
        module.log(f"loss_{int(batch[1][0])}", loss)
        return loss

    x, y = data()
    with pytest.raises(ValueError, match=r"must log the same names .* got \['loss_0', 'loss_2'\] for one alone"):
        fit(Spy(step), FixedMixup(3), x, y, batch_size=3)


def test_two_blends_side_by_side():
    with pytest.raises(ValueError, match=r"Write Blend\(\[Mixup\(...\), CutMix\(...\)\]\)"):
        toy_trainer(Mixup(3), CutMix(3)).fit(Spy(), DataLoader(TensorDataset(*data()), 4))


def test_a_step_without_a_loss_stays_so():
    module = Spy(lambda module, batch: None)
    before = copy.deepcopy(module.state_dict())
    with pytest.warns(UserWarning, match="`training_step` returned `None`"):
        fit(module, FixedMixup(3))
    assert difference(module.state_dict(), before) == 0
