"""One range test, whose curve the rules share."""

from typing import Any

from .tasks import Task

__all__ = ["LENGTH", "range_test"]

LENGTH, LOWEST, HIGHEST = 100, 1e-7, 10.0  # fastai's own


def range_test(task: Task, seed: int) -> dict[str, Any]:
    """Train with a rate that grows in each step, from ``LOWEST`` to ``HIGHEST``. A loss that is not finite ends it.

    Returns:
        The rates, and the loss of each step, as it is.
    """
    module = task.module(seed)
    optimizer = module.configure_optimizers()
    rates: list[float] = []
    losses: list[float] = []
    loader = task.loader()
    while len(losses) < LENGTH:
        for number, batch in enumerate(loader):
            rates.append(LOWEST * (HIGHEST / LOWEST) ** (len(losses) / LENGTH))
            for group in optimizer.param_groups:
                group["lr"] = rates[-1]
            loss = module.training_step(batch, number)
            losses.append(loss.item())
            if not loss.isfinite() or len(losses) == LENGTH:
                return {"rates": rates, "losses": losses}
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {"rates": rates, "losses": losses}
