"""Log statistics of what the layers put out during training."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from lightning_trainingkit._lightning import L, WandbLogger, rank_zero_info, refuse_other_package
from lightning_trainingkit.callbacks._broadcast import reducer
from lightning_trainingkit.callbacks._lightning import after_build, refuse_twice
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.statistics import ActivationSummary
from lightning_trainingkit.nn.diagnostics.activation_statistics import ActivationRecorder

__all__ = ["ActivationStats"]

_DEAD_WINDOWS = 10
_SCALARS = ("mean", "std", "min", "max", "saturated", "dead", "positive", "between_images")


class ActivationStats(L.Callback):
    """Log mean, spread, range, and saturated and dead units of each layer, on every n-th training step.

    Each logger gets scalars such as ``activations/net.1/std``, and W&B a histogram of each layer. The values cover
    all batches of the step, on all ranks. The model and its random numbers are unchanged.

    - **saturated**: share of outputs where the slope of a sigmoid, tanh or their hard variants is below 5 % of its
      maximum.
    - **dead**: share of units that are zero on every image of the last ten sampled steps.
    - **positive**: share of outputs above zero. Near 0 or 1, the outputs are not centred.
    - **between_images**: spread of a unit over images. Near 0, all images look the same to the layer.

    ``summaries`` holds the last values, also without a logger.

    Args:
        layers: Name or pattern, or several, such as ``"net.*"``. By default all activations, modules and functions;
            without any, the linear and convolutional layers.
        every_n_steps: Number of optimizer steps from one sampled step to the next.
        bins: Number of bins of each histogram, up to 512, the most that W&B takes.

    Raises:
        TypeError: If a layer is quantised.
        ValueError: If a pattern matches no layer, or a number is out of range.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[ActivationStats(every_n_steps=50)], logger=False)

    References:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    """

    def __init__(self, layers: str | Iterable[str] | None = None, every_n_steps: int = 50, bins: int = 64) -> None:
        if not isinstance(layers, str | Iterable | None):
            raise TypeError(
                f"`layers` must be a name, a pattern or a list of them, got {layers!r}. Write ['net.*'], say."
            )
        self.layers = layers if layers is None or isinstance(layers, str) else list(layers)
        self.every_n_steps = _check.integer("every_n_steps", every_n_steps, "50 is the default.", least=1)
        self.bins = _check.integer("bins", bins, "64 is the default.", least=1)
        if bins > 512:
            raise ValueError(f"`bins` must be at most 512, got {bins}. W&B takes no larger histogram.")
        self.summaries: dict[str, ActivationSummary] = {}
        self._next_step = 0
        self._clear()

    def _clear(self) -> None:
        self._recorder: ActivationRecorder | None = None
        self._no_layer: ValueError | None = None
        self._undo_hooks: Any = None
        self._sampled_step: int | None = None
        self._said = False

    @property
    def state_key(self) -> str:
        """Tells two of them apart, so that ``setup`` can say why it refuses the second."""
        return self._generate_state_key(layers=self.layers, every_n_steps=self.every_n_steps, bins=self.bins)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put hooks on the layers, before anything is compiled or wrapped."""
        refuse_other_package(self, trainer)
        refuse_twice(trainer, self, "Give one all patterns: layers=['net.*', 'head'].")
        self._remove()
        if stage == "fit":
            self.summaries, self._next_step = {}, 0
            self._undo_hooks = after_build(pl_module, lambda: self._attach(pl_module))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise the error of a pattern without a match."""
        if self._no_layer is not None:
            raise self._no_layer

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin a sampled step."""
        assert self._recorder is not None
        if self._sampled_step is None and trainer.global_step >= self._next_step:
            self._sampled_step = trainer.global_step
        self._recorder.recording = self._sampled_step is not None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the statistics once the optimizer has taken its step."""
        assert self._recorder is not None
        self._recorder.recording = False
        if self._sampled_step is None or trainer.global_step == self._sampled_step:
            return
        self._next_step, self._sampled_step = self._sampled_step + self.every_n_steps, None
        self.summaries = self._recorder.summaries(reducer(trainer))
        self._recorder.reset()
        missing = [name for name in self._recorder.layers if name not in self.summaries]
        if missing and not self._said:
            rank_zero_info(f"ActivationStats has no values of layers that were not called: {', '.join(missing)}.")
        self._said = True
        if trainer.is_global_zero:
            self._log(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the hooks off."""
        self._remove()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the hooks off."""
        self._remove()

    def state_dict(self) -> dict[str, Any]:
        """The step that is sampled next."""
        return {"next_step": self._next_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the sampled step of an earlier fit."""
        self._next_step = state_dict["next_step"]

    def _attach(self, pl_module: L.LightningModule) -> None:
        if self._recorder is not None:
            self._recorder.remove()
        self._recorder = self._no_layer = None
        try:
            self._recorder = ActivationRecorder(pl_module, self.layers, bins=self.bins, windows=_DEAD_WINDOWS)
        except ValueError as error:  # `configure_model` may still make the layer
            self._no_layer = error
        else:
            self._recorder.attach()

    def _remove(self) -> None:
        if self._undo_hooks is not None:
            self._undo_hooks()
        if self._recorder is not None:
            self._recorder.remove()
        self._clear()

    def _log(self, trainer: L.Trainer) -> None:
        scalars = {
            f"activations/{layer}/{statistic}": value
            for layer, summary in self.summaries.items()
            for statistic in _SCALARS
            if (value := getattr(summary, statistic)) is not None
        }
        for logger in trainer.loggers:
            histograms = _histograms(self.summaries) if isinstance(logger, WandbLogger) else {}
            logger.log_metrics(scalars | histograms, step=trainer.global_step)


def _histograms(summaries: dict[str, ActivationSummary]) -> dict[str, Any]:
    import wandb

    found = {}
    for layer, summary in summaries.items():
        counts_and_edges = np.array(summary.counts), np.array(summary.edges)
        found[f"activations/{layer}/histogram"] = wandb.Histogram(np_histogram=counts_and_edges)
    return found
