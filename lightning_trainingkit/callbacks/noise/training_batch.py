"""The base of the callbacks that change training batches, and the one patch of ``training_step`` that they share."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from lightning_trainingkit._lightning import L, refuse_other_package
from lightning_trainingkit.callbacks.noise.random_stream import RandomStream
from lightning_trainingkit.callbacks.noise.training_share import check_length, training_share
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.image_batch import ImageBatch, Key, find_images
from lightning_trainingkit.nn.structure.replaced_forward import take_away
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["BatchCallback", "Step"]

Step = Callable[[ImageBatch], Any]


class BatchCallback(L.Callback):
    """Change the batches that ``training_step`` gets, on their device. All other steps are untouched.

    A subclass overrides ``change``, or ``run`` to call the step itself. Other hooks see the user's own batch.

    Args:
        probability: Probability that a batch or an image is changed.
        until: Share of the training after which no batch is changed, 1 for none.
        image: Key or index of the images in the batch. None looks for them.
        target: Key or index of the target in the batch. None looks for it.
        seed: Seed of the callback's own random numbers. None takes torch's seed at the start of the fit.
    """

    order: ClassVar[int]
    """Callbacks with a lower number run first: 0 augmentation, 1 erasing, 2 blending."""
    pixels: ClassVar[bool] = True
    """Whether the images must be ``(N, C, H, W)``."""
    labels: ClassVar[bool] = False
    """Whether the batch must hold a target."""

    def __init__(
        self,
        *,
        probability: float = 1.0,
        until: float = 1.0,
        image: Key | None = None,
        target: Key | None = None,
        seed: int | None = None,
    ) -> None:
        hint = "To train without it, leave the callback out."
        self.probability = _check.number("probability", probability, hint, above=0, most=1)
        self.until = _check.number("until", until, "Try 0.9, to switch it off for the last tenth.", above=0, most=1)
        self.image, self.target = image, target
        self.seed = None if seed is None else _check.integer("seed", seed, "Any seed, such as 0, will do.", least=0)
        self._stream = RandomStream(type(self).__name__, self.seed)
        self._patch: _PatchedStep | None = None
        self._started = False

    def start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: ImageBatch) -> None:
        """Check the first batch of a fit that the callback may change. It may read values of tensors."""

    def change(self, batch: ImageBatch, generator: torch.Generator) -> ImageBatch:
        """Return the changed batch. Draws come from the generator, which is on the CPU."""
        raise NotImplementedError

    def run(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: ImageBatch,
        generator: torch.Generator,
        step: Step,
    ) -> Any:
        """Change a batch and return what the step returns for it."""
        return step(self.changed(batch, generator))

    def found(self, batch: Any) -> ImageBatch:
        """Return a batch with its images and its target."""
        return find_images(batch, self.image, self.target, pixels=self.pixels, labels=self.labels)

    def off(self, step: Callable[[Any], Any], batch: Any) -> Any:
        """Run the step after ``until``."""
        return step(batch)

    def changed(self, batch: ImageBatch, generator: torch.Generator) -> ImageBatch:
        """Return what ``change`` returns, without gradients and in the precision of the images."""
        with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
            return self.change(batch, generator)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put the patch in front of the training step. One patch serves all callbacks of this kind."""
        refuse_other_package(self, trainer)
        if stage != "fit":
            return
        callbacks = [each for each in trainer.callbacks if isinstance(each, BatchCallback)]  # type: ignore[attr-defined]
        _refuse_two_blends([each for each in callbacks if each.order == 2])
        _refuse_iterator(pl_module)
        check_length(trainer, self.until)
        self._put_back()
        self._stream.restart()
        self._started = False
        if self is callbacks[0]:
            self._patch = _PatchedStep(trainer, pl_module, sorted(callbacks, key=lambda each: each.order))

    def around(self, trainer: L.Trainer, pl_module: L.LightningModule, step: Callable[[Any], Any], batch: Any) -> Any:
        """Run the training step on a batch, changed or not."""
        generator = self._stream.generator(trainer)
        if self.until < 1 and training_share(trainer) >= self.until:
            return self.off(step, batch)
        found = self.found(batch)
        if not self._started:
            self.start(trainer, pl_module, found)
            self._started = True
        return self.run(trainer, pl_module, found, generator, lambda changed: step(changed.whole))

    def state_dict(self) -> dict[str, Any]:
        """Return the seed."""
        return {} if self._stream.seed is None else {"seed": self._stream.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the seed of the interrupted run, unless the user gave one."""
        if self.seed is None:
            self._stream.seed = state_dict.get("seed")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mark the module as trained."""
        mark_trained(pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the patch away."""
        self._put_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the patch away."""
        self._put_back()

    def _put_back(self) -> None:
        if self._patch is not None:
            self._patch.remove()
            self._patch = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_patch": None}


class _PatchedStep:
    """A training step that passes its batch through callbacks. Copies of the module run their own plain step.

    Args:
        trainer: The Trainer.
        pl_module: The module, whose ``training_step`` it replaces until ``remove``.
        callbacks: The callbacks, in the order in which they change a batch.
    """

    def __init__(self, trainer: L.Trainer, pl_module: L.LightningModule, callbacks: Sequence[BatchCallback]) -> None:
        self._trainer, self._module, self._callbacks = trainer, pl_module, callbacks
        self._found = vars(pl_module).get("training_step")
        self._step = pl_module.training_step
        functools.update_wrapper(self, self._step, updated=())
        # Lightning unwraps once and reads the code, to count the arguments and to see that the method is overridden.
        self.__wrapped__ = inspect.unwrap(self._step)
        self.__code__ = getattr(self.__wrapped__, "__code__", None)
        vars(pl_module)["training_step"] = self

    def __call__(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the step. A ``validation_step`` that calls it gets the batch as it is."""

        def step(batch: Any) -> Any:
            return self._step(batch, *args, **kwargs)

        for callback in reversed(self._callbacks) if self._trainer.training else ():
            step = functools.partial(callback.around, self._trainer, self._module, step)
        return step(batch)

    def remove(self) -> None:
        """Put back what stood in the module."""
        take_away(self._module, self, self._found, "training_step")

    def __reduce__(self) -> Any:
        return _same, (self._step,)


def _same(step: Callable[..., Any]) -> Callable[..., Any]:
    return step


def _refuse_two_blends(blends: list[BatchCallback]) -> None:
    if len(blends) > 1:
        names = [type(each).__name__ for each in blends]
        raise ValueError(
            f"`callbacks` must hold one callback that blends images, got {' and '.join(names)}. "
            f"Write Blend([{', '.join(f'{name}(...)' for name in names)}]), which picks one for each batch."
        )


def _refuse_iterator(pl_module: L.LightningModule) -> None:
    if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
        raise TypeError(
            "`training_step` must take a batch beside callbacks that change batches, got `dataloader_iter`. "
            "Take the batch as the first argument."
        )
