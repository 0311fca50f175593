"""Train with residual branches dropped at random."""

from typing import Any, Literal

import torch
from torch import nn
from torchmetrics import Metric

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks._lightning import is_compiled, is_sharded
from lightning_trainingkit.callbacks.noise.random_stream import RandomStream
from lightning_trainingkit.callbacks.noise.surgery import Change, NoiseSurgery
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.noise_schedule import Schedule
from lightning_trainingkit.nn.layers.noisy_forward import Rated, RatedAttribute
from lightning_trainingkit.nn.layers.replace import check_place, find_places
from lightning_trainingkit.nn.layers.stochastic_depth import BranchDrop, BranchSkip, depth_rates
from lightning_trainingkit.nn.structure.names import plain_name, plain_names
from lightning_trainingkit.nn.structure.parameter_patterns import read_patterns
from lightning_trainingkit.nn.structure.randomness import rate_attribute
from lightning_trainingkit.nn.structure.residual import ResidualBranch, residual_branches

__all__ = ["StochasticDepth"]


class StochasticDepth(NoiseSurgery):
    """Drop residual branches at random in training, later ones more often; evaluation is untouched.

    Branch ``l`` of ``L`` is dropped with the probability ``rate * l / L``. A kept branch is divided by the probability
    to keep it, as in torchvision. Tracing the forward finds the branches: what a block adds to its own input, or to a
    projection of it.

    - **Layers for stochastic depth** that the model holds already (torchvision's, timm's) get these rates. None are
      nested, and their own rates come back at the end.
    - **Keys** of the state dict never change, and ``remove()`` keeps the trained weights.
    - **A skipped branch** has gradients of zero: optimizers go on with momentum and weight decay.

    The changes are printed before they are made. ``MonteCarloDropout`` averages the draws at test time.

    Args:
        rate: Rate of the last branch, in [0, 1).
        layers: Name pattern of residual blocks, or a list of patterns.
        mode: ``"row"`` draws for each example. ``"batch"`` skips the branch for a batch, which saves its time. All
            ranks then skip the same branches.
        schedule: ``"constant"``, ``"rise"`` from 0 to the rates, or ``"fall"`` to 0, over the training.
        until: Share of the training at which the schedule ends.
        verbose: Whether to print the changes.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``rate`` is outside [0, 1). In ``setup``, if there is no residual branch, if a pattern matches
            none, or if a branch cannot be dropped. If ``mode="batch"`` meets a compiled or sharded module.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[StochasticDepth(0.2)], logger=False, enable_checkpointing=False)

    References:
        Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, arXiv:1603.09382.
    """

    def __init__(
        self,
        rate: float = 0.2,
        *,
        layers: str | list[str] = "*",
        mode: Literal["row", "batch"] = "row",
        schedule: Schedule = "constant",
        until: float = 1.0,
        verbose: bool = True,
    ) -> None:
        super().__init__(schedule, until, verbose=verbose)
        hint = "The paper has 0.5 for ResNet-110. To train without stochastic depth, leave the callback out."
        self.rate = _check.number("rate", rate, hint, least=0, below=1)
        _check.one_of("mode", mode, ("row", "batch"), "'row' draws for each example, 'batch' for the whole batch.")
        self.mode = mode
        self.layers = layers
        self._patterns = read_patterns("layers", layers, "Try 'layer4.*'.")
        self._stream = RandomStream(type(self).__name__, None, by_rank=False)
        self._branches: dict[str, ResidualBranch] = {}
        self._left: list[Change] = []
        self._pl_module: L.LightningModule | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a sharded module, and find the branches."""
        if self.mode == "batch" and is_sharded(trainer):
            raise ValueError(
                f"`mode` must be 'row' for {type(trainer.strategy).__name__}, which shards the module, got 'batch'. "
                "Use mode='row', or strategy='ddp'."
            )
        if stage == "fit":
            self._stream.restart()
        super().setup(trainer, pl_module, stage)

    def operate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the noise into the branches."""
        if self.mode == "batch" and is_compiled(pl_module):
            raise ValueError(
                "`mode` must be 'row' for a compiled module, got 'batch': compiled code cannot skip a branch. "
                "Use mode='row', or do not compile the module."
            )
        super().operate(trainer, pl_module)

    def find(self, pl_module: L.LightningModule) -> dict[str, float]:
        """Find the branches whose blocks the patterns match, and the rate of each by the linear decay law."""
        branches = residual_branches(pl_module, skip=(Metric,))
        if not any(each.modules for each in branches):
            unknown = "".join(
                f" Of `{plain_name(each.block)}` nothing is known: {each.fault}." for each in branches[:3]
            )
            raise ValueError(
                f"`{type(pl_module).__name__}` must have residual branches for StochasticDepth, got none: no block "
                f"adds a branch to its own input or to a projection of it.{unknown} Leave the callback out."
            )
        blocks = dict.fromkeys(plain_name(each.block) for each in branches)
        rule = "match residual blocks, which add a branch to their own input or to a projection of it"
        chosen = find_places("layers", dict.fromkeys(self._patterns, True), pl_module, blocks, rule=rule)
        branches = self._usable(pl_module, [each for each in branches if plain_name(each.block) in chosen])
        found: dict[str, float] = {}
        self._branches, self._pl_module = {}, pl_module
        for branch, rate in zip(branches, depth_rates(self.rate, len(branches)), strict=True):
            drops = branch.drops if self.mode == "row" else ()
            for name in map(plain_name, drops or [branch.end]):
                if name not in found:
                    check_place(pl_module, name, by=type(self).__name__)
                    found[name] = rate
                    self._branches[name] = branch
        # At a rate of 0 the model's own stochastic depth is switched off, too
        return {name: each for name, each in found.items() if self.rate or self._branches[name].drops}

    def _usable(self, pl_module: L.LightningModule, branches: list[ResidualBranch]) -> list[ResidualBranch]:
        """Return the branches that can be dropped. The pattern ``*`` leaves the others as they are, and says so."""
        usable = []
        self._left = []
        for branch in branches:
            fault = branch.fault or branch.inseparable
            if self.mode == "row":
                fault = "" if branch.drops else branch.fault
            nameless = [each for each in branch.drops if not rate_attribute(pl_module.get_submodule(each))]
            if nameless:
                fault = f"{nameless[0]} keeps its rate under an unknown name"
            if not fault and self.mode == "row" and not (branch.rows or branch.drops):
                fault = "its last layer's output is reshaped, so that rows may not be examples (mode='batch' can)"
            if not fault and self.mode == "row" and not branch.drops and _is_sequence_first(pl_module, branch):
                fault = "its attention has batch_first=False, so that rows are positions (mode='batch' can)"
            if fault:
                before = f"branch of {plain_name(branch.block)}" if branch.modules else "unknown"
                self._left.append(Change(plain_name(branch.block), before, f"left as it is: {fault}"))
            else:
                usable.append(branch)
        if self._left and (not usable or "*" not in self._patterns):
            row = self._left[0]
            raise ValueError(
                f"`layers` must match blocks whose branch can be dropped, got {self.layers!r} and `{row.layer}`, "
                f"{row.after}. Name other blocks."
            )
        return usable

    def announce(self, trainer: L.Trainer, changes: list[Change], *notes: str) -> None:
        """Print the branches that are left as they are, too."""
        super().announce(trainer, [*changes, *self._left], *notes)

    def put(self, name: str, layer: nn.Module, rate: float) -> Rated:
        """Set the rate of a layer for stochastic depth, or put the noise at the end of the branch."""
        branch, module = self._branches[name], self._pl_module
        assert module is not None
        layers = plain_names(dict(module.named_modules(remove_duplicate=False)))
        block = layers[plain_name(branch.block)]
        held = [layers[plain_name(each)] for each in branch.drops]
        drops = [RatedAttribute(each, rate_attribute(each)) for each in held]
        if self.mode == "batch":
            parts = [layers[plain_name(each)] for each in branch.modules]
            owners = [plain_name(each).rpartition(".") for each in branch.parameters]
            weights = [(layers[owner], key) for owner, _, key in owners]
            return BranchSkip(parts, weights, drops, rate, by=type(self).__name__, within=block)
        if drops:
            drop = RatedAttribute(layer, rate_attribute(layer))
            drop.rate = rate
            return drop
        return BranchDrop(layer, rate, by=type(self).__name__, within=block)

    def describe(self, name: str, layer: nn.Module, rate: float) -> Change:
        """Say how often the branch is dropped."""
        branch = self._branches[name]
        before = repr(layer) if branch.drops and self.mode == "row" else f"branch of {plain_name(branch.block)}"
        each = "the batch" if self.mode == "batch" else "each example"
        return Change(name, before, f"dropped for {each} with probability {rate:.4g}")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rates of this moment, and draw which branches the batch skips."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self.mode == "batch":
            numbers = torch.rand(len(self._noises), generator=self._stream.generator(trainer)).tolist()
            for (noise, _), number in zip(self._noises.values(), numbers, strict=True):
                assert isinstance(noise, BranchSkip)
                noise.number = number

    def remove(self) -> None:
        """Take the noise away, at any time. The trained weights stay."""
        super().remove()
        self._branches, self._pl_module = {}, None

    def state_dict(self) -> dict[str, Any]:
        """Return the seed of the draws for whole batches."""
        return {} if self._stream.seed is None else {"seed": self._stream.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the seed of the interrupted run."""
        self._stream.seed = state_dict.get("seed")

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_branches": {}, "_pl_module": None}


def _is_sequence_first(pl_module: L.LightningModule, branch: ResidualBranch) -> bool:
    """Whether torch's attention in the block of a branch takes positions first, and examples second."""
    block = plain_names(dict(pl_module.named_modules(remove_duplicate=False)))[plain_name(branch.block)]
    return any(isinstance(each, nn.MultiheadAttention) and not each.batch_first for each in block.modules())
