"""Rehearse the first training batch and the first validation batch on a copy, and judge what is seen."""

import copy
import math
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lightning_trainingkit._lightning import L, isolate_rng
from lightning_trainingkit.callbacks.diagnostics._lightning import Rehearsal
from lightning_trainingkit.nn.diagnostics.batch_leak import copies_of_the_first, find_batch_leak
from lightning_trainingkit.nn.diagnostics.dropout_calls import DropoutSpy
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.first_batch import (
    first_batch_findings,
    initial_loss,
    loss_sign,
)
from lightning_trainingkit.nn.diagnostics.first_input import FirstInput
from lightning_trainingkit.nn.diagnostics.input_summary import summarise_input
from lightning_trainingkit.nn.diagnostics.loss_calls import LossCall, LossSpy
from lightning_trainingkit.nn.diagnostics.observation import Observation

__all__ = ["rehearse_training", "rehearse_validation"]


def rehearse_training(
    trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, observation: Observation
) -> tuple[list[Finding], str]:
    """Run the training step on a copy of the module and the batch; all random states are put back.

    Args:
        trainer: The Trainer.
        pl_module: The module. It is left as it is.
        batch: The first batch.
        observation: Gets the loss of chance and the size of the input.

    Returns:
        The findings, and why the rehearsal was not possible, empty if it was.
    """
    with isolate_rng(), ExitStack() as stack:
        try:
            rehearsal = stack.enter_context(Rehearsal(trainer, pl_module))
            with LossSpy() as spy, FirstInput(rehearsal.module) as first_input:
                rehearsal.step("training_step", _clone(batch))
        except Exception as error:  # the module's own code: what it cannot do on a copy, the report does without
            return [], _note("training_step", error)
        target = next((call.target for call in spy.calls if call.target is not None), None)
        inputs = summarise_input(batch, target)
        sizes = [math.hypot(each.mean, each.std) for each in inputs]
        if sizes:  # a module may scale its input itself
            observation.input_size = max(sizes) if first_input.size is None else first_input.size
        _expect(observation, rehearsal.losses, spy.calls)
        rest = _rest(rehearsal.losses, spy.calls)
        findings = first_batch_findings(rehearsal.losses, spy.calls, inputs, pretrained=trainer.global_step > 0)
        findings += _leaks(rehearsal, spy.calls, batch)
        if rest is not None and target is not None and rest[0] > 0.5 * rest[1]:
            observation.penalty_share = _penalty_share(rehearsal, batch, target, *rest)
        return findings, ""


def rehearse_validation(trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> tuple[list[Finding], str]:
    """Run the validation step twice on a copy of the module, with other random numbers, and compare the outputs.

    Returns:
        The findings, and why the rehearsal was not possible, empty if it was.
    """
    outputs: list[Tensor] = []
    dropout = DropoutSpy()
    with isolate_rng(), torch.no_grad(), ExitStack() as stack:
        try:
            rehearsal = stack.enter_context(Rehearsal(trainer, pl_module))
            rehearsal.module.eval()
            for seed in (0, 1):
                torch.manual_seed(seed)
                with LossSpy() as spy, dropout:
                    rehearsal.step("validation_step", _clone(batch))
                outputs += [call.input.detach().float() for call in spy.calls[:1]]
        except Exception as error:  # as in training
            return [], _note("validation_step", error)
        if any(layer.training for layer in rehearsal.module.modules()):
            return [], ""
    if not dropout.names or len(outputs) < 2 or outputs[0].shape != outputs[1].shape:
        return [], ""  # a step may draw on purpose: noise of a diffusion, a sample of a VAE
    change = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max().clamp_min(1e-12))
    if not change > 1e-3:
        return [], ""
    message = (
        f"In eval mode, the same validation batch gives outputs that differ by {change:.1%} from run to run: it "
        f"calls `{dropout.names[0]}` as in training."
    )
    advice = "Pass the mode to functions that draw: `F.dropout(x, p, training=self.training)`."
    return [Finding.of("evaluation_in_training_mode", "validation_step", change, message, advice)], ""


def _note(step: str, error: Exception) -> str:
    return f"`{step}` could not run on a copy of the module, so that the first batch was not checked: {error!r}"


def _expect(observation: Observation, losses: list[Tensor], calls: list[LossCall]) -> None:
    """Note the loss of outputs that say nothing, where the step returns one known loss, alone or with other terms."""
    known = [call for call in calls if call.name != "log_softmax"]
    if len(losses) != 1 or len(known) != 1 or known[0].result.dim():
        return
    observation.output_size = float(known[0].input.detach().float().square().mean().sqrt())
    chance = observation.chance_of_part = initial_loss(known[0])
    total, part, factor = float(losses[0].detach()), float(known[0].result.detach()), loss_sign(losses, known)
    observation.loss_factor = factor
    if chance is not None and factor is not None and math.isclose(total, factor * part, rel_tol=1e-2):
        observation.chance = factor * chance


def _rest(losses: list[Tensor], calls: list[LossCall]) -> tuple[float, float] | None:
    """What a step adds to its one known loss, and the whole. None where no loss is known."""
    known = [call for call in calls if call.name != "log_softmax"]
    if len(losses) != 1 or len(known) != 1 or known[0].result.dim():
        return None
    factor, total = loss_sign(losses, known), float(losses[0].detach())
    return None if factor is None else (total - factor * float(known[0].result.detach()), total)


def _penalty_share(rehearsal: Rehearsal, batch: Any, target: Tensor, rest: float, total: float) -> float | None:
    """Share of the loss that does not depend on the images: a penalty on the weights."""
    try:
        with LossSpy() as spy:
            rehearsal.step("training_step", _clone(copies_of_the_first(batch, len(target), target)))
    except Exception:
        return None  # the module cannot take this batch
    again = _rest(rehearsal.losses, spy.calls)
    return rest / total if again is not None and math.isclose(again[0], rest, rel_tol=1e-3) else None


def _leaks(rehearsal: Rehearsal, calls: list[LossCall], batch: Any) -> list[Finding]:
    classifying = [call for call in calls if call.name in ("cross_entropy", "nll_loss") and _given(call.target, batch)]
    if not classifying:
        return []
    number = next(index for index, call in enumerate(calls) if call is classifying[0])
    module: nn.Module = rehearsal.module
    module.eval()

    def outputs(given: Any, seed: int = 0) -> Tensor:
        torch.manual_seed(seed)
        with LossSpy() as spy:
            rehearsal.step("training_step", _clone(given))
        scores: Tensor = spy.calls[number].input.detach()
        return scores

    try:
        leak = find_batch_leak(module, outputs, batch, classifying[0].target)
        if leak is not None and not leak.layer and not torch.allclose(outputs(batch), outputs(batch, seed=1)):
            return []  # the step mixes the images of a batch at random, as mixup does
    except Exception:
        return []  # the module cannot take this batch in eval mode
    if leak is None:
        return []
    where = leak.layer or "the module"
    if leak.statistics:
        message = (
            f"In evaluation, the output for an image depends on the other images: {where} ({leak.kind}) uses the "
            "statistics of the batch."
        )
        advice = f"Give {where} running statistics: `nn.{leak.kind}(..., track_running_stats=True)`."
    else:
        kind = f" ({leak.kind})" if leak.kind else ""
        message = f"The output for an image depends on the other images of its batch, first in {where}{kind}."
        advice = (
            "Look at the dimensions there: softmax and means over `dim=0`, `view` and `reshape` across the batch, "
            "attention without `batch_first=True`."
        )
    return [Finding.of("batch_leaks", where, leak.change, message, advice)]


def _given(target: Tensor | None, batch: Any) -> bool:
    """Whether the target is a tensor of class indices out of the batch, not made from the batch's size."""
    if target is None or target.is_floating_point():
        return False
    same_size = [each for each in tree_leaves(batch) if isinstance(each, Tensor) and each.numel() == target.numel()]
    return any(torch.equal(each.flatten().to(target), target.flatten()) for each in same_size)


def _clone(batch: Any) -> Any:
    """A batch of the step's own: steps may change tensors and objects in place."""
    return tree_map(lambda each: each.detach().clone() if isinstance(each, Tensor) else copy.deepcopy(each), batch)
