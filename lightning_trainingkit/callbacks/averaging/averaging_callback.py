"""Base class of the callbacks that average at test time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit._lightning import L, rank_zero_info, refuse_other_package
from lightning_trainingkit.callbacks._lightning import compiler_of
from lightning_trainingkit.callbacks.averaging.forward_patch import (
    ForwardPatch,
    PassProvider,
    refuse_masks_within,
)
from lightning_trainingkit.callbacks.averaging.output_check import OutputCheck
from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.averaging.average import Averaging, check_settings
from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.averaging.sources import Call, Source
from lightning_trainingkit.nn.structure.submodule import find_target

__all__ = ["AveragingCallback"]

STAGES = {"validate": "validation", "test": "test", "predict": "predict"}


class AveragingCallback(L.Callback):
    """Average the target's forward in the chosen stages, over the passes of ``_source`` and of other callbacks."""

    def __init__(
        self,
        target: str | None,
        average: str,
        early_exit: bool,
        max_batch: int | None,
        stages: str | list[str] | tuple[str, ...],
        output: str,
    ) -> None:
        check_settings(average, early_exit, max_batch)
        if target is not None and not isinstance(target, str):
            raise TypeError(
                f"`target` must be the name of a submodule, got {type(target).__name__}. Write it like 'net', or leave "
                "it out for the module itself."
            )
        names = [stages] if isinstance(stages, str) else stages
        if (
            not isinstance(names, Sequence)
            or not names
            or not all(isinstance(each, str) and each in STAGES for each in names)
        ):
            raise ValueError(
                f"`stages` must be some of {', '.join(STAGES)}, got {stages!r}. Leave it out for test, predict."
            )
        _check.one_of("output", output, ("auto", "classes"), "The default is 'auto'.")
        self.target = target
        self.average = average
        self.early_exit = early_exit
        self.max_batch = max_batch
        self.stages = stages
        self.output = output
        self.passes_per_sample: float | None = None
        """Mean number of passes a sample in the last stage: all passes, or fewer with an early exit."""
        self._patch: ForwardPatch | None = None
        self._output_check = OutputCheck()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the forward patch, which lasts for one stage."""
        return {**vars(self), "_patch": None}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a Trainer of the other Lightning package."""
        refuse_other_package(self, trainer)

    def _source(self, trainer: L.Trainer, pl_module: L.LightningModule, module: nn.Module) -> Source:
        """Return the source of this stage's passes; ``module`` is the target."""
        raise NotImplementedError

    def look_at_first(self, call: Call, module: nn.Module, arguments: Arguments) -> None:
        """Inspect the first call before it is averaged."""

    def observe(self, result: Tensor, averaging: Averaging) -> None:
        """Inspect the average of each call."""

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Patch the target's forward if ``stages`` holds this stage."""
        if not trainer.sanity_checking:
            self._begin("validate", trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Patch the target's forward if ``stages`` holds this stage."""
        self._begin("test", trainer, pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Patch the target's forward if ``stages`` holds this stage."""
        self._begin("predict", trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Follow the target's output through the step of the first batch."""
        self._watch(pl_module)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Raise if the first batch did not call the target or did not use its output as class scores."""
        self._check_called("validate", pl_module, batch_idx + dataloader_idx)
        self._end_batch("validate", batch, dataloader_idx)

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Follow the target's output through the step of the first batch."""
        self._watch(pl_module)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Raise if the first batch did not call the target or did not use its output as class scores."""
        self._check_called("test", pl_module, batch_idx + dataloader_idx)
        self._end_batch("test", batch, dataloader_idx)

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Follow the target's output through the step of the first batch."""
        self._watch(pl_module)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Raise if the first batch did not call the target or did not use its output as class scores."""
        self._check_called("predict", pl_module, batch_idx + dataloader_idx)
        self._end_batch("predict", batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the share of passes that the early exit saved."""
        self._report(trainer, pl_module, "val/passes_saved")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the share of passes that the early exit saved."""
        self._report(trainer, pl_module, "test/passes_saved")

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the share of passes that the early exit saved."""
        self._report(trainer, pl_module, None)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the target's own forward back."""
        self._end()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the target's own forward back."""
        self._end()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the target's own forward back."""
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the target's own forward back."""
        self._end()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put the target's own forward back."""
        self._end()

    def _begin(self, stage: str, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end()
        stages = [self.stages] if isinstance(self.stages, str) else self.stages
        if stage not in stages:
            if trainer.state.fn == stage:
                name = type(self).__name__
                rank_zero_info(f"{name} does not average in trainer.{stage}: its stages are {', '.join(stages)}.")
            return
        source = self._source(trainer, pl_module, find_target(pl_module, self.target))
        self._join(pl_module, self, source)

    def _join(self, pl_module: L.LightningModule, user: PassProvider, source: Source) -> None:
        """Add the passes of ``source`` to the target's average."""
        module = find_target(pl_module, self.target)
        self._patch = ForwardPatch.of(module, self.target or "", compiler_of(pl_module))
        self._patch.insists |= self.output == "classes"
        self._patch.add(user, source)
        refuse_masks_within(pl_module)

    def _end(self) -> None:
        self._output_check.close()
        if self._patch is not None:
            place, self._patch = self._patch, None
            place.remove(self)

    def _check_called(self, stage: str, pl_module: L.LightningModule, batches: int) -> None:
        if self._patch is None or self._patch.called or batches:
            return
        target = "the module's own forward" if self.target is None else repr(self.target)
        names = [name for name, _ in pl_module.named_modules() if name]
        raise ValueError(
            f"`target` must be called by {STAGES[stage]}_step, got {target}, which the first batch did not call. "
            f"Set it to the submodule that returns the logits. There are {', '.join(names[:20]) or 'none'}."
        )

    def _watch(self, pl_module: L.LightningModule) -> None:
        if self._patch is not None:
            self._output_check.begin(pl_module, self._patch)

    def _end_batch(self, stage: str, batch: Any, loader: int) -> None:
        if self._patch is not None:
            self._output_check.end(type(self).__name__, STAGES[stage], self._patch, batch)

    def _report(self, trainer: L.Trainer, pl_module: L.LightningModule, name: str | None) -> None:
        if self._patch is None or self._patch.averaging is None:
            return
        averaging = self._patch.averaging
        counted = torch.tensor([averaging.passes_made, averaging.samples], dtype=torch.float32, device=pl_module.device)
        made, samples = trainer.strategy.reduce(counted, reduce_op="sum").tolist()
        self.passes_per_sample = made / max(1, samples)
        if not averaging.early_exit or self._patch.users[0][0] is not self:
            return
        saved = 1 - self.passes_per_sample / averaging.passes
        rank_zero_info(f"Early exit: {self.passes_per_sample:.2f} of {averaging.passes} passes, {saved:.1%} saved.")
        if name is not None:
            pl_module.log(name, saved, sync_dist=True)  # equal on all ranks already
