"""Multinomial logistic regression, solved to convergence."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["fit_logistic"]


def fit_logistic(
    features: Tensor, targets: Tensor, num_classes: int, l2: float, *, bias: bool = True, max_iter: int = 500
) -> tuple[Tensor, Tensor]:
    """Minimise ``mean cross_entropy(X W' + b, y) + l2 / 2 |W|^2`` over standardised features by L-BFGS.

    The penalty acts on features of mean 0 and variance 1 (without ``bias``: mean square 1), so one ``l2`` fits features
    of any scale. The returned weights are for the features as given. A constant feature gets the weight 0.

    Args:
        features: Shape ``(N, D)``, floating.
        targets: Class indices, shape ``(N,)``.
        num_classes: Number of classes ``C``.
        l2: Strength of the penalty, not negative. 0 has no minimum where the classes can be separated.
        bias: Whether to fit a bias.
        max_iter: Largest number of iterations.

    Returns:
        Weight ``(C, D)`` and bias ``(C,)``, in the dtype of the features and on their device.

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1, 1])
        >>> weight, b = fit_logistic(x, y, num_classes=2, l2=1e-3)
        >>> (x @ weight.T + b).argmax(dim=1)
        tensor([0, 0, 1, 1])
    """
    with torch.inference_mode(False), torch.enable_grad():
        return _solve(features, targets.clone(), num_classes, l2, bias, max_iter)  # a copy outside of inference mode


def _solve(
    features: Tensor, targets: Tensor, num_classes: int, l2: float, bias: bool, max_iter: int
) -> tuple[Tensor, Tensor]:
    mean = features.mean(dim=0) if bias else torch.zeros_like(features[0])
    spread = (features - mean).square().mean(dim=0).sqrt()
    scale = torch.where(spread > 1e-6 * spread.max().clamp(min=1e-30), spread, torch.inf)
    x = (features - mean) / scale
    weight = torch.zeros(num_classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    offset = torch.zeros(num_classes, dtype=x.dtype, device=x.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, offset] if bias else [weight],
        max_iter=max_iter,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = cross_entropy(x @ weight.T + offset, targets) + l2 / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    found = weight.detach() / scale
    return found, offset.detach() - found @ mean
