"""The trainable parameters of each phase in one module, planned and checked before training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torchmetrics import Metric

from lightning_trainingkit._lightning import GradientAccumulationScheduler, L
from lightning_trainingkit.functional.phases import Phase, last_blocks, layer_factor, warmup_factor
from lightning_trainingkit.nn.structure.blocks import Block, find_blocks
from lightning_trainingkit.nn.structure.call_order import call_order
from lightning_trainingkit.nn.structure.names import plain_name
from lightning_trainingkit.nn.structure.parameter_patterns import parameter_names, select

__all__ = ["PlannedPhase", "TransferPlan"]


@dataclass(frozen=True)
class PlannedPhase:
    """One phase, planned.

    Args:
        phase: The phase as the user gave it.
        factors: Trainable parameter to the factor on its learning rate.
        what: Its selectors and blocks, in words.
    """

    phase: Phase
    factors: dict[nn.Parameter, float]
    what: str


class TransferPlan:
    """The phases for one module.

    Args:
        module: The module, with requires_grad as its user has set it.
        phases: The phases, in order.
        lr_decay: Learning rate of the stem over the learning rate of the head.

    Raises:
        ValueError: If a selector matches no trainable parameter.
    """

    def __init__(self, module: nn.Module, phases: Sequence[Phase], lr_decay: float) -> None:
        every = parameter_names(module)
        lazy = [name for name, parameter in every.items() if is_lazy(parameter)]
        if lazy:
            raise ValueError(
                f"The module must know its shapes, got lazy parameters: {', '.join(lazy[:8])}. "
                "Call it once on a batch before the fit."
            )
        self._every = {name: (parameter, parameter.requires_grad) for name, parameter in every.items()}
        aliases = {name: parameter for name, parameter in every.items() if parameter.requires_grad}
        first = {parameter: name for name, parameter in reversed(aliases.items())}
        self.names = {name: parameter for name, parameter in aliases.items() if first[parameter] == name}
        """Parameters that the user has left trainable, by the first of their names."""
        if not self.names:
            raise ValueError("The module must have parameters with requires_grad=True, got none. Leave some trainable.")
        mine = set(self.names.values())
        _refuse_guess(module, phases)
        blocks = find_blocks(module, skip=(Metric,))
        kept = [Block(plain_name(each.name), tuple(p for p in each.parameters if p in mine)) for each in blocks]
        self.blocks = [block for block in kept if block.parameters]
        depths = {parameter: depth for depth, block in enumerate(self.blocks) for parameter in block.parameters}
        self.steps: list[PlannedPhase] = []
        for number, phase in enumerate(phases):
            found = select(f"phases[{number}]['train']", phase.train, aliases, self.blocks)
            chosen = {parameter for parameters in found.values() for parameter in parameters}
            factors = {
                each: layer_factor(depths[each], len(self.blocks), lr_decay)
                for each in self.names.values()
                if each in chosen
            }
            factors = _scaled(number, phase, factors, aliases, self.blocks)
            self.steps.append(PlannedPhase(phase, factors, self._what(phase, chosen)))

    def fits(self, module: nn.Module) -> bool:
        """Whether the module still has the parameters and the values of requires_grad that were planned for."""
        now = {name: (id(parameter), parameter.requires_grad) for name, parameter in parameter_names(module).items()}
        return now == {name: (id(parameter), flag) for name, (parameter, flag) in self._every.items()}

    def check_optimizers(self, optimizers: Sequence[Optimizer]) -> None:
        """Raise ValueError if a parameter of a phase is in no optimizer."""
        held = {parameter for each in optimizers for group in each.param_groups for parameter in group["params"]}
        wanted = {parameter for step in self.steps for parameter in step.factors}
        missing = [name for name, parameter in self.names.items() if parameter in wanted and parameter not in held]
        if missing:
            more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
            raise ValueError(
                f"`configure_optimizers` must hand over every parameter that a phase trains, got an optimizer without "
                f"{', '.join(missing[:8])}{more}. Pass `self.parameters()` and leave the freezing to the phases: "
                "parameters that are added later break schedules and resuming."
            )

    def check_starts(self, trainer: L.Trainer) -> None:
        """Raise ValueError if a phase can't begin in a training of this length, or begins before an earlier phase."""
        epochs, length, last_share = _extent(trainer)
        earlier = 0.0
        for number, step in enumerate(self.steps):
            start = step.phase.start
            if isinstance(start, float) and math.isinf(epochs) and trainer.max_steps < 0:
                raise ValueError(
                    f"`phases[{number}]['start']` must be an epoch where the training has no end, got {start}. "
                    "Or set max_epochs or max_steps of the Trainer."
                )
            if isinstance(start, int) and start >= epochs:
                raise ValueError(
                    f"`phases[{number}]['start']` must lie before the end of training, got {step.phase.when} of "
                    f"{epochs:.4g} epochs, which begin with 0. Start it earlier, leave it out, or train longer."
                )
            if isinstance(start, float) and start > last_share:
                raise ValueError(
                    f"`phases[{number}]['start']` must be at most {math.floor(last_share * 1e4) / 1e4}, where the last "
                    f"optimizer step begins (or the last epoch, if its length is unknown), got {start}. "
                    "Start it earlier, leave it out, or train longer."
                )
            at = start * length if isinstance(start, float) else start
            if at is None or not math.isfinite(at):
                continue
            if at <= earlier:
                raise ValueError(
                    f"`phases[{number}]['start']` must lie after the start of the phase before, got {start}, which is "
                    f"epoch {at:.4g} after epoch {earlier:.4g}. Put the phases in order."
                )
            earlier = at

    def rate_factors(
        self, began: Sequence[Sequence[int]], warmup_steps: int
    ) -> Callable[[int], dict[nn.Parameter, float | None]]:
        """Return the function that gives the factor on each parameter's learning rate, None for a frozen parameter.

        Args:
            began: Later phases that have begun: the number of each, and the optimizer steps before it.
            warmup_steps: Optimizer steps over which the rate of newly trainable parameters rises.

        Returns:
            A function of the optimizer steps so far.
        """
        current = self.steps[began[-1][0] if began else 0].factors
        trainable_since: dict[nn.Parameter, int | None] = dict.fromkeys(self.steps[0].factors)
        for phase, steps_before in began:
            trainable_since = {each: trainable_since.get(each, steps_before) for each in self.steps[phase].factors}
        newer = {each: since for each, since in trainable_since.items() if since is not None}
        steady: dict[nn.Parameter, float | None] = {**dict.fromkeys(self.names.values()), **current}

        def factors(steps_done: int) -> dict[nn.Parameter, float | None]:
            rises = {since: warmup_factor(steps_done - since, warmup_steps) for _, since in began}
            if all(rise == 1 for rise in rises.values()):
                return steady
            return steady | {each: current[each] * rises[since] for each, since in newer.items()}

        return factors

    def table(self, lr_decay: float, warmup_steps: int, cached: Sequence[bool] | None = None) -> Table:
        """Lay out the schedule; ``cached`` tells for each phase whether its features may be cached."""
        ramp = f", what begins later rises to it over {warmup_steps} steps" if warmup_steps else ""
        decay = f"lr: factor on the optimizer's own rate, stem to head (lr_decay={lr_decay:g}){ramp}"
        lines = Table(title="TransferLearning", caption=decay, box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
        lines.add_column("Phase", justify="right")
        lines.add_column("Starts")
        lines.add_column("Trains", overflow="fold")
        for heading in ("Parameters", "lr"):
            lines.add_column(heading, justify="right", no_wrap=True)
        if cached is not None:
            lines.add_column("Cached", no_wrap=True)
        whole = sum(parameter.numel() for parameter in self.names.values())
        for number, step in enumerate(self.steps):
            count = sum(parameter.numel() for parameter in step.factors)
            low, high = min(step.factors.values()), max(step.factors.values())
            rates = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
            share = f"{count:,} ({count / whole:.1%})"
            cells = [str(number + 1), escape(step.phase.when), escape(step.what), share, rates]
            cells += [] if cached is None else ["if possible" if cached[number] else "not cached"]
            lines.add_row(*cells)
        return lines

    def _what(self, phase: Phase, chosen: set[nn.Parameter]) -> str:
        """Describe the selectors and the blocks that they choose in whole or in part."""
        said = ", ".join(phase.train)
        whole = [block.name for block in self.blocks if chosen.issuperset(block.parameters)]
        part = [block.name for block in self.blocks if not chosen.isdisjoint(block.parameters)]
        if len(whole) == len(self.blocks):
            return said if said == "all" else f"{said}: all"
        shown = [name if name in whole else f"{name} (in part)" for name in part]
        shown = [*shown[:2], f"... {len(shown) - 4} more ...", *shown[-2:]] if len(shown) > 6 else shown
        return f"{said}: {', '.join(shown)}"


def _extent(trainer: L.Trainer) -> tuple[float, float, float]:
    """Return the most epochs, the length of the training in epochs, and the share that is done before its last step.

    A length that can't be known before training is infinite, with a share of 1.
    """
    epochs: float = math.inf if trainer.max_epochs is None or trainer.max_epochs < 0 else trainer.max_epochs
    max_steps = trainer.max_steps if trainer.max_steps > 0 else math.inf
    batches, every = trainer.num_training_batches, trainer.accumulate_grad_batches
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    varies = any(isinstance(each, GradientAccumulationScheduler) for each in callbacks)
    if math.isinf(batches) or varies or not trainer.lightning_module.automatic_optimization:
        if math.isfinite(max_steps) or math.isinf(epochs):
            return epochs, math.inf, 1.0
        batches, every = (1, 1) if math.isinf(batches) else (batches, 1)
    steps = math.ceil(batches / every)
    last = min(epochs * steps, max_steps) - 1
    if math.isinf(last):
        return epochs, math.inf, 1.0
    length = min(epochs, max_steps / steps)
    epoch, within = divmod(last, steps)
    return length, length, max(last / max_steps, (epoch + within * every / batches) / epochs)


def _refuse_guess(module: nn.Module, phases: Sequence[Phase]) -> None:
    """Raise ValueError for ``head`` and ``last n`` where the head would be a guess."""
    hooks = any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
    hooked = call_order(module, skip=(Metric,)).hooked if hooks else []
    for number, phase in enumerate(phases if hooked else ()):
        for selector in [*phase.train, *(phase.lr_scale if isinstance(phase.lr_scale, dict) else ())]:
            if selector == "head" or last_blocks(selector):
                parts = [name for name, each in module.named_children() if next(each.parameters(), None) is not None]
                raise ValueError(
                    f"`phases[{number}]` must name trainable layers where features may leave through a forward hook "
                    f"({', '.join(hooked[:8])}), got {selector!r}. Name some of {', '.join(parts)}, or parts of them."
                )


def _scaled(
    number: int,
    phase: Phase,
    factors: dict[nn.Parameter, float],
    names: dict[str, nn.Parameter],
    blocks: list[Block],
) -> dict[nn.Parameter, float]:
    """Apply ``lr_scale``: a number multiplies the factors, a dict replaces the factors of its selectors."""
    if not isinstance(phase.lr_scale, dict):
        return {parameter: factor * phase.lr_scale for parameter, factor in factors.items()}
    given = select(f"phases[{number}]['lr_scale']", phase.lr_scale, names, blocks)
    for selector, parameters in given.items():
        chosen = [parameter for parameter in parameters if parameter in factors]
        if not chosen:
            raise ValueError(
                f"`phases[{number}]['lr_scale']` must name trainable layers of this phase, got {selector!r}. "
                f"It trains {', '.join(phase.train)}."
            )
        factors = factors | dict.fromkeys(chosen, phase.lr_scale[selector])
    return factors
