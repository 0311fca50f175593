"""The base of the callbacks that change the model: places found, printed, changed, and put back."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from lightning_trainingkit._lightning import L, is_overridden, refuse_other_package
from lightning_trainingkit.callbacks._lightning import after_build, is_compiled, refuse_twice
from lightning_trainingkit.callbacks.noise.silent_noise import refuse_silent_noise
from lightning_trainingkit.callbacks.noise.training_share import check_length, training_share
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.noise_schedule import Schedule, check_schedule, scheduled_rate
from lightning_trainingkit.nn.layers.noisy_forward import Rated
from lightning_trainingkit.nn.layers.replace import named
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["Change", "NoiseSurgery", "Surgery"]


@dataclass(frozen=True)
class Change:
    """One row of the report of a surgery.

    Args:
        layer: Name of the layer.
        before: The layer as it was, in words.
        after: The layer as it is, in words.
    """

    layer: str
    before: str
    after: str


class Surgery(L.Callback):
    """Change layers of a finished model at the start of each stage, and print the changes before they are made.

    A subclass overrides ``operate``. It is called once a stage, after the module's own ``setup`` and
    ``configure_model``, which may make layers, and before a checkpoint is restored.

    Args:
        verbose: Whether to print the changes.
    """

    def __init__(self, *, verbose: bool = True) -> None:
        self.verbose = _check.flag("verbose", verbose)
        self.report: list[Change] = []
        """The changes of the last stage."""
        self._put_back: Callable[[], None] | None = None

    @abstractmethod
    def operate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the layers, call ``announce``, and change them. An error must leave the module as it was."""

    def announce(self, trainer: L.Trainer, changes: list[Change], *notes: str) -> None:
        """Add changes to the report, and print them with notes below."""
        self.report += changes
        if (changes or notes) and self.verbose and trainer.is_global_zero:
            console = Console()
            console.print(_table(type(self).__name__, changes) if changes else f"{type(self).__name__}: no changes.")
            for note in notes:
                console.print(note, markup=False, highlight=False, soft_wrap=True)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Change the layers, or wait for the module's own hooks that may make layers."""
        refuse_other_package(self, trainer)
        refuse_twice(trainer, self, "Put all patterns into one dict.")
        self.teardown(trainer, pl_module, stage)
        self.report = []
        turns = 1 + sum(is_overridden(name, pl_module) for name in ("setup", "configure_model"))

        def operate() -> None:
            nonlocal turns
            turns -= 1
            if not turns:
                self.operate(trainer, pl_module)
                if is_compiled(pl_module):
                    torch.compiler.reset()  # code that is compiled already does not notice a new forward of a submodule

        self._put_back = after_build(pl_module, operate)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mark the module as trained."""
        mark_trained(pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put back the module's hooks."""
        if self._put_back is not None:
            self._put_back()
            self._put_back = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put back the module's hooks."""
        self.teardown(trainer, pl_module, "fit")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_put_back": None}


class NoiseSurgery(Surgery):
    """Put noise into layers of a finished model for each stage. The keys of the state dict never change.

    A subclass overrides ``find`` and ``put``. The noise is taken away after each stage, also after an exception, and
    the trained weights stay. Outside of a fit the rates are the full ones, for ``MonteCarloDropout``.

    Args:
        schedule: ``constant``, ``rise`` from 0 to the rate, or ``fall`` to 0, over the training.
        until: Share of the training at which the schedule ends.
        verbose: Whether to print the changes.
    """

    def __init__(self, schedule: Schedule = "constant", until: float = 1.0, *, verbose: bool = True) -> None:
        super().__init__(verbose=verbose)
        self.schedule: Schedule = schedule
        self.until = check_schedule(schedule, until)
        self._noises: dict[str, tuple[Rated, float]] = {}
        self._unproven: list[str] = []
        self._compiled = False

    @abstractmethod
    def find(self, pl_module: L.LightningModule) -> dict[str, float]:
        """Find the places by name, and the full rate of each.

        Raises:
            ValueError: If a pattern matches nothing, or a place must not be changed.
        """

    @abstractmethod
    def put(self, name: str, layer: nn.Module, rate: float) -> Rated:
        """Put the noise into one place. It must raise no error."""

    @abstractmethod
    def describe(self, name: str, layer: nn.Module, rate: float) -> Change:
        """Describe the change of one place, before it is made."""

    @property
    def present_rates(self) -> dict[str, float]:
        """The present rate of each place."""
        return {name: noise.rate for name, (noise, _) in self._noises.items()}

    def remove(self) -> None:
        """Take the noise away, at any time. The trained weights stay, and the keys are those of the plain model."""
        for noise, _ in reversed(self._noises.values()):
            noise.remove()
        if self._noises and self._compiled:
            torch.compiler.reset()
        self._noises, self._unproven = {}, []

    def operate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the noise into the places."""
        if self._moves:
            if self.schedule == "constant":
                check_length(trainer, self.until)
            elif trainer.max_steps < 0 and (trainer.max_epochs or -1) < 0:
                raise ValueError(
                    f"`schedule` must be 'constant' where the training has no known length, got {self.schedule!r}. "
                    "Give the Trainer max_epochs or max_steps."
                )
            if is_compiled(pl_module):
                raise ValueError(
                    f"`schedule` must be 'constant' with until=1 for a compiled module, got {self.schedule!r} with "
                    f"until={self.until:g}: each new rate would compile it again. Leave the schedule out."
                )
        found = self.find(pl_module)
        layers = named(pl_module)
        self.announce(trainer, [self.describe(name, layers[name], rate) for name, rate in found.items()])
        for name, rate in found.items():
            self._noises[name] = self.put(name, layers[name], rate), rate
        self._compiled = is_compiled(pl_module)
        if trainer.training:
            self._unproven = list(self._noises)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rates of this moment of the training."""
        if self._moves:
            share = training_share(trainer)
            for noise, full in self._noises.values():
                noise.rate = scheduled_rate(full, share, self.schedule, self.until)
            # a tensor on the CPU: a float would be copied to the device
            pl_module.log(f"noise/{type(self).__name__}", torch.tensor(max(self.present_rates.values(), default=0.0)))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raise ValueError after the first batch if a layer had no noise: it was not called, or was in eval mode."""
        if not self._unproven:
            return
        noises = {name: self._noises[name][0] for name in self._unproven if name in self._noises}
        self._unproven = []
        refuse_silent_noise(noises, named(pl_module), type(self).__name__)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put back the module's hooks, and take the noise away."""
        super().teardown(trainer, pl_module, stage)
        self.remove()

    @property
    def _moves(self) -> bool:
        return self.schedule != "constant" or self.until < 1

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_noises": {}, "_unproven": []}


def _table(title: str, changes: list[Change]) -> Table:
    lines = Table(title=title, box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("Layer", "Before", "After"):
        lines.add_column(heading, overflow="fold")
    for row in changes:
        lines.add_row(*map(escape, (row.layer, row.before, row.after)))
    return lines
