"""Read the name of a metric: the better end, the stage that logs it, the measured quantity."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, cast

from lightning_trainingkit.functional import _check

__all__ = [
    "Mode",
    "Stage",
    "is_learning_rate",
    "is_missing",
    "is_of_step",
    "named_mode",
    "quantity_of",
    "resolve_mode",
    "stage_of",
]

Mode = Literal["min", "max"]
Stage = Literal["train", "val", "test"]

_LOSSES = """
    bce brier ce cer cost crossentropy divergence ece eer err error errors fid hinge kl kld loss losses lpips
    mae mape mse msle nll perplexity ppl regret rmse smape wer
"""
# A score that is missing here counts as a loss. A wrong word here only makes the user give the mode.
_SCORES = """
    acc accuracy ap ar ari auc aucpr aucroc auprc auroc bleu chrf cider cindex completeness concordance corr
    correlation dcg dice dsc dunn elbo em explained f05 f1 f2 fbeta fidelity gain hit hitrate hits homogeneity hota
    intelligibility iou jaccard kappa likelihood mallows map mar match matthews mcc meteor miou mota mrr ndcg nmi
    npv oa pck pearson pearsonr pesq plcc ppv pq precision psnr purity quality qwk r2 recall return rew reward
    rocauc rouge score sdr sensitivity signal similarity snr spearman spearmanr specificity spice squad srcc ssim
    stoi success tnr top tpr uar union win wins
"""
_MODES: dict[str, Mode] = {**dict.fromkeys(_LOSSES.split(), "min"), **dict.fromkeys(_SCORES.split(), "max")}
_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")
_MOST_PARTS = 8  # of one known word
_MOST_LETTERS = 200  # of a name; longer names are not split into words, so that time stays bounded
_STAGES: dict[str, Stage] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
# "dev" and "tr" have other meanings, and "eval_train" is a stage of training: words of `_STAGES` go first.
_WEAK_STAGES: dict[str, Stage] = {"tr": "train", "dev": "val", "eval": "val", "evaluation": "val"}
_GLUED_STAGE = re.compile("(training|train|validation|valid|val|test|dev|eval)(.+)")
_LOADER = re.compile(r"/dataloader_idx_\d+$")
_GLUED = re.compile("(loss|error|acc|accuracy|auc|auroc|dice|f1|iou|precision|psnr|recall|reward|score|sdr|snr|ssim)$")


@lru_cache(4096)
def named_mode(name: str) -> Mode | None:
    """Tell from a name which end of a metric is better. The last word that names a loss or a score decides.

    Words are letters with trailing digits. A capital letter may begin a new word.

    Args:
        name: Name of the metric.

    Returns:
        ``"min"`` for a loss, ``"max"`` for a score, None if no word is known.

    Example:
        >>> [named_mode(name) for name in ("val/loss", "dice_loss", "valAcc", "mAP50", "val/width")]
        ['min', 'min', 'max', 'max', None]
    """
    for run in reversed(re.findall(r"[A-Za-z]+\d*", name[-_MOST_LETTERS:])):
        parts = _WORD.findall(run)
        for end in range(len(parts), 0, -1):
            for start in range(max(0, end - _MOST_PARTS), end):  # the longest first: "mIoU" is one word, "PSNRLoss" two
                if mode := _mode_of("".join(parts[start:end]).lower()):
                    return mode
    return None


def _mode_of(word: str) -> Mode | None:
    letters = word.rstrip("0123456789")  # "acc5", "map50"
    if glued := _GLUED.search(word) or _GLUED.search(letters):  # "valacc"
        word = glued[0]
    return _MODES.get(word) or _MODES.get(letters)


def stage_of(name: str) -> Stage | None:
    """Tell from a name which stage logs a metric. The last word that names a stage decides.

    A stage may be joined to a loss or a score: ``valloss``. The words ``dev``, ``eval`` and ``tr`` count only if no
    other word names a stage.

    Args:
        name: Name of the metric.

    Returns:
        ``"train"``, ``"val"``, ``"test"``, or None if no word names a stage.

    Example:
        >>> [stage_of(name) for name in ("train_loss_epoch", "Loss/val", "valAcc", "test_acc", "interval")]
        ['train', 'val', 'val', 'test', None]
    """
    return _staged_words(name)[0]


def quantity_of(name: str) -> str:
    """The quantity of a metric: its words without the stage, ``_step`` or ``_epoch``, and the loader's number.

    The training and validation metrics of one quantity have the same name here. ``accuracy`` becomes ``acc``.

    Args:
        name: Name of the metric.

    Example:
        >>> [quantity_of(name) for name in ("train_acc_epoch", "Accuracy/val", "val/loss/dataloader_idx_0", "lr")]
        ['acc', 'acc', 'loss', 'lr']
    """
    words = _staged_words(name)[1]
    if len(words) > 1 and words[-1] in ("step", "epoch"):
        words = words[:-1]
    return "_".join("acc" if word == "accuracy" else word for word in words) or name.lower()


def is_of_step(name: str) -> bool:
    """Whether a name ends in ``_step``, Lightning's name for a value of one step where it also logs one for the epoch.

    Example:
        >>> [is_of_step(name) for name in ("train_loss_step", "train_loss_epoch", "step_size")]
        [True, False, False]
    """
    return _LOADER.sub("", name).endswith("_step")


def is_learning_rate(name: str) -> bool:
    """Whether a metric is a learning rate: ``lr`` or ``learning_rate`` is in its name, and no loss or score is.

    Args:
        name: Name of the metric. ``LearningRateMonitor`` also logs ``lr-SGD-momentum``, which is no learning rate.

    Example:
        >>> [is_learning_rate(name) for name in ("lr-SGD/pg1", "optim/learning_rate", "lr-SGD-momentum", "lr/loss")]
        [True, True, False, False]
    """
    text = "_".join(word.lower().rstrip("0123456789") for word in _WORD.findall(name[:_MOST_LETTERS]))
    named = re.search(r"(^|_)(lr|learning_rate)(_|$)", text)
    return named is not None and not re.search("momentum|weight_decay|betas?$", text) and named_mode(name) is None


@lru_cache(4096)
def _staged_words(name: str) -> tuple[Stage | None, tuple[str, ...]]:
    """The stage of a metric, and the other words of its name."""
    if len(name) > _MOST_LETTERS:
        return None, (name.lower(),)
    words: list[str] = []
    for word in map(str.lower, _WORD.findall(_LOADER.sub("", name))):
        glued = _GLUED_STAGE.fullmatch(word)
        words += glued.groups() if glued and word not in _STAGES and _mode_of(glued[2]) else [word]
    bare = [word.rstrip("0123456789") for word in words]
    for stages in (_STAGES, _WEAK_STAGES):
        said = [place for place, word in enumerate(bare) if word in stages and not _deviates(bare, place)]
        if said:
            stage = stages[bare[said[-1]]]
            dropped = {place for place in said if stages[bare[place]] == stage and words[place] == bare[place]}
            return stage, tuple(word for place, word in enumerate(words) if place not in dropped)
    return None, tuple(words)


def _deviates(words: list[str], place: int) -> bool:
    """Whether "dev" stands for a deviation."""
    return words[place] == "dev" and place > 0 and words[place - 1] in ("std", "standard", "mean", "abs", "absolute")


def resolve_mode(monitor: str, mode: str | None) -> Mode:
    """Decide which end of a metric is better: the given mode, or ``"min"`` unless the name is a score's.

    Args:
        monitor: Name of the metric.
        mode: ``"min"``, ``"max"``, or None to decide by the name.

    Raises:
        TypeError: If ``monitor`` is no string.
        ValueError: If ``mode`` is no such value, or None for a score.

    Example:
        >>> resolve_mode("val/loss", None), resolve_mode("val/acc", "max")
        ('min', 'max')
    """
    if not isinstance(monitor, str):
        raise TypeError(f"`monitor` must be the name of a metric, got {monitor!r}. Write 'val/loss', say.")
    if mode is not None:
        _check.one_of("mode", mode, ("min", "max"), "An accuracy needs 'max', a loss 'min'.")
        return cast(Mode, mode)
    if named_mode(monitor) == "max":
        raise ValueError(
            f"`mode` must be given for {monitor!r}, which by its name is a score, got None. "
            "Pass mode='max' if larger is better, mode='min' if smaller is."
        )
    return "min"


def is_missing(monitor: str, logged: Iterable[str], *, training: bool) -> bool:
    """Whether the sanity check has not logged a metric, and the first epoch can't log it either.

    The first epoch can log:

    - **Any metric**, if the sanity check logged none.
    - **A metric of another stage's name**, if one name ends with the other: ``sanity_val/loss`` and ``val/loss``.
    - **A metric of training**, if a word of its name begins with ``train``.

    Args:
        monitor: Name of the metric.
        logged: Names of the metrics that the sanity check has logged.
        training: Whether metrics of training count.

    Example:
        >>> is_missing("val/accuracy", ["val/acc"], training=True)
        True
        >>> is_missing("val/loss", ["sanity_val/loss"], training=True)
        False
    """
    names = list(logged)
    alike = any(name.endswith(monitor) or monitor.endswith(name) for name in names)
    of_training = training and re.search(r"(?<![a-z])train", monitor.lower()) is not None
    return bool(names) and not alike and not of_training
