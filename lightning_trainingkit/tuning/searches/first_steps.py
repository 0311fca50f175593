"""Steps 1 to 3 before a search, run once for all workers and kept in the storage."""

import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lightning_trainingkit._lightning import L, is_overridden, isolate_rng
from lightning_trainingkit.tuning.initial_loss import check_initial_loss
from lightning_trainingkit.tuning.learning_rate import find_learning_rate
from lightning_trainingkit.tuning.optimizer_rates import OptimizerRates
from lightning_trainingkit.tuning.searches.space_points import middle
from lightning_trainingkit.tuning.small_sample import overfit_small_sample
from lightning_trainingkit.tuning.trial import Trial, stop
from lightning_trainingkit.tuning.trials.domains import Domain, Range
from lightning_trainingkit.tuning.trials.source import Source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["FirstSteps", "run_first_steps", "unknown_values"]

_NAMES = ("initial_loss", "small_sample", "learning_rate")
_NOT_IN_TRIALS = ("logger", "max_time", "limit_val_batches", "check_val_every_n_epoch", "num_sanity_val_steps")


@dataclass(frozen=True)
class FirstSteps:
    """What steps 1 to 3 found.

    Args:
        verdicts: A verdict for each step that was run.
        factor: Step 3's learning rate, as a multiple of the module's own. None if no rate was found.
        iterations: Training steps of all three.
        batches: Batches of a training epoch. None if they are not known.
    """

    verdicts: tuple[Verdict, ...]
    factor: float | None
    iterations: int
    batches: int | None

    @property
    def epochs(self) -> float:
        """The training steps in epochs. 0 if the batches of an epoch are not known."""
        return self.iterations / self.batches if self.batches else 0.0

    @property
    def failed(self) -> Verdict | None:
        """The step that failed, if one did."""
        return next((each for each in self.verdicts if each.verdict == "fail"), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the storage. Findings are left out: their words stand in the messages."""
        verdicts = [
            {name: getattr(each, name) for name in ("step", "verdict", "message", "advice", "value", "notes")}
            for each in self.verdicts
        ]
        return {**asdict(self), "verdicts": verdicts}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "FirstSteps":
        """The steps as another worker, or an earlier call, found them."""
        verdicts = tuple(Verdict(**{**each, "notes": tuple(each["notes"])}) for each in content["verdicts"])
        return cls(verdicts, content["factor"], content["iterations"], content["batches"])


def run_first_steps(
    source: Source, space: Space | None, trainer_options: Mapping[str, Any], accelerator: str, seed: int
) -> FirstSteps:
    """Run steps 1 to 3 on a module of its own, until one fails. An error in a step is a failure.

    Args:
        source: Builds the module and the data.
        space: Has the values of hyperparameters that the module does not have yet.
        trainer_options: Arguments of Lightning's Trainer.
        accelerator: As in Lightning's Trainer.
        seed: Seed of the weights and of the order of the batches.

    Raises:
        WrongSetupError: If the module or the data has no validation.
    """
    options = {"accelerator": accelerator, "devices": 1}
    options |= {name: each for name, each in trainer_options.items() if name not in _NOT_IN_TRIALS}
    missing = unknown_values(source, space or {})
    with isolate_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the user's module and data may draw from it
        torch.manual_seed(seed)
        module, data = pickle.loads(pickle.dumps(source))(missing)  # objects of the user stay as they are
        _check_validation(module, data)
        look = _Look()
        verdicts: list[Verdict] = []
        iterations, rate = 0, None
        steps: tuple[Callable[..., Any], ...] = (check_initial_loss, overfit_small_sample, find_learning_rate)
        for name, step in zip(_NAMES, steps, strict=True):
            try:
                if not verdicts:
                    Trial(module, data, options).run(look)
                found = step(module, data, trainer_options=options)
            except Exception as error:
                said = f"{type(error).__name__}: {' '.join(str(error).split())}"
                found = Verdict(step=name, verdict="fail", message=f"The step could not run. {said}")
            verdicts.append(found)
            iterations += len(getattr(found, "losses", ())) if name == "initial_loss" else 0
            iterations += getattr(found, "steps", 0) + getattr(found, "iterations", 0)
            rate = getattr(found, "rate", None)
            if found.verdict == "fail":
                break
    factor = rate / look.largest if rate is not None and look.largest else None
    return FirstSteps(tuple(verdicts), factor, iterations, look.batches)


def _check_validation(module: L.LightningModule, data: L.LightningDataModule | None) -> None:
    """Refuse before step 1 what only a trial would refuse."""
    loads = is_overridden("val_dataloader", module, L.LightningModule)
    loads |= data is not None and is_overridden("val_dataloader", data, L.LightningDataModule)
    for there, what, where in (
        (is_overridden("validation_step", module, L.LightningModule), "validation_step", type(module).__name__),
        (loads, "val_dataloader", type(data if data is not None else module).__name__),
    ):
        if not there:
            raise WrongSetupError(
                f"`monitor` must be logged in validation, got {where} without `{what}`. Write it: trials are compared "
                "on validation."
            )


def unknown_values(source: Source, space: Mapping[str, Domain]) -> dict[str, Any]:
    """The middle of the range of each hyperparameter that the module does not have yet, or has as None."""
    return {
        name: middle(each)
        for name, each in space.items()
        if name not in source.given or (source.given[name] is None and isinstance(each, Range))
    }


class _Look(L.Callback):
    """Notes the batches of an epoch and the largest learning rate, and ends the trial after one batch."""

    def __init__(self) -> None:
        self.batches: int | None = None
        self.largest: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look."""
        batches = trainer.num_training_batches
        self.batches = int(batches) if batches not in (0, float("inf")) else None
        if trainer.optimizers:
            self.largest = OptimizerRates(trainer.optimizers).largest

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """End the trial."""
        stop(trainer)
