"""Refuse outputs that the first batch of a stage does not use as class scores."""

from contextlib import ExitStack
from typing import Any

from lightning_trainingkit._lightning import L, rank_zero_info
from lightning_trainingkit.callbacks._lightning import is_compiled
from lightning_trainingkit.callbacks.averaging.forward_patch import ForwardPatch
from lightning_trainingkit.nn.averaging.batch_targets import class_targets
from lightning_trainingkit.nn.averaging.output_use import OutputUse

__all__ = ["OutputCheck"]


class OutputCheck:
    """Check how the first batch of each stage uses the target's output. One callback of each target checks.

    The evidence is, in this order:

    - **Calls**: the functions that the step calls on the output;
    - **Targets** in the batch or, in ``predict``, the result of an earlier stage;
    - **No evidence**: the outputs count as class scores, and a line says so.
    """

    def __init__(self) -> None:
        self._entered = ExitStack()
        self._use: OutputUse | None = None
        self._known: bool | None = None  # whether outputs are class scores, from an earlier stage
        self._reason = ""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the state that lasts for one batch."""
        return {**vars(self), "_entered": ExitStack(), "_use": None}

    def begin(self, pl_module: L.LightningModule, patch: ForwardPatch) -> None:
        """Start to follow the output, unless this stage has had a batch or another callback follows it."""
        if patch.use is not None:
            return
        patch.use = self._use = OutputUse()
        if not is_compiled(pl_module, outside=patch.module):  # the mode would become part of compiled code
            self._entered.enter_context(self._use)

    def close(self) -> None:
        """Stop following."""
        self._entered.close()
        self._use = None

    def end(self, name: str, stage: str, patch: ForwardPatch, batch: Any) -> None:
        """Stop following the output. Raise ValueError if the batch shows another use of it than as class scores.

        Args:
            name: Name of the callback.
            stage: ``"validation"``, ``"test"`` or ``"predict"``.
            patch: The patch of the target. If it insists, nothing is checked.
            batch: The batch. Its targets decide if the step's calls do not.
        """
        use = self._use
        if use is None:
            return
        self.close()
        use.conclude()
        if patch.insists or use.shape is None:
            return
        shown, reason = use.other is None and (use.classes is not None or None), f"{stage}_step {use.other}"
        if shown is None and stage == "predict":
            shown, reason = self._known, self._reason
        elif shown is None:
            shown, targets = class_targets(batch, use.inputs, use.shape)
            reason = f"have {targets} in the batch"
        target = repr(patch.name) if patch.name else "the module"
        if shown is None:
            rank_zero_info(f"{name} averages class probabilities: {stage}_step shows no other use of {target}.")
            return
        self._known, self._reason = shown, reason
        if not shown:
            raise ValueError(
                f"`target` must return class scores, whose softmax is averaged, got {target}, whose outputs {reason}. "
                "Name the submodule that returns class scores, or insist with output='classes'."
            )
