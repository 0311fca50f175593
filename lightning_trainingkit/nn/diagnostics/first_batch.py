"""Judge the loss of the first batch: its sign, its value, and what stands before it."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.input_summary import InputSummary, input_findings
from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall

__all__ = ["first_batch_findings", "initial_loss", "loss_sign"]

# What must not stand between the last layer and a loss that applies it, by the name of its autograd node.
_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "Relu": "ReLU", "Tanh": "tanh"}
_VIEWS = ("View", "Squeeze", "Unsqueeze", "Reshape", "Permute", "Transpose", "ToCopy", "Alias", "Flatten", "Select")


def loss_sign(losses: Iterable[Tensor], calls: Iterable[LossCall]) -> float | None:
    """Return the derivative of what is minimised by the recorded losses, or None if it depends on none of them.

    1 for a loss that is returned as it is, -1 for its negative. For ``log_softmax``, whose entries a loss picks by
    hand, it is minus the sum of the derivatives, relative to the sum of their sizes.

    Args:
        losses: What the training step minimises, with its graph.
        calls: The recorded calls, with their graphs.
    """
    total = [loss for loss in losses if loss.requires_grad]
    calls = [call for call in calls if call.result.requires_grad]
    if not total or not calls:
        return None
    summed = torch.stack([loss.sum() for loss in total]).sum()
    results = [call.result for call in calls]
    found = torch.autograd.grad(summed, results, retain_graph=True, allow_unused=True)
    signs = [
        -float(grad.sum() / grad.abs().sum()) if call.name == "log_softmax" else float(grad.sum())
        for call, grad in zip(calls, found, strict=True)
        if grad is not None and bool(grad.abs().sum() > 0)
    ]
    if not signs or (min(signs) < 0 < max(signs)):
        return None
    return sum(signs)


def initial_loss(call: LossCall) -> float | None:
    """Return the loss of outputs that say nothing about the class, or None where it is unknown.

    ``log C`` for ``cross_entropy`` and ``nll_loss`` of ``C`` classes, ``log 2`` for binary losses, ``1 - 1 / C`` for
    ``multi_margin_loss``, the variance of the targets for ``mse_loss``. Class weights do not change ``log C``. Sums,
    weights of the other losses, and another margin leave it unknown.

    Example:
        >>> logits, target = torch.zeros(2, 10), torch.tensor([0, 1])
        >>> round(initial_loss(LossCall("cross_entropy", logits, target, torch.tensor(2.3))), 4)
        2.3026
    """
    options = call.options
    if options.get("reduction", "mean") != "mean" or options.get("pos_weight") is not None:
        return None
    changed = options.get("weight") is not None or options.get("margin", 1) != 1 or options.get("p", 1) != 1
    if changed and call.name not in ("cross_entropy", "nll_loss"):
        return None
    classes = call.input.shape[1] if call.input.dim() > 1 else call.input.shape[0]
    if call.name in ("cross_entropy", "nll_loss") and classes > 1:
        return math.log(classes)
    if call.name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        return math.log(2)
    if call.name == "multi_margin_loss" and classes > 1:
        return 1 - 1 / classes
    if call.name == "mse_loss" and call.target is not None and len(call.target) > 1:
        return float(call.target.float().var(0).mean())
    return None


def first_batch_findings(
    losses: list[Tensor], calls: list[LossCall], inputs: list[InputSummary], *, pretrained: bool = False
) -> list[Finding]:
    """Judge the first batch: the sign of the loss, what stands before it, its value, and the input.

    Args:
        losses: What the training step minimises, with its graph; several in manual optimization.
        calls: The recorded calls of losses.
        inputs: Summaries of the input.
        pretrained: Whether the module was trained before, so that its loss need not begin at chance.

    Returns:
        Findings of the kinds ``wrong_loss_sign``, ``softmax_before_loss``, ``wrong_initial_loss`` and
        ``input_not_centred``.
    """
    return [*_sign(losses, calls), *_before_loss(calls), *_value(calls, pretrained), *input_findings(inputs)]


def _sign(losses: list[Tensor], calls: list[LossCall]) -> Iterator[Finding]:
    sign = loss_sign(losses, calls) if len(losses) == 1 else None  # adversaries have losses of both signs
    if sign is not None and sign < 0:
        names = ", ".join(dict.fromkeys(call.name for call in calls))
        yield Finding.of(
            "wrong_loss_sign",
            "the loss",
            sign,
            f"The training step returns the negative of {names}, so that training makes it larger.",
            "Return the loss without the minus sign: `return loss`, not `return -loss`.",
        )


def _before_loss(calls: list[LossCall]) -> Iterator[Finding]:
    seen = set()
    for call in calls:
        found = _activation_before(call)
        if found is None or (call.name, found) in seen:
            continue
        seen.add((call.name, found))
        message, advice = found
        yield Finding.of("softmax_before_loss", call.name, 1.0, message, advice)


def _activation_before(call: LossCall) -> tuple[str, str] | None:
    x = call.input.detach().float()
    if call.name == "nll_loss" and x.dim() > 1 and x.shape[1] > 1:
        total = x.exp().sum(1)
        if not bool(((total - 1).abs() < 1e-2).all()):
            given = "probabilities" if _are_probabilities(x) else "outputs that are no log-probabilities"
            return f"`nll_loss` takes log-probabilities, and got {given}.", "Use `F.cross_entropy(logits, y)` instead."
        return None
    if call.name not in ("cross_entropy", "binary_cross_entropy_with_logits"):
        return None
    name = _last_activation(call.input)
    if name is None and call.name == "cross_entropy" and _are_probabilities(x):
        name = "softmax"
    if name is None or (call.name == "binary_cross_entropy_with_logits" and name == "softmax"):
        return None
    own = "softmax" if call.name == "cross_entropy" else "sigmoid"
    return (
        f"`{call.name}` applies {own} itself, and its input comes out of a {name} already.",
        f"Give `{call.name}` the output of the last layer: take {name} off the end of the network.",
    )


def _are_probabilities(x: Tensor) -> bool:
    """Whether the rows are probabilities of at least two classes."""
    if x.dim() < 2 or x.shape[1] < 2:
        return False
    return bool((x >= 0).all()) and bool(((x.sum(1) - 1).abs() < 1e-2).all()) and x.numel() > x.shape[1]


def _last_activation(x: Tensor) -> str | None:
    """Name the activation that made a tensor, through changes of its shape and type."""
    node = x.grad_fn
    while node is not None:
        name = type(node).__name__
        for prefix, activation in _ACTIVATIONS.items():
            if name.startswith((f"{prefix}Backward", f"Safe{prefix}Backward")):
                return activation
        if not any(view in name for view in _VIEWS):
            return None
        node = node.next_functions[0][0] if node.next_functions else None
    return None


def _value(calls: list[LossCall], pretrained: bool) -> Iterator[Finding]:
    for call in calls:
        expected = initial_loss(call)
        if expected is None or pretrained or call.result.dim() or call.name == "mse_loss":
            continue
        found = float(call.result.detach())
        if math.isfinite(found) and found > 1.5 * expected + 0.1:
            yield Finding.of(
                "wrong_initial_loss",
                call.name,
                found,
                f"The loss begins at {found:.3g}; outputs that say nothing give {expected:.3g}. The outputs are too "
                "large at the start.",
                'Initialise the last layer smaller: `InitOverride({NAME: "normal(0.01)"})` with its name. Or scale the '
                "input to mean 0 and std 1.",
            )
            return
