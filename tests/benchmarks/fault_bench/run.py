"""Train one case, and say how it ended."""

import math
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch

import lightning_trainingkit as kit

from . import faulty_loops, faulty_losses, faulty_parts, healthy_nets, net
from .cases import Case
from .data import STEPS, loaders
from .settings import Settings
from .witness import Witness

__all__ = ["Outcome", "run_case", "train"]


_MODULES = {
    **vars(net),
    **vars(healthy_nets),
    **vars(faulty_losses),
    **vars(faulty_parts),
    **vars(faulty_loops),
}


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Args:
        score: Accuracy, or R2 of a regression; 0 where it is not finite.
        loss: Mean training loss of the last ten steps.
        finite: Whether the losses and the weights were finite to the end.
        findings: What a callback with ``findings`` says, most likely cause first.
        verified: Whether the fault was seen to happen; None where nothing was to be verified.
        seconds: Duration of the fit.
    """

    score: float
    loss: float
    finite: bool
    findings: list[Any] = field(default_factory=list)
    verified: bool | None = None
    seconds: float = 0.0


class _Losses(L.Callback):
    """Training losses, kept on the device until the end."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self.losses.append(loss.detach())


def run_case(case: Case, callbacks: Sequence[L.Callback] = ()) -> Outcome:
    """Train a case with callbacks, and look whether its fault really happens."""
    return train(case.settings, callbacks, case.verify)


def train(settings: Settings, callbacks: Sequence[L.Callback] = (), verify: str = "") -> Outcome:
    """Train with these settings.

    Args:
        settings: The training.
        callbacks: Callbacks of the Trainer; ``findings`` of one of them go into the outcome.
        verify: Name of what the run must show, in ``witness``.
    """
    torch.manual_seed(settings.seed)
    losses, witness = _Losses(), Witness(verify)
    module = _MODULES[settings.module](settings)
    own: list[L.Callback] = [losses, *([witness] if verify else [])]
    if settings.override_init:
        own.append(kit.InitOverride("kaiming_normal", bias="zeros", verbose=False))
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some faults make torch or Lightning warn
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=settings.epochs,
            limit_train_batches=STEPS,
            callbacks=[*own, *callbacks],
            logger=False,
            default_root_dir=Path(tempfile.gettempdir(), "fault_bench"),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **dict(settings.trainer_options),
        )
        trainer.fit(module, *loaders(settings))
    seconds = time.perf_counter() - start
    steps = torch.stack(losses.losses).float() if losses.losses else torch.tensor([math.nan])
    finite = bool(steps.isfinite().all()) and all(bool(each.isfinite().all()) for each in module.parameters())
    score = float(trainer.callback_metrics.get("val_score", math.nan))
    findings = [finding for callback in callbacks for finding in getattr(callback, "findings", ())]
    return Outcome(
        score if math.isfinite(score) and finite else 0.0,
        float(steps[-10:].mean()),
        finite,
        findings,
        witness.saw(module) if verify else None,
        seconds,
    )
