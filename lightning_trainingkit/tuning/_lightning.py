"""Access to Lightning's private parts: a Trainer inside of a running fit."""

import copy
from collections.abc import Callable
from typing import Any

from lightning_trainingkit._lightning import DDPStrategy, GradientAccumulationScheduler, L, SingleDeviceStrategy
from lightning_trainingkit.callbacks.diagnostics.stand_ins import take_hooks_off

__all__ = ["data_of_fit", "options_of_fit", "prepare_copies", "refuse_spawn"]

_SAME = (
    *("max_epochs", "max_steps", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches"),
    *("overfit_batches", "num_nodes"),
)


def options_of_fit(trainer: L.Trainer) -> Callable[[], dict[str, Any]]:
    """Return a function that makes the arguments of a Trainer on the same devices, in the same processes.

    Raises:
        TypeError: If the strategy is none of a single device and DDP.
    """
    strategy = trainer.strategy
    if type(strategy) not in (SingleDeviceStrategy, DDPStrategy):
        raise TypeError(
            "`strategy` must be a single device or DDP beside LearningRateTest, "
            f"got {type(strategy).__name__}. Run find_learning_rate before the fit, and set the rate."
        )
    connector = trainer._accelerator_connector
    given = {name: getattr(trainer, name) for name in _SAME}
    given["sync_batchnorm"] = connector._layer_sync is not None
    given["use_distributed_sampler"] = connector.use_distributed_sampler
    accumulation = [trainer.accumulate_grad_batches]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            accumulation = [callback.get_accumulate_grad_batches(0)]

    def make() -> dict[str, Any]:
        precision = copy.deepcopy(trainer.precision_plugin)
        if isinstance(strategy, DDPStrategy):
            own: Any = _SameProcesses(  # Lightning takes the accelerator from the devices
                parallel_devices=strategy.parallel_devices,
                cluster_environment=strategy.cluster_environment,
                precision_plugin=precision,
                **strategy._ddp_kwargs,
            )
        else:
            own = SingleDeviceStrategy(strategy.root_device, trainer.accelerator, precision_plugin=precision)
        devices = strategy.num_processes if isinstance(strategy, DDPStrategy) else 1
        return {**given, "accumulate_grad_batches": accumulation[-1], "strategy": own, "devices": devices}

    return make


def refuse_spawn(trainer: L.Trainer) -> None:
    """Raise ValueError if a Trainer trains in processes that it spawns, from which no result comes back."""
    if isinstance(trainer.strategy.launcher, L.strategies.launchers._MultiProcessingLauncher):
        raise ValueError(
            "`strategy` must keep a trial in this process, got one that spawns others. "
            "Use strategy='ddp' in a script, or a single device."
        )


class _SameProcesses(DDPStrategy):
    """DDP in processes that exist, and that are connected."""

    def _configure_launcher(self) -> None:
        self._launcher = None


def data_of_fit(trainer: L.Trainer) -> Any:
    """Return the DataModule or the train loader that ``fit`` got. None if the module makes its loader."""
    if trainer.datamodule is not None:  # type: ignore[attr-defined]
        return trainer.datamodule  # type: ignore[attr-defined]
    source = trainer.fit_loop._data_source.instance
    return None if isinstance(source, L.LightningModule) else source


def prepare_copies(module: L.LightningModule, data: Any) -> Any:
    """Keep the copies of a module and a DataModule, which are set up, from being set up again.

    Raises:
        TypeError: If a hook of the module cannot be copied.
    """
    try:
        take_hooks_off(module)
    except TypeError as error:
        raise TypeError(
            f"`module` must be copyable beside LearningRateTest, got one where {error}. Write it as a method of the "
            "module, or run find_learning_rate before the fit."
        ) from error
    for copied in (module, data):
        if isinstance(copied, L.LightningModule | L.LightningDataModule):
            for name in ("prepare_data", "setup", "configure_model"):
                if hasattr(copied, name):
                    vars(copied)[name] = _nothing
    return data


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None
