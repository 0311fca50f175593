"""Step 3 at the start of a fit, as a callback."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_trainingkit._lightning import L, rank_zero_info, refuse_other_package
from lightning_trainingkit._notes import add_note
from lightning_trainingkit.callbacks._lightning import fast_dev_run, refuse_twice
from lightning_trainingkit.callbacks.diagnostics.recorded_verdict import record_verdict
from lightning_trainingkit.callbacks.noise.training_batch import BatchCallback
from lightning_trainingkit.functional import _check
from lightning_trainingkit.tuning._lightning import data_of_fit, options_of_fit, prepare_copies
from lightning_trainingkit.tuning.optimizer_rates import OptimizerRates
from lightning_trainingkit.tuning.rate_search import RateSearch, checked_candidates
from lightning_trainingkit.tuning.rate_verdict import LearningRate
from lightning_trainingkit.tuning.trial import Trial

__all__ = ["LearningRateTest"]


class LearningRateTest(L.Callback):
    """Find the learning rate at the start of the fit, by the trials of ``find_learning_rate``, and set it.

    The trials train copies, at most 800 iterations, with the Trainer's devices, precision, gradient clipping and
    accumulation, and without its other callbacks. The module, the data and all random states are left as they were. The
    found rate scales the rates of all parameter groups and the bases of their schedules. The loggers get the verdict
    as the hyperparameter ``check.learning_rate``. A resumed run keeps the rate of its checkpoint.

    Args:
        candidates: One to five rates in growing order. They replace the candidates of the range test. With several
            parameter groups, a rate is the largest one of all groups.
        apply: Whether to train at the found rate. If False, the fit is the one without this callback.
        verbose: Whether to print the verdict.

    Attributes:
        found: What ``find_learning_rate`` returns, None before the search and in a resumed run.
        rate: The rate that was found, also in a resumed run.

    Raises:
        TypeError: If the strategy is none of a single device and DDP, or if the module or its data cannot be copied.
        ValueError: If ``candidates`` are empty, not growing or not positive, or if no rate lowers the loss.

    Example:
        >>> import lightning as L
        >>> from lightning_trainingkit.tuning import LearningRateTest
        >>> trainer = L.Trainer(callbacks=[LearningRateTest()], logger=False, enable_checkpointing=False)
    """

    def __init__(self, candidates: Sequence[float] | None = None, *, apply: bool = True, verbose: bool = True) -> None:
        checked_candidates(candidates)
        self.candidates = candidates
        self.apply = _check.flag("apply", apply)
        self.verbose = _check.flag("verbose", verbose)
        self.found: LearningRate | None = None
        self.rate: float | None = None
        self._resumed = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a Trainer that the trials cannot copy."""
        refuse_other_package(self, trainer)
        self._resumed = False
        if stage == "fit":
            refuse_twice(trainer, self, "Give its candidates to one of them.")
            options_of_fit(trainer)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notice a resumed training. The optimizers get the rate of the checkpoint."""
        self._resumed = checkpoint["global_step"] > 0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Search, unless the training goes on from earlier steps."""
        if self._resumed or fast_dev_run(trainer):
            return
        if trainer.global_step == 0:  # otherwise the same Trainer goes on with new optimizers
            self._search(trainer, pl_module)
        if self.apply and self.rate is not None:
            schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
            OptimizerRates(trainer.optimizers).scale(self.rate, schedulers)

    def _search(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trial = Trial(pl_module, data_of_fit(trainer), options_of_fit(trainer))
        try:
            self.found = RateSearch(trial, self.candidates, prepare_copies).run()
        except Exception as error:
            names = [type(each).__name__ for each in trainer.callbacks if isinstance(each, BatchCallback)]  # type: ignore[attr-defined]
            if names:
                add_note(
                    error,
                    f"LearningRateTest tries rates on the DataLoader's own batches, without {', '.join(names)}. Beside "
                    "targets='soft' the step must take hard targets too, or LearningRateTest must be left out.",
                )
            raise
        self.rate = self.found.rate
        record_verdict(trainer, "learning_rate", self.found.line, self.found.rates)
        if self.verbose:
            rank_zero_info(f"LearningRateTest: {self.found.line}")
        if self.apply and self.rate is None:
            raise ValueError(
                "`configure_optimizers` must allow a learning rate that lowers the loss, got none. "
                f"{self.found.message} {self.found.advice} "
                "To train at the module's own rates, leave LearningRateTest out."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the found rate."""
        return {"rate": self.rate}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the rate of a checkpoint."""
        self.rate = state_dict["rate"]
