"""A finished ensemble as one module, to test, save, export and serve."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_trainingkit._artifacts import load_members
from lightning_trainingkit._lightning import L
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.averaging import AVERAGES, average_passes, check_weights
from lightning_trainingkit.modules.averaging_report import AveragingReport
from lightning_trainingkit.modules.ensemble_members import MemberList, build_member
from lightning_trainingkit.modules.first_batch import check_target, unpack
from lightning_trainingkit.nn.averaging.placement import out_of_memory_hint
from lightning_trainingkit.nn.averaging.vectorized import Vectorized, check_vectorize

__all__ = ["EnsembleClassifier"]


class EnsembleClassifier(L.LightningModule):
    r"""Classify by the average of several trained members.

    :math:`\log \sum_k w_k \, \mathrm{softmax}(f_k(x))`. Members always run in eval mode and are not trained here. A
    batch is a pair of images and class indices. ``trainer.validate`` and ``trainer.test`` log, exactly over images,
    loaders and ranks:

    - **The average**: ``test/acc``, ``test/loss`` (negative log-likelihood, nats), ``test/ece`` (calibration error, 15
      bins).
    - **The mean single member**: ``test/acc_member``, ``test/loss_member``, ``test/ece_member``.
    - **Disagreement**: ``test/disagreement``, how often two members name different classes.

    Without a Trainer it is a plain module: ``state_dict``, ``pickle`` and ``torch.export`` work.

    Args:
        members: Modules of any architectures that return logits ``(N, num_classes)``.
        num_classes: Number of classes ``C``.
        weights: ``"uniform"``, or a number for each member, none negative, with sum 1, the first one positive.
        average: ``"probabilities"``, ``"logits"`` (or ``"geometric"``: the same once it is normalised) or ``"votes"``.
        vectorize: Run members of one architecture as one ``torch.vmap`` forward, without gradients. The first batch
            compares it with the loop. ``torch.export`` and ``torch.compile`` use the loop.
        offload: Leave the members on the CPU when the ensemble is moved, and move each to the device for its turn.

    Raises:
        TypeError: If a member is no module.
        torch.OutOfMemoryError: If the members don't fit on the device together, with the hint ``offload=True``.
        ValueError: If an argument is out of range, or a member does not return logits ``(N, num_classes)``.

    Example:
        >>> import torch
        >>> nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)) for _ in range(3)]
        >>> EnsembleClassifier(nets, num_classes=10)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    References:
        Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS
        2017, arXiv:1612.01474.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        num_classes: int,
        *,
        weights: str | list[float] = "uniform",
        average: str = "probabilities",
        vectorize: bool = False,
        offload: bool = False,
    ) -> None:
        super().__init__()
        check_vectorize(vectorize, {"offload": offload})
        self.save_hyperparameters(ignore=["members"])
        members = list(members)
        wrong = [type(each).__name__ for each in members if not isinstance(each, nn.Module)]
        if wrong:
            raise TypeError(f"`members` must be modules, got {', '.join(wrong)}. `from_checkpoints` takes files.")
        if not members:
            raise ValueError("`members` must hold at least one module, got none. Pass the trained members.")
        _check.one_of("average", average, AVERAGES, "The default is 'probabilities'.")
        if isinstance(weights, str) and weights != "uniform":
            raise ValueError(f"`weights` must be 'uniform' or numbers, got {weights!r}. Leave it out for equal ones.")
        self.num_classes = num_classes
        self.weights = weights
        self.average = average
        given = [1 / len(members)] * len(members) if isinstance(weights, str) else weights
        self._shares = check_weights("weights", given, len(members), "member")
        self.members = MemberList(members, _check.flag("offload", offload)).eval()
        report = AveragingReport(num_classes, len(members), average=average, weights=self._shares)
        self.reports = nn.ModuleDict({stage: copy.deepcopy(report) for stage in ("val", "test")})
        """Scores by the number of members, see ``AveragingReport``, of the last stages."""
        self.vectorize, self.offload = vectorize, offload
        self._vectorized: Vectorized | None = None
        self._checked = self._compared = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the stacked copies of the weights, which belong to one stage."""
        return {**super().__getstate__(), "_vectorized": None}

    @classmethod
    def from_checkpoints(
        cls,
        members: str | Path | nn.Module | Sequence[str | Path | nn.Module],
        module: nn.Module,
        num_classes: int,
        *,
        target: str | None = None,
        weights: str | list[float] = "uniform",
        average: str = "probabilities",
        vectorize: bool = False,
        offload: bool = False,
    ) -> "EnsembleClassifier":
        """Make an ensemble of checkpoint files, without running code from them.

        Args:
            members: A folder of ``BestCheckpoint``, a pattern, a file, a W&B artifact (``"wandb:..."``), a module, or a
                list of these, as ``EnsembleAverage`` takes them.
            module: A module of the trained class. It is not changed.
            num_classes: Number of classes.
            target: Name of its submodule that returns the logits; None for the module itself.
            weights: As in ``EnsembleClassifier``.
            average: As in ``EnsembleClassifier``.
            vectorize: As in ``EnsembleClassifier``.
            offload: As in ``EnsembleClassifier``.

        Raises:
            FileNotFoundError: If no file is found.
            ValueError: If a file is damaged, would run code, or does not fit.
        """
        return cls(
            [build_member(each, module, target) for each in load_members(members)],
            num_classes,
            weights=weights,
            average=average,
            vectorize=vectorize,
            offload=offload,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, ...)`` to log-probabilities ``(N, num_classes)``."""
        return average_passes(self.each_member(x), self._shares, self.average)

    def each_member(self, x: Tensor) -> Tensor:
        """Map images ``(N, ...)`` to the log-probabilities of each member, ``(K, N, num_classes)``."""
        if torch.compiler.is_compiling():
            passes: Any = [member(x) for member in self.members]
        else:
            with out_of_memory_hint(self.offload):
                passes = self._together(x) if self.vectorize else list(self.members.in_turn(x))
        said = []
        for number, logits in enumerate(passes):
            shape = (x.shape[0], self.num_classes)  # `len` would fix the size of an exported batch
            if not isinstance(logits, Tensor) or logits.shape != shape:
                found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise ValueError(
                    f"`members` must return logits of shape (N, num_classes) = {shape}, got {found} from member "
                    f"{number}, {type(self.members[number]).__name__}. Leave it out or change num_classes."
                )
            said.append(logits if logits.dtype == torch.float64 else logits.float())
        return torch.stack(said).log_softmax(dim=-1)

    def _together(self, x: Tensor) -> Any:
        trainer = self._trainer
        running = trainer is not None and trainer.lightning_module is self and trainer.state.stage is not None
        vectorized = self._vectorized if running and self._vectorized else Vectorized.of([*self.members])
        self._vectorized = vectorized if running else None  # weights may change between stages
        if self._compared:
            return vectorized(((x,), {}))
        found = vectorized.checked(((x,), {}), [member(x) for member in self.members])
        self._compared = True
        return found

    def train(self, mode: bool = True) -> "EnsembleClassifier":
        """Set the mode of the module. Its members stay in eval mode."""
        super().train(mode)
        self.members.eval()
        return self

    def setup(self, stage: str) -> None:
        """Raise for a fit. Check the first batch of other stages."""
        if stage == "fit":
            raise ValueError("`EnsembleClassifier` must not be fitted: its members are trained already. Test it.")
        self._vectorized = None
        self._checked = self._compared = False

    def teardown(self, stage: str) -> None:
        """Drop the stacked copies of the members' weights."""
        self._vectorized = None

    def on_validation_epoch_start(self) -> None:
        """Reset the scores."""
        self._report("val").reset()

    def on_test_epoch_start(self) -> None:
        """Reset the scores."""
        self._report("test").reset()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add the batch to the scores."""
        self._step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add the batch to the scores."""
        self._step(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return class probabilities ``(N, num_classes)`` of a batch. Targets in it are ignored."""
        x = batch[0] if isinstance(batch, list | tuple) else batch
        return cast(Tensor, self(x)).exp()

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores."""
        self._log("test")

    def _report(self, stage: str) -> AveragingReport:
        return cast(AveragingReport, self.reports[stage])

    def _step(self, batch: Any, stage: str) -> None:
        x, target = unpack(batch)
        if not self._checked:
            check_target(target, self.num_classes)
            self._checked = True
        self._report(stage).update(self.each_member(x), target)

    def _log(self, stage: str) -> None:
        found = self._report(stage).compute()
        values = {"disagreement": found["disagreement"]} if len(self.members) > 1 else {}
        for ours, theirs in {"acc": "acc", "loss": "nll", "ece": "ece"}.items():
            values |= {ours: found[theirs].reshape(-1)[-1], f"{ours}_member": found[f"{theirs}_single"].mean()}
        # All ranks have the same values already; without `sync_dist` Lightning would warn.
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)
