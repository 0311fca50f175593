"""Outputs that are no class scores are refused in the first batch of a stage, whichever callback averages them."""

import logging
from typing import NamedTuple

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import EnsembleAverage, MonteCarloDropout, TestTimeAugmentation
from tests.toy import toy_trainer

N, C = 20, 4
X = torch.randn(N, 1, 3, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % C
MANY = (torch.arange(N * C).view(N, C) % 3 == 0).float()


def make_net(outputs=C):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(9, outputs))


class Module(L.LightningModule):
    """Gives its net's output to a function of output and target."""

    def __init__(self, step=lambda out, target: None):
        super().__init__()
        self.net, self.step, self.seen = make_net(), step, []

    def forward(self, x):
        return self.net(x)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        out = self.net(batch[0])
        self.seen.append(out)
        self.step(out, batch[-1])

    validation_step = test_step

    def predict_step(self, batch):
        out = self(batch[0])
        self.step(out, None)
        return out


def classes(out, target):
    return F.cross_entropy(out, target)


def multi_label(out, target):
    return F.binary_cross_entropy_with_logits(out, target.float() if target.ndim == 2 else F.one_hot(target, C).float())


def callbacks(**options):
    return [
        TestTimeAugmentation("flip", target="net", **options),
        EnsembleAverage([make_net(), make_net()], target="net", **options),
        MonteCarloDropout(2, target="net", **options),
    ]


def loader(*targets):
    return DataLoader(TensorDataset(X, *targets), 5)


def evaluate(module, callback, targets=LABELS, stage="test", **options):
    run = getattr(toy_trainer(callback, **options), stage)
    return run(module, loader(targets), **({} if stage == "predict" else {"verbose": False}))


@pytest.mark.parametrize("stage", ["test", "validate"])
@pytest.mark.parametrize("index", range(3))
def test_each_callback_refuses_and_leaves_no_trace(index, stage):
    module = Module(multi_label)
    step = "test_step" if stage == "test" else "validation_step"
    text = f"`target` must return class scores, .*, got 'net', whose outputs {step} passes to binary_cross_entropy_with"
    with pytest.raises(ValueError, match=text):
        evaluate(module, callbacks(stages=stage)[index], MANY, stage)
    assert len(module.seen) == 1
    assert "forward" not in vars(module.net)
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("index", range(3))
def test_whoever_insists_gets_softmax(index):
    module = Module(multi_label)
    evaluate(module, callbacks(output="classes")[index], MANY)
    out = torch.cat(module.seen)
    torch.testing.assert_close(out.exp().sum(1), torch.ones(N))


@pytest.mark.parametrize("output", ["sigmoid", None, 1])
def test_what_may_be_insisted_on(output):
    with pytest.raises((ValueError, TypeError), match="`output` must be one of 'auto', 'classes'"):
        TestTimeAugmentation("flip", output=output)


def test_callbacks_with_one_target_look_once_and_one_may_insist():
    flip = TestTimeAugmentation("flip", target="net")
    for insists in (False, True):
        others = [MonteCarloDropout(2, target="net", output="classes" if insists else "auto")]
        module = Module(multi_label)
        trainer = toy_trainer(flip, *others)
        if insists:
            trainer.test(module, loader(MANY), verbose=False)
        else:
            with pytest.raises(ValueError, match="passes to binary_cross"):
                trainer.test(module, loader(MANY), verbose=False)
        assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("targets", [MANY, MANY.long(), torch.randn(N, C), torch.randn(N)])
def test_targets_of_the_batch_count_where_the_step_shows_nothing(targets):
    with pytest.raises(ValueError, match=r"'net', whose outputs have targets \(5.* in the batch\. Name the submodule"):
        evaluate(Module(), TestTimeAugmentation("flip", target="net"), targets)


@pytest.mark.parametrize("targets", [LABELS, F.one_hot(LABELS, C), 0.7 * F.one_hot(LABELS, C) + 0.3 / C])
def test_class_targets_pass(targets, caplog):
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        evaluate(Module(), TestTimeAugmentation("flip", target="net"), targets)
    assert "averages class probabilities" not in caplog.text


def test_predict_goes_by_an_earlier_stage(caplog):
    callback, module = TestTimeAugmentation("flip", target="net"), Module()
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        evaluate(module, callback, MANY, "predict")
        line = "TestTimeAugmentation averages class probabilities: predict_step shows no other use of 'net'."
        assert caplog.text.count(line) == 1
        evaluate(Module(classes), callback)
        evaluate(module, callback, MANY, "predict")
        assert caplog.text.count(line) == 1
    with pytest.raises(ValueError, match="test_step passes to binary_cross"):
        evaluate(Module(multi_label), callback)
    with pytest.raises(ValueError, match="test_step passes to binary_cross"):
        evaluate(module, callback, LABELS, "predict")


def test_predict_step_may_show_it():
    with pytest.raises(ValueError, match="whose outputs predict_step passes to sigmoid"):
        evaluate(Module(lambda out, _: out.sigmoid()), TestTimeAugmentation("flip", target="net"), stage="predict")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("step", [classes, multi_label])
def test_precisions(step, precision):
    callback = TestTimeAugmentation("flip", target="net")
    if step is classes:
        evaluate(Module(step), callback, precision=precision)
    else:
        with pytest.raises(ValueError, match="passes to binary_cross"):
            evaluate(Module(step), callback, MANY, precision=precision)


def in_place(module):
    module.net.compile(backend="eager")
    return module


def wrapped(module):
    module.net = torch.compile(module.net, backend="eager")
    return module


def step_too(module):
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("compile_it", [in_place, wrapped, step_too])
@pytest.mark.parametrize("before", [False, True])
def test_compiled_modules(compile_it, before):
    torch._dynamo.reset()
    module = compile_it(Module(classes))
    evaluate(module, *([TestTimeAugmentation("flip", target="net")] if not before else [L.Callback()]))
    evaluate(module, TestTimeAugmentation("flip", target="net"))
    module = compile_it(Module(multi_label))
    text = "have targets" if compile_it is step_too else "passes to binary_cross"
    with pytest.raises(ValueError, match=text):
        evaluate(module, TestTimeAugmentation("flip", target="net"), MANY)


def test_a_compiled_head_behind_the_target_is_not_looked_into():
    torch._dynamo.reset()
    module = Module()
    module.head = torch.compile(nn.Linear(C, 3), backend="eager", fullgraph=True)
    module.step = lambda out, target: module.head(out).softmax(1)
    evaluate(module, TestTimeAugmentation("flip", target="net"))


def test_a_stage_that_is_not_averaged_is_said(caplog):
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        evaluate(Module(), TestTimeAugmentation("flip", target="net"), stage="validate")
    text = "TestTimeAugmentation does not average in trainer.validate: its stages are test, predict."
    assert caplog.text.count(text) == 1


class Fields(dict):
    """As transformers' outputs: fields that are keys."""


class Attributes:
    def __init__(self, logits):
        self.logits = logits


class GoogLeNetOutputs(NamedTuple):
    logits: torch.Tensor
    aux_logits: torch.Tensor


@pytest.mark.parametrize("kind", ["dict", "named tuple", "object"])
def test_objects_with_logits(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_net()

        def forward(self, x):
            out = self.inner(x)
            if kind == "named tuple":  # as torchvision's Inception and GoogLeNet with `aux_logits`
                return GoogLeNetOutputs(out, out)
            return Fields(logits=out, loss=None) if kind == "dict" else Attributes(out)

    module = Module()
    module.net = Net()
    with pytest.raises(ValueError, match=r"must return logits \(N, C\) as one tensor, got .* with .*logits.* alone"):
        evaluate(module, TestTimeAugmentation("flip", target="net"))


@pytest.mark.parametrize("shape", [(12, 12, 3), (8, 6, 1), (7, 5, 4)])
def test_images_with_channels_last(shape):
    class Net(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :C]

    module, x = Module(), torch.randn(N, *shape)
    module.net = Net()
    data = DataLoader(TensorDataset(x, LABELS), 5)
    text = r"got \(5, .*\), which looks like \(N, height, width, channels\)\. Call it with x\.permute\(0, 3, 1, 2\)"
    with pytest.raises(ValueError, match=text):
        toy_trainer(TestTimeAugmentation("flip", target="net")).test(module, data, verbose=False)
    toy_trainer(TestTimeAugmentation(lambda x: x.flip(2), target="net")).test(module, data, verbose=False)
