"""The losses of the first batches, and what they should be, without an optimizer step."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.diagnostics.first_look import rehearse_training
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.input_summary import summarise_input
from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall
from lightning_trainingkit.nn.diagnostics.observation import Observation
from lightning_trainingkit.nn.structure.head import find_head
from lightning_trainingkit.tuning.chance import CLASSIFICATION, uninformed_loss
from lightning_trainingkit.tuning.spied_step import SpiedStep, spy_on
from lightning_trainingkit.tuning.trial import Data, Trial, stop

__all__ = ["FirstLosses", "first_losses", "known_part", "labels_in", "make_no_steps"]


@dataclass
class FirstLosses:
    """The losses of the first batches.

    Args:
        losses: The loss of each batch, without penalties.
        expected: The loss of outputs that say nothing, for each batch. Empty if it is unknown.
        name: Names of the losses.
        classifies: Whether all losses are of classes.
        labels: The targets of each batch: class indices, or zeros and ones.
        outputs: Number of classes of a softmax or hinge loss, None where it is unknown.
        head: Name of the last layer, empty where it was not found.
        inputs_unscaled: Whether an input is far from mean 0 and std 1.
        findings: What the first batch shows.
        notes: Remarks.
    """

    losses: list[float] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)
    name: str = "the loss"
    classifies: bool = False
    labels: list[Tensor] = field(default_factory=list)
    outputs: int | None = None
    head: str = ""
    inputs_unscaled: bool = False
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def first_losses(trial: Trial, batches: int, *, of_step: bool = False, scale_input: bool = False) -> FirstLosses:
    """Run a copy of the module on its first batches, without an optimizer step.

    Args:
        trial: The trial.
        batches: Largest number of batches.
        of_step: Whether to take the loss that the step returns, with penalties, not its known part.
        scale_input: Whether to scale each input to mean 0 and std 1.

    Raises:
        ValueError: If no loss is seen.
        LabelsOutOfRangeError: If a label is no index of a class.
    """
    look = _Look(batches, of_step, scale_input)
    trial.run(look, look.prepare)
    if look.step is not None:
        look.step.check_labels()
    seen = look.seen
    if not seen.losses:
        raise ValueError(
            "`training_step` must return a loss, got None in each batch. Return the loss, or call "
            "`self.manual_backward(loss)`."
            if look.number
            else "`data` must give at least one training batch, got none. Give a train loader or a DataModule with one."
        )
    if not seen.expected and not of_step and not scale_input and seen.head:
        silent = _Look(batches, True, False, silence=seen.head)
        with suppress(Exception):  # the module's own code, with a last layer of zeros
            trial.run(silent, silent.prepare)
            seen.expected = silent.seen.losses[: len(seen.losses)]
            seen.classifies = bool(seen.labels)
            seen.notes.append(f"The expected loss was measured with the outputs of {seen.head} at zero.")
            outputs = silent.seen.outputs
            if outputs is not None and outputs > 2 and abs(seen.expected[0] - (outputs - 1)) < 1e-3:
                seen.name, seen.outputs = "hinge", outputs
    return seen


def known_part(loss: Tensor | None, calls: list[LossCall], *, automatic: bool) -> tuple[Tensor, Tensor] | None:
    """Which part of a loss its known losses are, and what this part is for outputs that say nothing.

    The known losses may stand in it with factors, or be averaged by hand. None if no loss is known.

    Args:
        loss: The loss of the step, with its graph.
        calls: The recorded calls, with their graphs.
        automatic: Whether the graphs are still there: manual optimization has used them.
    """
    known = [(call.result, base) for call in calls if (base := uninformed_loss(call)) is not None]
    if not known:
        return None
    results = [result for result, _ in known]
    if loss is not None and loss.requires_grad and automatic:
        with_graph = [each for each in results if each.requires_grad]
        found = torch.autograd.grad(loss.sum(), with_graph, retain_graph=True, allow_unused=True)
        by_result = dict(zip(map(id, with_graph), found, strict=True))
        factors = [by_result.get(id(each)) for each in results]
    else:
        factors = [torch.ones_like(each) / each.numel() for each in results]
    used = [(factor, *pair) for factor, pair in zip(factors, known, strict=True) if factor is not None]
    if not used:
        return None
    part = torch.stack([(factor * result).sum() for factor, result, _ in used]).sum()
    return part, torch.stack([(factor.to(base) * base).sum() for factor, _, base in used]).sum()


def make_no_steps(trainer: L.Trainer) -> None:
    """Let the optimizers run their closures, and change nothing."""

    def step(closure: Callable[[], Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        with torch.enable_grad():
            return None if closure is None else closure()

    for optimizer in trainer.optimizers:
        vars(optimizer)["step"] = step


class _Look(L.Callback):
    """Collects the losses of the first batches."""

    def __init__(self, batches: int, of_step: bool, scale_input: bool, silence: str = "") -> None:
        self.seen = FirstLosses()
        self.number = 0
        self.step: SpiedStep | None = None
        self._batches, self._of_step, self._scale_input, self._silence = batches, of_step, scale_input, silence
        self._module: L.LightningModule | None = None

    def prepare(self, module: L.LightningModule, data: Data) -> Data:
        """Watch the training step."""
        self._module = module
        self.step = spy_on(module, self._see, change=_scaled if self._scale_input else None)
        return data

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the last layer, and keep the optimizers from changing anything."""
        make_no_steps(trainer)
        with suppress(Exception):  # a module without layers, or with a forward that no trace follows
            self.seen.head = find_head(pl_module)
        if self._silence:
            pl_module.get_submodule(self._silence).register_forward_hook(self._zero)

    def _zero(self, layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        self.seen.outputs = output.shape[1] if output.dim() > 1 else None
        return output * 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge the first batch as HealthReport does."""
        self.number += 1
        if self.number == 1:
            if not self._silence and not self._scale_input:
                found, note = rehearse_training(trainer, pl_module, batch, Observation())
                self.seen.findings = [each for each in found if each.kind != "wrong_initial_loss"]
                self.seen.notes += [note] if note else []
            summaries = summarise_input(batch, self.seen.labels[0] if self.seen.labels else None)
            self.seen.inputs_unscaled = any(abs(each.mean) + each.std > 2 for each in summaries)
        if self.number >= self._batches or trainer.is_last_batch:
            stop(trainer)

    def _see(self, loss: Tensor | None, calls: list[LossCall], batch: Any) -> None:
        assert self._module is not None
        if len(self.seen.losses) > self.number:
            return  # an optimizer that runs the step several times for a batch
        known = known_part(loss, calls, automatic=self._module.automatic_optimization)
        labelled = [call for call in calls if call.target is not None]
        first = not self.seen.losses
        if first and labelled:
            self.seen.name = ", ".join(dict.fromkeys(call.name for call in labelled))
            self.seen.classifies = all(call.name in CLASSIFICATION for call in labelled)
        if labelled:
            self._keep_labels(labelled[0])
        elif (found := labels_in(batch)) is not None:
            self.seen.labels.append(found.cpu())
        if known is not None and not self._of_step:
            self.seen.losses.append(float(known[0].detach()))
            self.seen.expected.append(float(known[1]))
            rest = 0.0 if loss is None else float(loss.detach().sum()) - float(known[0].detach())
            if first and self._module.automatic_optimization and abs(rest) > 0.01 * abs(float(known[0].detach())):
                self.seen.notes.append(f"The step adds {rest:.3g} to {self.seen.name}, which was left out here.")
        elif loss is not None:
            self.seen.losses.append(float(loss.detach().sum()))

    def _keep_labels(self, call: LossCall) -> None:
        assert call.target is not None
        if call.name in ("cross_entropy", "nll_loss", "multi_margin_loss"):
            self.seen.outputs = call.input.shape[1] if call.input.dim() > 1 else call.input.shape[0]
            if not call.target.is_floating_point():
                self.seen.labels.append(call.target.detach().cpu())
        elif call.name.startswith("binary_cross_entropy"):
            self.seen.labels.append(call.target.detach().float().cpu())


def labels_in(batch: Any) -> Tensor | None:
    """The only tensor of class indices in a batch, one for each example. None if there is none, or several."""
    found: list[Tensor] = []

    def look(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() == 1 and value.dtype in (torch.int64, torch.int32, torch.uint8):
            found.append(value.detach())
        return value

    tree_map(look, batch)
    return found[0] if len(found) == 1 else None


def _scaled(batch: Any) -> Any:
    """Scale each input of a batch to mean 0 and std 1."""
    summaries = {each.name: each for each in summarise_input(batch, labels_in(batch))}

    def walk(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            found = summaries.get(name)
            return value if found is None else (value.float() - found.mean) / (found.std or 1.0)
        if isinstance(value, dict):
            return {key: walk(part, f"{name}[{key!r}]") for key, part in value.items()}
        if isinstance(value, list | tuple):
            parts = [walk(part, f"{name}[{index}]") for index, part in enumerate(value)]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        return value

    return walk(batch, "batch")
