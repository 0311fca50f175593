"""The base of the callbacks that blend pairs of images."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_trainingkit._lightning import L, rank_zero_info
from lightning_trainingkit.callbacks._lightning import compiler_of
from lightning_trainingkit.callbacks.noise.blended_targets import check_targets, is_mask
from lightning_trainingkit.callbacks.noise.other_entries import check_others, of_partners
from lightning_trainingkit.callbacks.noise.pair_step import PairStep
from lightning_trainingkit.callbacks.noise.soft_targets import checked_step, probabilities
from lightning_trainingkit.callbacks.noise.training_batch import BatchCallback, Step
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.image_batch import ImageBatch
from lightning_trainingkit.functional.mixing import cutmix, mixup
from lightning_trainingkit.functional.mixing_draws import beta_weights

__all__ = ["BlendDraws", "BlendingCallback"]


@dataclass(frozen=True)
class BlendDraws:
    """Draws for one batch.

    Attributes:
        partner: Index of each image's partner, shape ``(N,)``.
        weights: Share of the image's own target, shape ``(1,)`` for all images or ``(N,)``.
        boxes: Boxes to paste, shape ``(1, 4)`` or ``(N, 4)``. None blends whole images.
    """

    partner: Tensor
    weights: Tensor
    boxes: Tensor | None = None

    @property
    def weight(self) -> float | Tensor:
        """The weights as the formulas take them."""
        return float(self.weights) if len(self.weights) == 1 else self.weights


class BlendingCallback(BatchCallback):
    """Blend each image of a batch with a partner from the same batch. Evaluation is untouched.

    Args:
        num_classes: Number of classes, or None.
        targets: ``pair`` or ``soft``.
        draw: ``batch`` or ``image``.
        **options: Arguments of ``BatchCallback``.
    """

    order = 2
    labels = True
    pastes: ClassVar[bool] = False
    """Whether the callback pastes boxes, of masks too, in all batches."""

    def __init__(self, num_classes: int | None, targets: str, draw: str, **options: Any) -> None:
        super().__init__(**options)
        hint = "Count the classes from 1, or leave it out with targets='pair'."
        self.num_classes = None if num_classes is None else _check.integer("num_classes", num_classes, hint, least=2)
        _check.one_of("targets", targets, ("pair", "soft"), "The default is 'pair'.")
        _check.one_of("draw", draw, ("batch", "image"), "The default is 'batch'.")
        self.targets, self.draw = targets, draw
        self._pair: PairStep | None = None
        self._told = self._checked = False

    def draw_weights(self, count: int, alpha: float, generator: torch.Generator) -> Tensor | None:
        """Draw weights from Beta(alpha, alpha), 1 with the probability of no blend. None if all are 1."""
        rows = count if self.draw == "image" else 1
        weights = beta_weights(rows, alpha, generator)
        if self.probability == 1:
            return weights
        blended = torch.rand(rows, generator=generator) < self.probability
        return torch.where(blended, weights, 1.0) if blended.any() else None

    def draws(self, count: int, size: tuple[int, ...], generator: torch.Generator) -> BlendDraws | None:
        """Draw for a batch of ``count`` images of the given size. None leaves the batch as it is."""
        raise NotImplementedError

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse modules whose step cannot be called with pairs of targets."""
        if stage == "fit" and self.targets == "pair":
            _refuse_unpairable(pl_module)
        super().setup(trainer, pl_module, stage)
        self._pair = None
        self._told = self._checked = False

    def start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: ImageBatch) -> None:
        """Check the images and the targets of the first batch."""
        check_targets(batch, self.targets, self.draw, self.num_classes, pastes=self.pastes)
        paired = self.targets == "pair" and not (self.pastes and is_mask(batch))
        check_others(batch, type(self).__name__, paired=paired, pastes=self.pastes)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look again at which layers the step calls: another callback may have changed them."""
        self._pair = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that shared layers had the same inputs for both targets."""
        if self._pair is not None:
            self._pair.check()
        self._pair = None

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the patch away, and forget the module."""
        super().teardown(trainer, pl_module, stage)
        self._pair = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the patch away, and forget the module."""
        super().on_exception(trainer, pl_module, exception)
        self._pair = None

    def run(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: ImageBatch,
        generator: torch.Generator,
        step: Step,
    ) -> Any:
        """Blend a batch and run the step, once or with each target."""
        count, size = len(batch.images), tuple(batch.images.shape[-2:])
        draws = self.draws(count, size, generator) if count > 1 else None
        if self.targets == "soft":
            return self._run_soft(batch, draws, step)
        if self._pair is None:
            self._pair = PairStep(pl_module, type(self).__name__)
        if draws is None:
            return self._pair.single(lambda: step(batch))
        images = _blended(batch.images, draws)
        if draws.boxes is not None and is_mask(batch):
            pasted = cutmix(batch.labels, draws.partner, draws.boxes)
            return self._pair.single(lambda: step(batch.replaced(images, pasted)))
        return self._run_pair(self._pair, batch, draws, images, step)

    def off(self, step: Callable[[Any], Any], batch: Any) -> Any:
        """Run the step after ``until``. A step that takes soft targets gets them to the end."""
        if self.targets == "pair":
            return step(batch)
        found = self.found(batch)
        return step(found.replaced(labels=probabilities(found.labels, self.num_classes)).whole)

    def _run_pair(self, pair: PairStep, batch: ImageBatch, draws: BlendDraws, images: Tensor, step: Step) -> Any:
        version = images._version
        other = of_partners(batch, images, draws.partner)

        def second() -> Any:
            # A step that changed its images in place gets them once more as they were.
            return step(other if images._version == version else other.replaced(_blended(batch.images, draws)))

        targets = [(batch.labels, other.labels)]
        targets += [(value, other.rows()[key]) for key, value in batch.rows().items() if key != batch.target]
        returned = pair.pair(lambda: step(batch.replaced(images)), second, targets, float(draws.weights))
        line = None if self._told else pair.layers_run_twice()
        if line:
            rank_zero_info(line)
            self._told = True
        return returned

    def _run_soft(self, batch: ImageBatch, draws: BlendDraws | None, step: Step) -> Any:
        images, labels = batch.images, probabilities(batch.labels, self.num_classes)
        if draws is not None:
            images = _blended(images, draws)
            if draws.boxes is not None and is_mask(batch):
                labels = cutmix(labels, draws.partner, draws.boxes)
            else:
                labels = mixup(labels, draws.partner, draws.weight)
        if self._checked:
            return step(batch.replaced(images, labels))
        self._checked = True
        return checked_step(lambda targets: step(batch.replaced(images, targets)), labels)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_pair": None}

    def __repr__(self) -> str:
        names = inspect.signature(type(self).__init__).parameters.keys() - {"self"}
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in sorted(names))})"


@torch.no_grad()
def _blended(images: Tensor, draws: BlendDraws) -> Tensor:
    if draws.boxes is None:  # no operation of either formula changes its type under autocast
        return mixup(images, draws.partner, draws.weight)
    return cutmix(images, draws.partner, draws.boxes)


def _refuse_unpairable(pl_module: L.LightningModule) -> None:
    if not pl_module.automatic_optimization:
        raise TypeError(
            "`automatic_optimization` must be True for targets='pair', got False: a step that optimizes by itself "
            "would do so for each of the two targets. Use targets='soft'."
        )
    if compiler_of(pl_module) is not torch.compile:
        raise TypeError(
            "`model` must be compiled inside for targets='pair', got a LightningModule compiled as a whole. "
            "Write module.net.compile() or module.net = torch.compile(module.net)."
        )
