"""What a step shows about an output (N, C), by the functions that it calls on it."""

import pytest
import torch
import torchmetrics
from torch import nn
from torch.distributions import Bernoulli, Categorical, Gamma, Laplace, Normal, Poisson
from torch.nn import functional as F

from lightning_trainingkit.nn.averaging.output_use import OutputUse

N, C = 8, 5
LABELS = torch.arange(N) % C
ONE_HOT = F.one_hot(LABELS, C).float()
MIXED = 0.7 * ONE_HOT + 0.3 * ONE_HOT.flip(0)
MANY = (torch.arange(N * C).view(N, C) % 3 == 0).float()
VALUES = torch.linspace(-1, 1, N * C).view(N, C)
HEAD = nn.Linear(C, 3)


def in_place(out):
    return out.clone().div_(2).softmax(1)


def poly_loss(out):
    return F.nll_loss(out.log_softmax(-1), LABELS) + 1 - F.softmax(out, -1)[range(N), LABELS].mean()


CLASSES = {
    "cross_entropy": lambda out: F.cross_entropy(out, LABELS),
    "module": lambda out: nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.ones(C))(out, LABELS),
    "mixup": lambda out: F.cross_entropy(out, MIXED),
    "soft targets by hand": lambda out: -(MIXED * F.log_softmax(out, dim=1)).sum(1).mean(),
    "log-probabilities": lambda out: F.nll_loss(out, LABELS),
    "kl_div": lambda out: F.kl_div(out, MIXED),
    "hinge": lambda out: F.multi_margin_loss(out, LABELS),
    "argmax": lambda out: out.argmax(1),
    "argmax of the last dimension": lambda out: out.argmax(dim=-1),
    "argmax by name": lambda out: torch.argmax(input=out, axis=1),
    "max": lambda out: torch.max(out, 1),
    "topk": lambda out: out.topk(3).indices,
    "sort": lambda out: out.sort(descending=True),
    "logsumexp": lambda out: out - out.logsumexp(1, keepdim=True),
    "implicit dimension": lambda out: F.softmax(out),
    "temperature": lambda out: (out.detach().cpu().float() / 1.5 + 0.1).softmax(1),
    "in place": in_place,
    "sample by sample": lambda out: [F.cross_entropy(row, label) for row, label in zip(out, LABELS, strict=True)],
    "ten crops by hand": lambda out: out.view(N // 2, 2, C).mean(1).argmax(1),
    "margin": lambda out: F.cross_entropy(out - 0.2 * ONE_HOT, LABELS),
    "two calls": lambda out: (F.cross_entropy(out, LABELS), out.argmax(1)),
    "Brier score": lambda out: F.mse_loss(out.softmax(1), ONE_HOT),
    "poly loss": poly_loss,
    "categorical": lambda out: Categorical(logits=out).log_prob(LABELS),
    "accuracy": torchmetrics.Accuracy(task="multiclass", num_classes=C),
    "calibration": torchmetrics.CalibrationError(task="multiclass", num_classes=C),
    "AUROC": torchmetrics.AUROC(task="multiclass", num_classes=C),
    # Beside a loss of all classes:
    "one class against the others": lambda out: (F.cross_entropy(out, LABELS), (out[:, 1] - out[:, 0]).sigmoid()),
    "some of the classes": lambda out: (F.cross_entropy(out, LABELS), out[:, [1, 3]].argmax(1)),
    "length of the logits": lambda out: (F.cross_entropy(out, LABELS), out.norm(dim=1).mean()),
    "largest score of the batch": lambda out: (
        F.cross_entropy(out, LABELS),
        out.gather(1, LABELS[:, None])[:, 0].max(),
    ),
}
OTHERS = {
    "multi-label": lambda out: F.binary_cross_entropy_with_logits(out, MANY),
    "multi-label module": lambda out: nn.BCEWithLogitsLoss(pos_weight=torch.ones(C))(out, MANY),
    "sigmoid": lambda out: (out.float().sigmoid() > 0.5).float().mean(),
    "sigmoid after topk": lambda out: (out.topk(2), torch.sigmoid(out)),
    "one column": lambda out: out[:, 1].sigmoid(),
    "soft margin": lambda out: F.multilabel_soft_margin_loss(out, MANY),
    "multi-label accuracy": (torchmetrics.Accuracy(task="multilabel", num_labels=C), MANY.long()),
    "multi-label average precision": (torchmetrics.AveragePrecision(task="multilabel", num_labels=C), MANY.long()),
    "mse": lambda out: F.mse_loss(out, VALUES),
    "mse of the rescaled output": lambda out: F.mse_loss(out * 3 + 1, VALUES),
    "mse by name": lambda out: nn.MSELoss()(input=out, target=VALUES),
    "mse with the output as target": lambda out: F.mse_loss(VALUES, out),
    "l1": lambda out: F.l1_loss(out, VALUES),
    "huber": lambda out: F.smooth_l1_loss(out, VALUES) + F.huber_loss(out, VALUES),
    "difference": lambda out: (out - VALUES).abs().mean(),
    "difference to a prediction": lambda out: (VALUES - out).square().mean(),
    "squared error metric": (torchmetrics.MeanSquaredError(num_outputs=C), VALUES),
    "normal": lambda out: Normal(out[:, 0], out[:, 1].exp()).log_prob(VALUES[:, 0]),
    "laplace": lambda out: Laplace(out[:, :2], F.softplus(out[:, 2:4])).log_prob(VALUES[:, :2]),
    "poisson": lambda out: Poisson(out.exp()).log_prob(MANY),
    "gamma": lambda out: Gamma(out.exp(), 1.0).log_prob(MANY + 1),
    "bernoulli": lambda out: Bernoulli(logits=out).log_prob(MANY),
    "gaussian_nll_loss": lambda out: F.gaussian_nll_loss(out, VALUES, torch.ones(N, C)),
    "features": lambda out: F.cross_entropy(HEAD(out), LABELS % 3),
    "features and activation": lambda out: HEAD(F.dropout(F.relu(out), training=False)).argmax(1),
    "similarity": lambda out: F.normalize(out) @ F.normalize(out).T,
    "cosine": lambda out: F.cosine_similarity(out, VALUES),
    "prototypes": lambda out: torch.cdist(out, VALUES).argmin(1),
    "product": lambda out: (out @ out.T).softmax(1),
    "groups": lambda out: F.cross_entropy(out.reshape(-1, 1), torch.zeros(N * C).long()),
    "two heads": lambda out: F.cross_entropy(out[:, :3], LABELS % 3) + F.cross_entropy(out[:, 3:], LABELS % 2),
}
SILENT = {
    "nothing": lambda out: None,
    "mean": lambda out: out.mean(),
    "softmax over the batch": lambda out: out.softmax(0),
    "largest of all": lambda out: out.max(),
    "shape and type": lambda out: (out.shape, out.dtype, out.size(0), out.T),
    "not the output": lambda out: torch.sigmoid(VALUES).argmax(1),
}


def use_of(step, made=lambda: VALUES.clone()):
    if isinstance(step, tuple):  # a metric and its target
        metric, target = step
        return use_of(lambda out: metric(out, target), made)
    if isinstance(step, torchmetrics.Metric):
        return use_of((step, LABELS), made)
    use = OutputUse()
    with use:
        with use.paused():
            out = F.linear(made(), torch.eye(C))
        use.follow(out, ())
        step(out)
    use.conclude()
    return use


@pytest.mark.filterwarnings(
    "ignore:Implicit dimension", "ignore:reduction:", "ignore:No negative", "ignore:No positive"
)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", [*CLASSES, *OTHERS, *SILENT])
def test_kinds_of_steps(name, autocast):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        use = use_of((CLASSES | OTHERS | SILENT)[name], lambda: VALUES.log_softmax(1))
    assert (use.classes is not None and use.other is None) == (name in CLASSES)
    assert (use.other is not None) == (name in OTHERS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("multi-label", "passes to binary_cross_entropy_with_logits"),
        ("difference", "subtracts from another tensor"),
        ("two heads", "passes to cross_entropy, 3 of 5 at a time"),
    ],
)
def test_what_a_step_does_is_said(name, text):
    assert use_of(OTHERS[name]).other == text


@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_compiled_function_of_the_output_raises_nothing(fullgraph):
    loss = torch.compile(lambda out: F.cross_entropy(out, LABELS), backend="eager", fullgraph=fullgraph)
    assert use_of(loss).other is None


def test_a_mode_of_the_users_stays_in_place():
    use = OutputUse()
    with use, torch.device("meta"):
        with use.paused():
            assert torch.zeros(2).device.type == "meta"
            assert F.linear(VALUES, HEAD.weight).device.type == "cpu"
        assert torch.zeros(2).device.type == "meta"
    assert torch.zeros(2).device.type == "cpu"


def test_what_is_read_before_the_output():
    use, head = OutputUse(), nn.Linear(C, C)
    with use:
        out = HEAD(VALUES)
        use.follow(out, (VALUES,))
        head(VALUES)
    assert {id(HEAD.weight), id(HEAD.bias)} <= use.read_before
    assert id(head.weight) not in use.read_before
