"""The best weights of a training: who keeps them, and the way back to them."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from torch import Tensor, nn

from lightning_trainingkit._files import put_in_place, temporary
from lightning_trainingkit.callbacks._lightning import saves_every_validation
from lightning_trainingkit.functional.improvement import is_better
from lightning_trainingkit.nn.weights.checkpoint import explain_failure

__all__ = [
    "BestWeights",
    "mean_over_ranks",
    "average_waits",
    "averages_weights",
    "check_hyperparameters",
    "restart_averages",
    "restore_weights",
]


def mean_over_ranks(trainer: L.Trainer, value: Tensor) -> Tensor:
    """The mean of ``value`` over ranks: the value itself where it was synchronised, one for all where it was not."""
    if trainer.world_size == 1:
        return value
    mean = trainer.strategy.reduce(value.double(), reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean.to(value.dtype if value.is_floating_point() else torch.float32)


def averages_weights(trainer: L.Trainer) -> bool:
    """Whether validation runs on averaged weights (``EMAWeightAveraging`` and its kin)."""
    return any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def average_waits(trainer: L.Trainer) -> bool:
    """Whether an average of weights that validation runs on is still that of the untrained ones."""
    averages = [each for each in trainer.callbacks if isinstance(each, WeightAveraging)]  # type: ignore[attr-defined]
    return any(each._average_model is not None and not each._average_model.n_averaged for each in averages)


def check_hyperparameters(trainer: L.Trainer) -> None:
    """Raise a ValueError if the saved hyperparameters would make checkpoints that only load by running code."""
    for owner in (trainer.lightning_module, trainer.datamodule):  # type: ignore[attr-defined]
        if owner is not None and owner.hparams:
            file = io.BytesIO()
            torch.save(dict(owner.hparams), file)
            file.seek(0)
            with explain_failure(f"hyperparameters of {type(owner).__name__}", file):
                torch.load(file, weights_only=True)


def restore_weights(trainer: L.Trainer, path: str | Path) -> None:
    """Load the weights of a checkpoint into the trained module, on every rank, running no code from the file."""
    path = trainer.strategy.broadcast(str(path))  # by an unsynchronised metric, a ModelCheckpoint's differs by rank
    with explain_failure(path):
        checkpoint = trainer.strategy.load_checkpoint(path, weights_only=True)
    if "pytorch-lightning_version" in checkpoint:  # as Lightning does with its own files
        trainer.lightning_module.on_load_checkpoint(checkpoint)
    trainer.strategy.load_model_state_dict(checkpoint, strict=trainer.lightning_module.strict_loading)


@torch.no_grad()
def restart_averages(trainer: L.Trainer) -> None:
    """Let the averages of weights begin anew with the module's weights of now, in the middle of a training."""

    def tensors(module: nn.Module) -> Iterator[Tensor]:
        yield from module.parameters()
        yield from module.buffers()

    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        average: nn.Module
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            average = callback._average_model.module
            callback._average_model.n_averaged.clamp_(max=1)  # at 0 it has not begun, and will with a copy
        elif isinstance(callback, StochasticWeightAveraging) and callback.n_averaged is not None:
            assert callback._average_model is not None
            average = callback._average_model
            callback.n_averaged.zero_()
        else:
            continue
        for mine, theirs in zip(tensors(average), tensors(trainer.lightning_module), strict=True):
            mine.copy_(theirs)


@dataclass
class BestWeights:
    """Keeps the weights that were best by a metric: through a ``ModelCheckpoint`` that does so anyway, else in a file.

    Args:
        monitor: Name of the metric.
        mode: ``"min"`` or ``"max"``.
        file: Own file with the best weights, empty where there is none.
        named: Own file that the newest checkpoint names: a run killed now resumes from there.
        outdated: Own files before these, which go.
        resumed: Whether the fit began from a checkpoint.
        own: Whether own files are written.
        begins: Whether own files may begin with a resume: the best until then is that of a ``ModelCheckpoint``.
        owner: What own files are called by.
        looks_inside: Whether a file that holds an average of weights which had not begun is none, though a
            ``ModelCheckpoint`` took it for the best.
    """

    monitor: str
    mode: str
    file: str = ""
    named: str = ""
    outdated: list[str] = field(default_factory=list)
    resumed: bool = False
    own: bool = False
    begins: bool = False
    owner: str = "early_stopping"
    looks_inside: bool = False

    def start(self, trainer: L.Trainer, best: Tensor) -> bool:
        """Decide who keeps the weights, and see before training that it can and that a resumed run still has them.

        Returns:
            False if a resumed run knows a best value, but nobody kept the weights of then.
        """
        checkpoint = self._checkpoint(trainer)
        self.begins = self.resumed and not self.own
        # One whose best is that of an earlier fit, or whose files could not be loaded without running code, is no help.
        stale = checkpoint is not None and checkpoint.best_model_score is not None and not self.resumed
        self.own |= checkpoint is None or stale or not _outlasts(trainer, checkpoint) or not _loads_safely(trainer)
        found = self.find(trainer, best)
        # Its best is refused: it would not keep what is worse.
        self.own |= not found and checkpoint is not None and checkpoint.best_model_score is not None
        if found and "://" not in found and not Path(found).exists():
            raise FileNotFoundError(
                f"`restore_best` must find the best weights so far, got {found}, which is gone. "
                "Put the file back, or resume with `restore_best=False`."
            )
        root = _root(trainer)
        if self.own and "://" in root:
            raise ValueError(
                f"`restore_best` must have a local folder to keep the best weights in, got {root}. "
                "Give the Trainer a local `default_root_dir`, or pass `restore_best=False`."
            )
        return bool(found) or not self.resumed or not bool(torch.isfinite(best))

    def keep(self, trainer: L.Trainer) -> None:
        """Write the weights that were just validated, unless a ``ModelCheckpoint`` does."""
        if not self.own:
            return
        name = f"{self.owner}-epoch={trainer.current_epoch}-step={trainer.global_step}"
        path = Path(_root(trainer)) / "checkpoints" / f"{name}.ckpt"
        version = 0
        while trainer.is_global_zero and path.exists():
            version += 1
            path = path.with_name(f"{name}-v{version}.ckpt")
        path = trainer.strategy.broadcast(path)
        _save_validated_weights(trainer, path)
        self.outdated.append(self.file)
        self.file = str(path)
        self.tidy(trainer, self.named)

    def forget(self) -> None:
        """There are better weights, which nobody keeps."""
        self.outdated.append(self.file)
        self.file = ""

    def tidy(self, trainer: L.Trainer, *needed: str) -> None:
        """Remove the files that the best one replaced, but those that are needed."""
        for file in self.outdated:
            if file and file not in needed and trainer.is_global_zero:
                Path(file).unlink(missing_ok=True)
        self.outdated = [file for file in self.outdated if file in needed]

    def find(self, trainer: L.Trainer, best: Tensor) -> str:
        """Path of the best weights, empty if there are none; the same on all ranks."""
        checkpoint, path = self._checkpoint(trainer), self.file
        # Where own files had begun before a resume and no check counted, what it took for the best is none.
        had_none = self.looks_inside and not self.begins and not bool(torch.isfinite(best))
        its = not self.own or (self.resumed and not self.file and not had_none and _loads_safely(trainer))
        if its and checkpoint is not None and checkpoint.best_model_score is not None:
            added_on_resume = self.file and is_better(best, checkpoint.best_model_score, self.mode)
            path = path if added_on_resume else checkpoint.best_model_path
        path = str(trainer.strategy.broadcast(path))
        return "" if self.looks_inside and _is_untrained(trainer, path) else path

    def inherited(self, trainer: L.Trainer, best: Tensor) -> Tensor | None:
        """The best value that a ``ModelCheckpoint`` brings to a resumed run that followed no metric before."""
        checkpoint = self._checkpoint(trainer)
        known = self.file or not self.resumed or bool(torch.isfinite(best))
        if known or checkpoint is None or checkpoint.best_model_score is None or not self.find(trainer, best):
            return None
        score = checkpoint.best_model_score.to(trainer.strategy.root_device)  # a loaded one is on the CPU
        return mean_over_ranks(trainer, score)

    def _checkpoint(self, trainer: L.Trainer) -> ModelCheckpoint | None:
        for callback in trainer.checkpoint_callbacks:
            if (
                isinstance(callback, ModelCheckpoint)
                and (callback.monitor, callback.mode) == (self.monitor, self.mode)
                and callback.save_top_k != 0
                and callback.every_n_epochs == 1
                and saves_every_validation(trainer, callback)
                # Lightning leaves averaged weights out of such files
                and not (callback.save_weights_only and averages_weights(trainer))
            ):
                return callback
        return None


def _outlasts(trainer: L.Trainer, checkpoint: ModelCheckpoint) -> bool:
    """Whether its best file can't have been replaced since the newest checkpoint to resume from, which names it."""
    alone = all(callback is checkpoint for callback in trainer.checkpoint_callbacks)
    # Another one may save before it, and name the best file of the check before.
    return alone and (checkpoint.save_top_k == -1 or not checkpoint.save_last)


def _is_untrained(trainer: L.Trainer, path: str) -> bool:
    """Whether a checkpoint holds an average of weights that had not begun."""
    if not path or ("://" not in path and not Path(path).exists()):
        return False
    try:
        with explain_failure(path):
            state = trainer.strategy.load_checkpoint(path, weights_only=True).get("averaging_state", {})
    except ValueError:  # who restores it says why
        return False
    return not state.get("n_averaged", 1)


def _root(trainer: L.Trainer) -> str:
    return str(trainer.log_dir or trainer.default_root_dir)


def _loads_safely(trainer: L.Trainer) -> bool:
    try:
        check_hyperparameters(trainer)
    except ValueError:
        return False
    return True


def _save_validated_weights(trainer: L.Trainer, path: Path) -> None:
    checkpoint = {"state_dict": trainer.strategy.lightning_module_state_dict()}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):  # puts the averaged weights in place
            callback.on_save_checkpoint(trainer, trainer.lightning_module, checkpoint)
    if trainer.is_global_zero:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": checkpoint["state_dict"]}, temporary(path))
        put_in_place(path)
    trainer.strategy.barrier()
