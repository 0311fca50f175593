"""What the name of a metric says: which end of it is the better one, and whether it can still be logged."""

import re
from collections.abc import Iterable
from typing import Literal, cast

from lightning_trainingkit.functional import _check

__all__ = ["Mode", "is_missing", "named_mode", "resolve_mode"]

Mode = Literal["min", "max"]

_LOSSES = """
    bce brier ce cer cost crossentropy divergence ece eer err error errors fid hinge kl kld loss losses lpips
    mae mape mse msle nll perplexity ppl regret rmse smape wer
"""
# A score that is missing here counts as a loss. A word that is here by mistake only makes the user give the mode.
_SCORES = """
    acc accuracy ap ar ari auc aucpr aucroc auprc auroc bleu chrf cider cindex completeness concordance corr
    correlation dcg dice dsc dunn elbo em explained f05 f1 f2 fbeta fidelity gain hit hitrate hits homogeneity hota
    intelligibility iou jaccard kappa likelihood mallows map mar match matthews mcc meteor miou mota mrr ndcg nmi
    npv oa pck pearson pearsonr pesq plcc ppv pq precision psnr purity quality qwk r2 recall return rew reward
    rocauc rouge score sdr sensitivity signal similarity snr spearman spearmanr specificity spice squad srcc ssim
    stoi success tnr top tpr uar union win wins
"""
_MODES: dict[str, Mode] = {**dict.fromkeys(_LOSSES.split(), "min"), **dict.fromkeys(_SCORES.split(), "max")}
_GLUED = re.compile("(loss|error|acc|accuracy|auc|auroc|dice|f1|iou|precision|psnr|recall|reward|score|sdr|snr|ssim)$")


def named_mode(name: str) -> Mode | None:
    """Which end of a metric is the better one by its name: the last word that is a loss's or a score's decides.

    Words are letters with trailing digits. They also end where a capital letter begins another one.

    Args:
        name: Name of the metric.

    Returns:
        ``"min"`` for a loss, ``"max"`` for a score, None if no word is known.

    Example:
        >>> [named_mode(name) for name in ("val/loss", "dice_loss", "valAcc", "mAP50", "val/width")]
        ['min', 'min', 'max', 'max', None]
    """
    for run in reversed(re.findall(r"[A-Za-z]+\d*", name)):
        parts = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*", run)
        for end in range(len(parts), 0, -1):
            for start in range(end):  # the longest first: "mIoU" is one word, "PSNRLoss" two
                if mode := _mode_of("".join(parts[start:end]).lower()):
                    return mode
    return None


def _mode_of(word: str) -> Mode | None:
    letters = word.rstrip("0123456789")  # "acc5", "map50"
    if glued := _GLUED.search(word) or _GLUED.search(letters):  # "valacc"
        word = glued[0]
    return _MODES.get(word) or _MODES.get(letters)


def resolve_mode(monitor: str, mode: str | None) -> Mode:
    """Decide which end of a metric is the better one: the given mode, or ``"min"`` unless the name is a score's.

    Args:
        monitor: Name of the metric.
        mode: ``"min"``, ``"max"``, or None to go by the name.

    Raises:
        TypeError: If ``monitor`` is no string.
        ValueError: If ``mode`` is not one of the three, or None for a score.

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
    """Whether a metric is not among those that the sanity check has logged, and the first epoch can't log it either.

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
