"""Step 2 passes healthy modules, and names the planted fault of others."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from lightning_trainingkit import DigitsDataModule, ImageClassifier
from lightning_trainingkit.tuning import overfit_small_sample
from tests.toy import difference
from tests.tuning.planted import CPU, Plain, Points, loader, net, points

X, Y = points()


def learn(module, data=None, **options):
    torch.manual_seed(0)
    options = {"max_steps": 300, **options}
    return overfit_small_sample(module, loader(X, Y) if data is None else data, trainer_options=CPU, **options)


def pairs(scores, target):
    return functional.binary_cross_entropy_with_logits(scores, functional.one_hot(target, 4).float())


@pytest.mark.parametrize("loss", [functional.cross_entropy, functional.multi_margin_loss, pairs])
def test_healthy_modules_pass(loss):
    module = Plain(net(), loss)
    before = copy.deepcopy(module.state_dict())
    answer = learn(module, max_steps=1000)
    assert answer.verdict == "pass", answer.line
    assert answer.accuracies[-1] >= 0.99
    assert len(answer.losses) == len(answer.accuracies) == answer.steps // 5
    assert answer.switched_off == ("weight decay (0.0001)",)
    assert difference(before, module.state_dict()) == 0


def test_regression_and_losses_by_hand_end_at_a_tenth():
    regression = learn(Plain(net(), lambda x, y: functional.mse_loss(x[:, 0], y.float()), lr=0.03))
    assert (regression.verdict, regression.accuracies) == ("pass", ())
    by_hand = learn(Plain(net(), lambda x, y: (x[:, 0] - y).abs().mean(), lr=0.03), max_steps=600)
    assert by_hand.verdict == "pass", by_hand.line


def test_a_segmentation_passes():
    images = torch.randn(40, 1, 8, 8)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    answer = learn(Plain(model), loader(images, (images[:, 0] > 0).long()))
    assert answer.verdict == "pass", answer.line


@pytest.mark.slow  # the docstring's example shows it too
def test_the_kits_classifier_passes_without_its_schedule():
    module = ImageClassifier("small_resnet", 10, model_options={"in_channels": 1, "width": 8})
    answer = learn(module, DigitsDataModule(16))
    assert (answer.verdict, answer.notes[:-1]) == ("pass", ())
    assert answer.switched_off == ("weight decay (0.01)", "the learning-rate schedule")


def test_what_hinders_is_switched_off_and_named():
    class Hindered(Plain):
        def training_step(self, batch, batch_idx):
            x, y = batch
            penalty = 0.1 * sum(each.square().sum() for each in self.parameters())
            return self.loss(self.net(functional.dropout(x, 0.5)), y) + penalty

        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 1000)]

    model = net()
    model[1] = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
    data = DataLoader(Points(X, Y, change_x=lambda x: x + torch.randn(8)), 8)
    answer = learn(Hindered(model), data)
    assert answer.verdict == "pass", answer.line
    off = ", ".join(answer.switched_off)
    for name in ("Dropout (net.1.1)", "weight decay", "schedule", "F.dropout", "penalties (", "random transforms"):
        assert name in off


def test_a_loss_with_a_mask_counts_the_predictions_that_it_uses():
    def masked(scores, target):
        used = (target != 0).float()
        return (functional.cross_entropy(scores, target, reduction="none") * used).sum() / used.sum()

    answer = learn(Plain(net(), masked))
    assert answer.verdict == "pass", answer.line
    assert answer.accuracies[-1] == 1


def test_another_term_that_keeps_predictions_from_being_right_is_a_warning():
    class Distilled(Plain):
        def training_step(self, batch, batch_idx):
            scores = self.net(batch[0])
            against = functional.kl_div(scores.log_softmax(1), batch[0][:, :4].softmax(1), reduction="batchmean")
            return functional.cross_entropy(scores, batch[1]) + 9 * against

    answer = learn(Distilled(net()), max_steps=100)
    assert (answer.verdict, answer.findings[0].kind) == ("warn", "other_terms"), answer.line


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
@pytest.mark.parametrize("rate", [0.0, None])
def test_a_rate_of_zero_and_no_optimizer_are_refused(rate):
    class Idle(Plain):
        def configure_optimizers(self):
            return None if rate is None else torch.optim.SGD(self.parameters(), lr=rate)

    with pytest.raises(ValueError, match="`configure_optimizers` must give a positive learning rate"):
        learn(Idle(net()))


def test_frozen_layers_of_a_sample_that_is_learnt_are_named():
    model = net(width=128)
    model[0].requires_grad_(False)
    answer = learn(Plain(model))
    assert answer.verdict == "pass", answer.line
    assert "of the parameters are frozen: net.0." in answer.notes[0]


def frozen():
    model = net(width=4)
    model[:-1].requires_grad_(False)
    return model


class ShuffledInTheStep(Plain):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self.net(x), y[torch.randperm(len(y))])


class Detached(Plain):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self.net[-1](self.net[:-1](x).detach()), y)


class NeverSteps(Plain):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer_closure()


def constant():
    model = net()
    for each in model.parameters():
        nn.init.constant_(each, 0.1)
    return model


def collate_shuffled(examples):
    x, y = zip(*examples, strict=True)
    return torch.stack(x), torch.stack(y)[torch.randperm(len(y))]


SHUFFLED = DataLoader(Points(X, Y, change_y=lambda y: torch.randint(4, ())), 8)
TWICE = X.clone(), torch.where(torch.arange(64) == 30, 1 - Y[2].clamp(max=1), Y)
TWICE[0][30] = X[2]
NARROW = nn.Sequential(nn.Linear(8, 1), nn.ReLU(), nn.Linear(1, 4))


@pytest.mark.parametrize(
    ("module", "data", "kind", "words"),
    [
        (lambda: Plain(net(), lr=1e-5), None, "rate_too_low", "too low"),
        (lambda: Plain(net(), lr=1e3), None, "rate_too_high", "too high"),
        (lambda: Plain(constant()), None, "symmetric_units", "net.0"),
        (lambda: Plain(net()), SHUFFLED, "labels_change", "the data set"),
        (lambda: ShuffledInTheStep(net()), None, "labels_change", "`training_step` runs again"),
        (lambda: Plain(net()), loader(X, Y, collate_fn=collate_shuffled), "labels_change", "`collate_fn` runs again"),
        (lambda: Plain(frozen()), None, "frozen_parameters", "are frozen: net.0, net.2"),
        (lambda: Plain(net().requires_grad_(False)), None, "parameters_not_trained", "no gradient"),
        (lambda: Detached(net(width=2)), None, "parameters_not_trained", "net.0, net.2"),
        (lambda: NeverSteps(net()), None, "parameters_not_trained", "made no step"),
        (
            lambda: Plain(nn.Sequential(net(), nn.Softmax(1)), lr=0.01),
            None,
            "softmax_before_loss",
            "applies softmax itself",
        ),
        (lambda: Plain(net(3)), None, "wrong_number_of_classes", "Give the last layer 4 outputs"),
        (lambda: Plain(net()), loader(*TWICE, shuffle=False), "two_labels", "examples 2 and 30 (labels"),
        (
            lambda: Plain(net(), lambda x, y: -functional.cross_entropy(x, y), lr=1e-3),
            None,
            "wrong_loss_sign",
            "negative",
        ),
    ],
)
def test_faults_are_named(module, data, kind, words):
    torch.manual_seed(0)
    answer = learn(module(), data, max_steps=60)
    assert (answer.verdict, answer.findings[0].kind) == ("fail", kind), answer.line
    assert words in answer.line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "kind", "words"),
    [
        (lambda: Plain(net(), lr=1e-8), "rate_too_low", "too low"),
        (lambda: Plain(net(), lr=1e3), "rate_too_high", "too high"),
        (lambda: Plain(NARROW), "model_too_small", "net.0, has 1 outputs"),
    ],
)
def test_faults_that_take_many_trials_are_named(module, kind, words):
    torch.manual_seed(0)
    answer = learn(module())
    assert (answer.verdict, answer.findings[0].kind) == ("fail", kind), answer.line
    assert words in answer.line


def test_a_fault_beside_success_is_a_warning():
    answer = learn(Plain(nn.Sequential(nn.Linear(8, 4), nn.Softmax(1))), loader(X[:6], Y[:6]))
    assert (answer.verdict, answer.findings[0].kind) == ("warn", "softmax_before_loss"), answer.line


def test_labels_that_change_with_the_input_are_a_warning():
    data = DataLoader(Points(X, Y, lambda x: x + torch.randn(8), lambda y: torch.randint(4, ())), 8)
    assert learn(Plain(net()), data).findings[0].kind == "labels_change_with_input"


def test_labels_that_were_shuffled_once_can_be_learnt():
    assert learn(Plain(net()), loader(X, Y.flip(0))).verdict == "pass"


class WholeBatches(Points):
    """Its ``__getitems__`` gives the tensors of a whole batch."""

    def __getitems__(self, indices):
        return self.x[indices], self.y[indices]


def test_streams_dicts_whole_batches_and_small_sets():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from zip(X, Y, strict=True)

    class Named(Plain):
        def training_step(self, batch, batch_idx):
            return {"loss": self.loss(self.net(batch["x"]), batch["y"])}

    assert learn(Plain(net()), DataLoader(Stream(), 8)).verdict == "pass"
    named = [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)]
    assert learn(Named(net()), DataLoader(named, 8)).verdict == "pass"
    whole = DataLoader(WholeBatches(X, Y), 8, shuffle=True, collate_fn=lambda batch: batch)
    assert learn(Plain(net()), whole).verdict == "pass"
    answer = learn(Plain(net()), loader(X[:9], Y[:9]))
    assert (answer.verdict, answer.notes[0]) == ("pass", "The training set has 9 examples, and all were taken.")


def test_options_of_the_users_own_training_do_not_shorten_the_sample():
    options = {
        **CPU,
        "limit_train_batches": 1,
        "overfit_batches": 1,
        "min_epochs": 500,
        "devices": 2,
        "strategy": "ddp",
    }
    torch.manual_seed(0)
    module = Plain(net())
    torch.manual_seed(0)
    answer = overfit_small_sample(module, loader(X, Y), trainer_options=options)
    assert (answer.verdict, answer.steps) == ("pass", learn(module).steps)


def test_bad_input():
    class Silent(Plain):
        def training_step(self, batch, batch_idx):
            return None

    with pytest.raises(ValueError, match="`training_step` must return a loss, got None"):
        learn(Silent(net()))
    with pytest.raises(ValueError, match="at least 2 training examples, got 1"):
        learn(Plain(net()), loader(X[:1], Y[:1]))
    with pytest.raises(TypeError, match="`data` must give one train loader, got list"):
        learn(Plain(net()), [loader(X, Y), loader(X, Y)])
    with pytest.raises(ValueError, match="`data` must give training batches, got NoneType"):
        overfit_small_sample(Plain(net()), None)
    with pytest.raises(ValueError, match="`max_steps` must be at least 1"):
        learn(Plain(net()), max_steps=0)
