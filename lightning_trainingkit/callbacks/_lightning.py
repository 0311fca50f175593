"""Access to Lightning's private parts, and patches of a module's hooks, for several folders of callbacks."""

from collections.abc import Callable
from functools import wraps
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from lightning_trainingkit._lightning import (
    DDPStrategy,
    DeepSpeedStrategy,
    L,
    SingleDeviceStrategy,
    StochasticWeightAveraging,
    WeightAveraging,
    collect_rng_states,
    is_overridden,
    rank_zero_warn,
    set_rng_states,
)

__all__ = [
    "after_build",
    "average_waits",
    "averages_other_shapes",
    "checks_each_epoch",
    "compiler_of",
    "fast_dev_run",
    "is_compiled",
    "is_sharded",
    "evaluation_loaders",
    "just_logged",
    "keep_random_state",
    "logged_by_step",
    "logged_in_sanity_check",
    "may_stop",
    "refuse_sharding",
    "refuse_swa",
    "refuse_twice",
    "restart_averages",
    "wrap_again",
]


def after_build(pl_module: L.LightningModule, action: Callable[[], None]) -> Callable[[], None]:
    """Call ``action`` now, and once more right after the module's own ``setup`` and ``configure_model``.

    Both hooks may make layers. Both run after a callback's ``setup`` and before a checkpoint is restored. Each hook is
    put back before it runs.

    Returns:
        A function that puts back the hooks that did not run. Call it in ``teardown`` and ``on_exception``.
    """
    action()
    hooks = [name for name in ("setup", "configure_model") if is_overridden(name, pl_module)]
    undo = [_after_once(pl_module, name, action) for name in hooks]

    def put_back() -> None:
        for each in undo:
            each()

    return put_back


def _after_once(pl_module: L.LightningModule, name: str, action: Callable[[], None]) -> Callable[[], None]:
    found = vars(pl_module).get(name)
    method = getattr(pl_module, name)

    @wraps(method)
    def hook(*args: Any, **kwargs: Any) -> Any:
        put_back()
        result = method(*args, **kwargs)
        action()
        return result

    def put_back() -> None:
        hook.done = True  # type: ignore[attr-defined]
        # A later callback may have wrapped the same hook: its wrapper then runs first, and skips this one.
        if vars(pl_module).get(name) is not hook:
            return
        below = hook
        while getattr(below, "done", False):
            below = below.below
        if below is None:
            del vars(pl_module)[name]
        else:
            vars(pl_module)[name] = below

    hook.below = found  # type: ignore[attr-defined]
    vars(pl_module)[name] = hook
    return put_back


def fast_dev_run(trainer: L.Trainer) -> bool:
    """Whether this is a trial of a few batches without checkpoints or stops. Lightning leaves the attribute untyped."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def compiler_of(pl_module: L.LightningModule) -> Callable[..., Any]:
    """Return the function that compiled the whole module, or ``torch.compile`` if it was not compiled as a whole."""
    context = pl_module._compiler_ctx
    return context["dynamo_ctx"] if context else torch.compile


def is_compiled(pl_module: L.LightningModule, outside: nn.Module | None = None) -> bool:
    """Whether the module or a part of it is compiled. Parts of ``outside`` do not count."""
    left_out = set() if outside is None else set(outside.modules())
    parts = [each for each in pl_module.modules() if each not in left_out]
    return bool(pl_module._compiler_ctx) or any(
        isinstance(each, OptimizedModule) or each._compiled_call_impl is not None for each in parts
    )


def keep_random_state() -> Callable[[], None]:
    """Record the state of all random generators, and return a function that restores it."""
    states = collect_rng_states()
    return lambda: set_rng_states(states)


def may_stop(trainer: L.Trainer) -> bool:
    """Whether ``min_epochs`` and ``min_steps`` are met."""
    return trainer.fit_loop._can_stop_early


def checks_each_epoch(trainer: L.Trainer) -> bool:
    """Whether each training epoch has one validation, at its end."""
    return trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1


def just_logged(trainer: L.Trainer) -> set[str]:
    """Return the names of the metrics that the ending validation or training epoch has logged.

    Call it in the epoch's last hook. ``trainer.callback_metrics`` also holds the metrics of earlier epochs.
    """
    return _names(trainer, lambda metric: not metric.has_reset)


def logged_in_sanity_check(trainer: L.Trainer) -> set[str]:
    """Return the names of the metrics that the sanity check has logged. Call it in ``on_sanity_check_end``.

    ``trainer.callback_metrics`` lacks the metrics of several loaders in that hook.
    """
    return _names(trainer, lambda metric: True) | set(trainer.callback_metrics)


def _names(trainer: L.Trainer, which: Callable[[Any], bool]) -> set[str]:
    results = trainer._results
    if results is None:
        return set()
    logged = [metric for metric in results.values() if metric.meta.on_epoch and which(metric)]
    return {name for metric in logged for name in results._forked_name(metric, False)}


def logged_by_step(trainer: L.Trainer) -> set[str]:
    """Return the names of the metrics that the ending training epoch has logged by step. Call it in the last hook."""
    results = trainer._results
    return set(results.metrics(True)["callback"]) if results else set()


def average_waits(trainer: L.Trainer, what: str) -> bool:
    """Whether validation runs on an average of weights that has not begun. If so, warn that ``what`` does not count."""
    averages = [each for each in trainer.callbacks if isinstance(each, WeightAveraging)]  # type: ignore[attr-defined]
    waits = any(each._average_model is not None and not each._average_model.n_averaged for each in averages)
    if waits:
        rank_zero_warn(
            f"{what} does not count until the average of weights begins: validation and checkpoints have the weights "
            "that the fit began with."
        )
    return waits


def averages_other_shapes(trainer: L.Trainer) -> bool:
    """Whether a callback averages weights of other shapes, since it has copied the module before layers changed."""
    copies: list[nn.Module] = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            copies.append(callback._average_model.module)
        elif isinstance(callback, StochasticWeightAveraging) and callback._average_model is not None:
            copies.append(callback._average_model)
    return any(_shapes(copy) != _shapes(trainer.lightning_module) for copy in copies)


def _shapes(module: nn.Module) -> list[torch.Size | None]:
    """Shapes of the parameters, None for lazy ones."""
    return [None if is_lazy(each) else each.shape for each in module.parameters()]


@torch.no_grad()
def restart_averages(trainer: L.Trainer) -> None:
    """Restart the averages of weights from the module's present weights, in the middle of a training."""
    module = trainer.lightning_module
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            average, count = callback._average_model.module, callback._average_model.n_averaged
        elif isinstance(callback, StochasticWeightAveraging) and callback.n_averaged is not None:
            assert callback._average_model is not None
            average, count = callback._average_model, callback.n_averaged
        else:
            continue
        count.clamp_(max=1)  # at 0 the average has not begun, and will begin with a copy
        for mine, theirs in zip(
            chain(average.parameters(), average.buffers()), chain(module.parameters(), module.buffers()), strict=True
        ):
            mine.copy_(theirs)


def is_sharded(trainer: L.Trainer) -> bool:
    """Whether a rank holds parts of the parameters and gradients alone."""
    whole = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
    return isinstance(trainer.strategy, DeepSpeedStrategy) or not whole


def refuse_sharding(trainer: L.Trainer) -> None:
    """Raise TypeError for strategies that fix the trainable parameters when they wrap or shard the model."""
    if is_sharded(trainer):
        raise TypeError(
            "`strategy` must be a single device or DDP where the trainable parameters change during the fit, "
            f"got {type(trainer.strategy).__name__}. Use strategy='ddp', or freeze by hand before the fit."
        )


def refuse_swa(trainer: L.Trainer, pl_module: L.LightningModule) -> None:
    """Raise ValueError if StochasticWeightAveraging would set the statistics of frozen BatchNorms to 0 and 1."""
    swa = any(isinstance(each, StochasticWeightAveraging) for each in trainer.callbacks)  # type: ignore[attr-defined]
    if swa and any(isinstance(each, _BatchNorm) for each in pl_module.modules()):
        raise ValueError(
            "`callbacks` must not hold StochasticWeightAveraging beside TransferLearning where there are BatchNorms: "
            "it forgets the statistics of frozen ones. Use Lightning's EMAWeightAveraging or WeightAveraging."
        )


def evaluation_loaders(trainer: L.Trainer) -> int:
    """Return the number of data loaders with a ``dataloader_idx`` in this evaluation."""
    combined = trainer._evaluation_loop._combined_loader
    return len(combined.flattened) if combined is not None and combined._mode == "sequential" else 1


def refuse_twice(trainer: L.Trainer, callback: L.Callback, hint: str) -> None:
    """Raise ValueError if a Trainer holds a second callback of the same class. ``hint`` says what to do."""
    count = sum(isinstance(each, type(callback)) for each in trainer.callbacks)  # type: ignore[attr-defined]
    if count > 1:
        raise ValueError(f"`callbacks` must hold one {type(callback).__name__}, got {count}. {hint}")


def wrap_again(trainer: L.Trainer) -> None:
    """Wrap the module in DDP again, on every rank.

    DDP averages the gradients of the parameters that required gradients when it wrapped the module.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and strategy.model is not trainer.lightning_module:
        strategy.model = trainer.lightning_module
        strategy.configure_ddp()
