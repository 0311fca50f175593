"""Step 1 passes healthy modules, and names the planted fault of others."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18

from lightning_trainingkit import DigitsDataModule, ImageClassifier
from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning import check_initial_loss
from tests.toy import difference
from tests.tuning.planted import CPU, Plain, loader, net, points

X, Y = points(256)


def check(module, data=None, **options):
    torch.manual_seed(0)
    return check_initial_loss(module, loader(X, Y) if data is None else data, trainer_options=CPU, **options)


def hinge(scores, target):
    margins = (scores - scores.gather(1, target[:, None]) + 1).clamp(min=0)
    return (margins.sum(1) - 1).mean()


def log_likelihood(scores, target):
    return -scores.log_softmax(1)[torch.arange(len(target)), target].mean()


def of_all(scores, target):
    return functional.binary_cross_entropy_with_logits(scores, functional.one_hot(target, 4).float())


def regression(scores, target):
    return functional.mse_loss(scores[:, 0], target - 1.5)


@pytest.mark.parametrize(
    ("loss", "expected", "name"),
    [
        (functional.cross_entropy, math.log(4), "cross_entropy"),
        (nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum"), 8 * math.log(4), "cross_entropy"),
        (functional.multi_margin_loss, 3 / 4, "multi_margin_loss"),
        (hinge, 3, "hinge"),
        (log_likelihood, math.log(4), "the loss"),
        (of_all, math.log(2), "binary_cross_entropy_with_logits"),
        (regression, 1.25, "mse_loss"),
    ],
)
def test_healthy_modules_pass_and_chance_is_the_lectures(loss, expected, name):
    answer = check(Plain(net(), loss))
    assert answer.verdict == "pass", answer.line
    assert answer.expected == pytest.approx(expected, rel=0.2 if loss is regression else 1e-4)
    assert (answer.loss_name, len(answer.losses)) == (name, 8)


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_the_kits_classifier_passes(loss):
    module = ImageClassifier("small_resnet", 10, model_options={"in_channels": 1}, loss=loss)
    answer = check(module, DigitsDataModule())
    assert (answer.verdict, answer.notes) == ("pass", ())
    assert answer.expected == pytest.approx({"hinge": 9, "cross_entropy": math.log(10)}[loss])


def test_resnet18_and_a_segmentation_pass():
    images, classes = torch.randn(16, 3, 32, 32), torch.arange(16) % 4
    assert check(Plain(resnet18(num_classes=4)), loader(images, classes)).verdict == "pass"
    masks = (images[:, 0] > 0).long()
    assert check(Plain(nn.Conv2d(3, 2, 3, padding=1)), loader(images, masks)).verdict == "pass"


def test_penalties_are_left_out_and_named():
    class Penalised(Plain):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) + sum(each.square().sum() for each in self.parameters())

    answer = check(Penalised(net()))
    assert answer.verdict == "pass"
    assert "was left out" in answer.notes[0]


def test_a_contrastive_loss_may_begin_below_chance():
    class Pairs(Plain):
        def training_step(self, batch, batch_idx):
            codes = functional.normalize(self.net(batch[0]))
            return functional.cross_entropy(codes @ codes.T / 0.1, torch.arange(len(codes)))

    answer = check(Pairs(net()))
    assert answer.value < 0.8 * answer.expected
    assert answer.verdict == "pass", answer.line


def last_times_100():
    model = net()
    with torch.no_grad():
        model[-1].weight *= 100
    return model


@pytest.mark.parametrize(
    ("module", "data", "verdict", "kind", "words"),
    [
        (lambda: Plain(last_times_100()), (X, Y), "fail", "wrong_initial_loss", "outputs of net.4 are too large"),
        (lambda: Plain(net()), (100 * X, Y), "fail", "wrong_initial_loss", "input is not scaled"),
        (
            lambda: Plain(last_times_100(), hinge),
            (X, Y),
            "fail",
            "wrong_initial_loss",
            "outputs of net.4 are too large",
        ),
        (
            lambda: Plain(nn.Sequential(net(), nn.Softmax(1))),
            (X, Y),
            "fail",
            "softmax_before_loss",
            "applies softmax itself",
        ),
        (lambda: Plain(net(3)), (X, Y), "fail", "wrong_number_of_classes", "Give the last layer 4 outputs"),
        (lambda: Plain(net()), (X, Y + 1), "fail", "wrong_number_of_classes", "subtract 1"),
        (lambda: Plain(net()), (X, Y - 1), "fail", "wrong_number_of_classes", "ignore_index=-1"),
        (lambda: Plain(net(1)), (X, 0 * Y), "fail", "wrong_number_of_classes", "softmax of one output"),
        (lambda: Plain(net(1000)), (X, Y), "warn", "many_unused_classes", "has 1000 outputs"),
        (
            lambda: Plain(net(), lambda x, y: -functional.cross_entropy(x, y)),
            (X, Y),
            "fail",
            "wrong_loss_sign",
            "negative",
        ),
        (
            lambda: Plain(net(), lambda x, y: functional.cross_entropy(x.detach(), y)),
            (X, Y),
            "fail",
            "parameters_not_trained",
            "",
        ),
        (lambda: Plain(net()), (X / 0, Y), "fail", "non_finite", "not finite"),
    ],
)
def test_faults_are_named(module, data, verdict, kind, words):
    torch.manual_seed(0)
    answer = check(module(), loader(*data))
    assert (answer.verdict, answer.findings[0].kind) == (verdict, kind), answer.line
    assert words in answer.line


def test_a_binary_hinge_by_hand_takes_labels_of_both_signs():
    def binary_hinge(scores, target):
        return (1 - scores[:, 0] * target).clamp(min=0).mean()

    answer = check(Plain(net(1), binary_hinge), loader(X, 2 * (Y % 2) - 1))
    assert (answer.verdict, answer.expected) == ("pass", 1)


def test_a_trained_module_is_a_warning():
    module = Plain(nn.Linear(4, 4))
    with torch.no_grad():
        module.net.weight.copy_(20 * torch.eye(4))
    answer = check(module, loader(functional.one_hot(Y, 4).float(), Y))
    assert (answer.verdict, answer.findings[0].kind) == ("warn", "starts_below_chance")


def test_mixup_in_the_step_is_no_leak():
    class Mixup(Plain):
        def training_step(self, batch, batch_idx):
            (x, y), order = batch, torch.randperm(len(batch[1]))
            scores = self.net(0.7 * x + 0.3 * x[order])
            return 0.7 * self.loss(scores, y) + 0.3 * self.loss(scores, y[order])

    assert check(Mixup(net())).verdict == "pass"


def test_unknown_losses_ask_for_the_expected_one():
    module = Plain(nn.Sequential(nn.PReLU()), lambda x, y: x.square().mean())
    answer = check(module)
    assert (answer.verdict, answer.expected) == ("warn", None)
    assert "`expected=math.log(10)`" in answer.advice
    assert check(module, expected=0.6).verdict == "pass"
    assert check(module, expected=0.01).verdict == "warn"


def test_manual_optimization_and_the_user_see_no_change():
    class Manual(Plain):
        def __init__(self, *args):
            super().__init__(*args)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(super().training_step(batch, batch_idx))
            self.optimizers().step()

    module = Manual(net())
    before = {name: each.clone() for name, each in module.state_dict().items()}
    answer = check(module)
    assert (answer.verdict, len(set(answer.losses))) == ("pass", 8)
    assert difference(before, module.state_dict()) == 0
    assert "training_step" not in vars(module)


def test_bad_input():
    class Silent(Plain):
        def training_step(self, batch, batch_idx):
            return None

    with pytest.raises(ValueError, match="`training_step` must return a loss, got None"):
        check(Silent(net()))
    with pytest.raises(ValueError, match="`batches` must be at least 1"):
        check(Plain(net()), batches=0)
    with pytest.raises(ValueError, match="`expected` must be finite"):
        check(Plain(net()), expected=math.nan)
    with pytest.raises(ValueError, match="`data` must give training batches, got NoneType"):
        check_initial_loss(Plain(net()), None)
    with pytest.raises(ValueError, match="`data` must give training batches, got LightningDataModule"):
        check(Plain(net()), L.LightningDataModule())
