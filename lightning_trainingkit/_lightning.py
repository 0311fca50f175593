"""Lightning, as ``L``, from the package that the project uses: ``lightning`` or ``pytorch_lightning``, two class trees.

The variable ``TRAININGKIT_LIGHTNING`` names the package. Without it, the kit takes the only package that the project
imported before the kit's first class, or ``lightning`` if there are both or none. No other file imports Lightning.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["L", "isolate_rng", "refuse_other_package"]

_PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}


def _package() -> str:
    chosen = os.environ.get("TRAININGKIT_LIGHTNING")
    if chosen is None:
        imported = [name for name, module in _PACKAGES.items() if module in sys.modules]
        chosen = imported[0] if len(imported) == 1 else "lightning"
    if chosen not in _PACKAGES:
        raise ValueError(f"`TRAININGKIT_LIGHTNING` must be {' or '.join(_PACKAGES)}, got {chosen!r}. Unset it.")
    return _PACKAGES[chosen]


if TYPE_CHECKING:
    import lightning.pytorch as L
    import lightning.pytorch.overrides.distributed
    import lightning.pytorch.plugins.io  # noqa: F401
else:
    L = import_module(_package())
    import_module(f"{L.__name__}.overrides.distributed")

AsyncCheckpointIO = L.plugins.io.AsyncCheckpointIO
CSVLogger = L.loggers.CSVLogger
BaseFinetuning = L.callbacks.BaseFinetuning
CombinedLoader = L.utilities.CombinedLoader
DDPStrategy = L.strategies.DDPStrategy
DeepSpeedStrategy = L.strategies.DeepSpeedStrategy
DummyLogger = L.loggers.logger.DummyLogger
EarlyStopping = L.callbacks.EarlyStopping
EarlyStoppingReason = L.callbacks.early_stopping.EarlyStoppingReason
FSDPStrategy = L.strategies.FSDPStrategy
GradientAccumulationScheduler = L.callbacks.GradientAccumulationScheduler
LRSchedulerConfigType = L.utilities.types.LRSchedulerConfigType
ModelCheckpoint = L.callbacks.ModelCheckpoint
ModelParallelStrategy = L.strategies.ModelParallelStrategy
OptimizerLRScheduler = L.utilities.types.OptimizerLRScheduler
SingleDeviceStrategy = L.strategies.SingleDeviceStrategy
StochasticWeightAveraging = L.callbacks.StochasticWeightAveraging
TensorBoardLogger = L.loggers.TensorBoardLogger
TrainerFn = L.trainer.states.TrainerFn
UnrepeatedDistributedSampler = L.overrides.distributed.UnrepeatedDistributedSampler
WandbLogger = L.loggers.WandbLogger
WeightAveraging = L.callbacks.WeightAveraging
collect_rng_states = L.utilities.seed._collect_rng_states  # type: ignore[attr-defined]
is_overridden = L.utilities.model_helpers.is_overridden
rank_zero_info = L.utilities.rank_zero_info
rank_zero_only = L.utilities.rank_zero_only
rank_zero_warn = L.utilities.rank_zero_warn
save_hparams_to_yaml = L.core.saving.save_hparams_to_yaml
set_rng_states = L.utilities.seed._set_rng_states  # type: ignore[attr-defined]


@contextmanager
def isolate_rng() -> Iterator[None]:
    """Put all random states (torch, NumPy, Python) back at the end. Lightning's own does not after an error."""
    states = collect_rng_states()
    try:
        yield
    finally:
        set_rng_states(states)


def refuse_other_package(user: object, trainer: Any) -> None:
    """Raise TypeError if a Trainer belongs to the other package than the kit's classes."""
    packages = {each.__module__.partition(".")[0] for each in type(trainer).__mro__} & _PACKAGES.keys()
    if packages and not isinstance(trainer, L.Trainer):
        (theirs,) = packages
        raise TypeError(
            f"`trainer` must be a Trainer of {L.__name__} beside {type(user).__name__}, got one of {theirs}, which is "
            f"another class tree. Set the variable TRAININGKIT_LIGHTNING={theirs}, or import one package everywhere."
        )
