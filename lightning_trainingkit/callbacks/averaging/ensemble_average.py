"""Test an ensemble: average the outputs of several trained members."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_trainingkit._artifacts import load_members
from lightning_trainingkit._lightning import L, rank_zero_info, rank_zero_warn
from lightning_trainingkit.callbacks._lightning import is_compiled
from lightning_trainingkit.callbacks.averaging.averaging_callback import AveragingCallback
from lightning_trainingkit.callbacks.averaging.greedy_selection import Selection
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.averaging import check_weights
from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.averaging.member_files import MemberFile, as_list
from lightning_trainingkit.nn.averaging.member_match import match
from lightning_trainingkit.nn.averaging.members import Members
from lightning_trainingkit.nn.averaging.shared_parts import check_shared_parts
from lightning_trainingkit.nn.averaging.sources import Call, Source
from lightning_trainingkit.nn.averaging.vectorized import check_vectorize
from lightning_trainingkit.nn.structure.submodule import find_target

__all__ = ["EnsembleAverage"]


class EnsembleAverage(AveragingCallback):
    r"""Average the target's outputs over the trained members of an ensemble, from files or in memory.

    In the chosen stages the target returns log-probabilities ``(N, C)``,
    :math:`\log \sum_k w_k \, \mathrm{softmax}(f_k(x))`. Softmax, argmax, cross-entropy and metrics in the user's step
    stay right.

    - **Tested module**: it is a member only if ``members`` names it. Its weights come back unchanged.
    - **Files** are read onto the CPU before the test, without running code from them.
    - **Architectures** may differ: a checkpoint with other hyperparameters than the tested module's is built by the
      module's class. Hyperparameters that ``BestCheckpoint`` left out of the file come from the tested module.
    - **Memory**: members run one after the other. All stay on the batch's device for the stage.
    - **Together** with ``TestTimeAugmentation`` and ``MonteCarloDropout`` on the same target the passes multiply. Their
      order does not matter.

    README.md in this folder tells more.

    Args:
        members: Checkpoints, or files with the target's ``state_dict``: a folder of ``BestCheckpoint`` (all its
            ``top_k``), a pattern, a file, an artifact ``"wandb:ENTITY/PROJECT/NAME:VERSION"``, a module (of a
            LightningModule, its submodule ``target``), or a list of these. Each member once.
        target: Name of the submodule that returns logits ``(N, C)``; None for the module itself.
        average: ``"probabilities"``, ``"logits"`` (``"geometric"`` is the same average, normalised) or ``"votes"``.
        weights: ``"uniform"``, a number for each member (0 skips a member; the sum is 1), or ``"greedy"``: chosen by
            Caruana's selection in a ``trainer.validate`` before the test. That run averages all members equally,
            independent of ``stages``, and needs the targets as the batch's only integers ``(N,)``.
        early_exit: Skip a sample's remaining passes once they cannot change its argmax, so that the accuracy stays the
            same. Its probabilities average the passes made. Logs the saved share as ``test/passes_saved``. Only for
            ``"probabilities"`` and ``"votes"``, where it is exact.
        max_batch: Most samples in one call of a member. Larger batches are cut, with every argument whose first
            dimension is the number of samples.
        stages: Some of ``"validate"``, ``"test"``, ``"predict"``. With ``"validate"`` each validation of a fit costs
            all passes.
        vectorize: Run members of one architecture as one ``torch.vmap`` forward, for many small members on a GPU. The
            first batch compares it with the loop. Not with ``offload``, early exits, ``max_batch`` or random masks.
        offload: Keep one member at a time on the device: slower, for members that do not fit there together.
        output: ``"auto"`` refuses outputs that the step of the first batch does not use as class scores (sigmoid, a
            regression loss, another layer). ``"classes"`` averages their softmax without this check.

    Attributes:
        selected_weights: The weights that ``"greedy"`` chose, a number for each member in the members' order. None
            before the choice.

    Raises:
        ConnectionError: If W&B does not give an artifact.
        FileNotFoundError: If no member is found.
        torch.OutOfMemoryError: If the members do not fit on the device together, with the hint ``offload=True``.
        ValueError: If an argument is wrong. If a file is damaged, would run code, is named twice, or holds other
            classes or an architecture that cannot be built. If the weights do not fit the members or are not chosen
            yet. If the target does not exist, is not called by the first batch, or returns no class scores ``(N, C)``.
            If members differ in layers before the target. If ``vectorize`` cannot run the members or differs from the
            loop.

    Example:
        >>> import lightning as L
        >>> callback = EnsembleAverage("runs/*/checkpoints", target="model")  # looked for when a test begins
        >>> trainer = L.Trainer(callbacks=[callback], logger=False)

    References:
        Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS
        2017, arXiv:1612.01474; Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004.
    """

    def __init__(
        self,
        members: str | list[str | nn.Module],
        *,
        target: str | None = None,
        average: str = "probabilities",
        weights: str | list[float] = "uniform",
        early_exit: bool = False,
        max_batch: int | None = None,
        stages: str | list[str] | tuple[str, ...] = ("test", "predict"),
        vectorize: bool = False,
        offload: bool = False,
        output: str = "auto",
    ) -> None:
        super().__init__(target, average, early_exit, max_batch, stages, output)
        check_vectorize(vectorize, {"offload": offload, "early_exit": early_exit, "max_batch": max_batch})
        _check_members(members)
        if isinstance(weights, str) and weights not in ("uniform", "greedy"):
            raise ValueError(f"`weights` must be 'uniform', 'greedy' or numbers, got {weights!r}. Try 'uniform'.")
        if not isinstance(weights, str):
            weights = check_weights("weights", weights, None)  # setup compares their number with the members'
        self.members = members
        self.weights = weights
        self.vectorize, self.offload = vectorize, _check.flag("offload", offload)
        self.selected_weights: list[float] | None = None
        self._read: list[MemberFile | nn.Module] = []
        self._members: Members | None = None
        self._selection: Selection | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Also leave out the members, which last for one stage."""
        return {**super().__getstate__(), "_read": [], "_members": None, "_selection": None}

    def look_at_first(self, call: Call, module: nn.Module, arguments: Arguments) -> None:
        """Require the tested module's number of classes of every member."""
        assert self._members is not None  # the members' call comes here
        self._members.expect_outputs(call, module, arguments)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Read the members if the stage needs them."""
        super().setup(trainer, pl_module, stage)
        self._let_go()
        if not self._wanted("validate" if stage == "fit" else stage, stage):
            return
        choosing = self.weights == "greedy" and stage == "validate"
        if self.weights == "greedy" and not choosing and self.selected_weights is None:
            raise ValueError(
                "`weights` must be chosen before they are used, got 'greedy' and no choice yet. Run "
                f"`trainer.validate` with this callback before `trainer.{getattr(stage, 'value', stage)}`."
            )
        self._read = load_members(self.members)
        if not choosing and not isinstance(self._numbers, str):
            check_weights("weights", self._numbers, len(self._read), "member")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the weights, for ``"greedy"``."""
        super().on_validation_epoch_end(trainer, pl_module)
        if self._selection is None:
            return
        self.selected_weights = self._selection.choose(trainer)
        shares = zip(self.selected_weights, self._selection.names, strict=True)
        shown = "\n".join(f"  {share:.3f}  {name}" for share, name in shares)
        rank_zero_info(f"Weights of the ensemble, chosen greedily on the validation data:\n{shown}")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the target's own forward back, and release the members."""
        super().on_exception(trainer, pl_module, exception)
        self._let_go()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put the target's own forward back, and release the members."""
        super().teardown(trainer, pl_module, stage)
        self._let_go()

    @property
    def _numbers(self) -> str | list[float]:
        return (self.selected_weights or "uniform") if self.weights == "greedy" else self.weights

    def _check_called(self, stage: str, pl_module: L.LightningModule, batches: int) -> None:
        """Also raise if a member has other weights before the target: it would run on the tested module's features."""
        super()._check_called(stage, pl_module, batches)
        if self.target is None or batches or self._patch is None or self._patch.use is None or self._members is None:
            return
        read = None if is_compiled(pl_module, outside=self._patch.module) else self._patch.use.read_before
        states: dict[str, Mapping[str, Any]] = {}
        for name, each in zip(self._members.names, self._read, strict=True):
            if isinstance(each, MemberFile | L.LightningModule):
                states[name] = each.weights if isinstance(each, MemberFile) else each.state_dict()
        try:
            check_shared_parts(pl_module, self.target, read, states)
        except ValueError as error:
            if read is not None:
                raise
            rank_zero_warn(f"{error} Compiled code hides whether it is.")

    def _end_batch(self, stage: str, batch: Any, loader: int) -> None:
        """Also record the outputs of each member, for ``"greedy"``."""
        if self._selection is not None:
            self._selection.end_batch(batch)
        super()._end_batch(stage, batch, loader)

    def _wanted(self, evaluation: str, stage: str) -> bool:
        """Whether members run in an evaluation, such as the validation of a fit."""
        if self.weights == "greedy" and evaluation == "validate":
            return stage == "validate"
        return evaluation in ([self.stages] if isinstance(self.stages, str) else self.stages)

    def _begin(self, stage: str, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.weights != "greedy" or stage != "validate":
            super()._begin(stage, trainer, pl_module)
            return
        self._end()
        if trainer.state.fn == "validate":
            self._selection = Selection(self._of(pl_module, "uniform"), self.average, self.max_batch)
            self._join(pl_module, self._selection, self._selection)

    def _end(self) -> None:
        if self._patch is not None and self._selection is not None:
            self._patch.remove(self._selection)
        self._selection = None
        super()._end()
        if self._members is not None:
            self._members.put_back()

    def _source(self, trainer: L.Trainer, pl_module: L.LightningModule, module: nn.Module) -> Source:
        return self._of(pl_module, self._numbers)

    def _of(self, pl_module: L.LightningModule, weights: str | list[float]) -> Members:
        """Make the members for this module, after the module has made all its layers."""
        if self._members is None:
            members = [_member(each, pl_module, self.target) for each in self._read]
            names = [
                str(each.path) if isinstance(each, MemberFile) else f"member {k} ({type(each).__name__})"
                for k, each in enumerate(self._read)
            ]
            how = {"vectorize": self.vectorize, "offload": self.offload}
            self._members = Members(members, weights=weights, names=names, **how)
            built = sum(isinstance(member, nn.Module) for member in members)
            own = len(members) - built
            rank_zero_info(f"Ensemble of {len(members)}: {own} sets of weights for the target, {built} other modules.")
        return self._members

    def _let_go(self) -> None:
        self._read, self._members = [], None


def _member(
    read: MemberFile | nn.Module, pl_module: L.LightningModule, target: str | None
) -> nn.Module | Mapping[str, Tensor]:
    if isinstance(read, MemberFile):
        return match(read, pl_module, target)
    return find_target(read, target) if isinstance(read, L.LightningModule) else read


def _check_members(members: Any) -> None:
    given = as_list(members)
    wrong = [type(each).__name__ for each in given if not isinstance(each, str | Path | nn.Module)]
    if wrong:
        raise TypeError(
            f"`members` must be names of checkpoints or modules, got {', '.join(wrong)}. Save a `state_dict` to a file "
            "first."
        )
    if not given or "" in given:
        raise ValueError(f"`members` must name at least one member, got {members!r}. Give a folder or a pattern.")
