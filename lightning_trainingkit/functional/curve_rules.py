"""The rules that name the shape of curves, each with its thresholds."""

from collections.abc import Callable

from lightning_trainingkit.functional.curve_epochs import FEWEST_EPOCHS
from lightning_trainingkit.functional.curve_measures import CurveMeasures

__all__ = ["EARLY", "RULES", "Seen"]

Seen = tuple[float, str]
"""The number that a rule rests on, and a sentence with it."""

# diverged
RISEN = 1.2  # training loss at the end, relative to the first
EXPLODED = 5.0  # highest training loss, relative to the first
NOT_BACK = 0.7  # training loss at the end after an explosion, relative to the first
LOST, FAR = 0.5, 0.25  # share of the fall that the training loss gave back, and how far it must have fallen
HUGE, PLUNGE = 100.0, 50.0  # mean training loss of the first epoch, itself and relative to the second epoch's
CLIFF, SETTLED = 4.0, 0.15  # loss of the first epoch relative to the later ones, and change of these as a share
RECOVERED, NO_MORE = 2.0, 0.02  # the same where accuracies were logged, and gain of accuracy that is none
# not started
STARTED = 0.06  # share of the first loss by which training must have lowered it
LATE = 0.3  # share of the training that passed before the loss fell
KNOWS = 0.8  # accuracy from which a flat loss is a finished training, not one that never started
# noisy
NOISE = 0.25  # typical jump, as a share of all that was gained
SOME_NOISE, EXTRA = 0.1, 7.0  # a smaller jump, if it is so many times the training loss's, both relative to the loss
# leaked
FITTED = 0.12  # training loss relative to the first, from which a gap must show
EQUAL, BETTER = 0.06, 0.3  # how much worse and better a loss on validation is the same, as a share of the loss
# overfit
RISE = 0.15  # of the validation loss above its lowest
TURNED = 3.0  # the same, in jumps
GAP, GAP_LEVEL = 0.5, 0.35  # share of the validation loss, and validation loss relative to the first
ACC_GAP = 0.18  # decides instead of the level where accuracies were logged
# cut too early
FALLING = 0.12  # share of the judged loss that the last third took away
SURE = 2.5  # the same, in standard errors
RATE_USED_UP = 0.05  # learning rate relative to the highest, below which a schedule has ended
# plateau and underfit
SHAKE = 0.05  # typical jump at the end, as a share of the loss, that a low learning rate does not make
STUCK, POOR = 0.05, 0.2  # judged loss relative to the first, which could still fall
FINE = 0.9  # accuracy that is not poor
RATE_KEPT = 0.3  # learning rate relative to the highest, above which it was not decayed
NO_GAP, WIDER_GAP = 0.2, 0.35  # share of the validation loss; the second where that has hardly fallen
# healthy
GOOD = 0.6  # judged loss at the end, relative to the first


def diverged(m: CurveMeasures) -> Seen | None:
    """A loss that is not finite, or that ends far above its best."""
    if m.broken is not None:
        return m.broken, f"The loss is not finite from step {m.broken:g} on."
    if m.risen > RISEN:
        return m.risen, f"The training loss ends at {m.risen:.1f} times its first value."
    poor = m.acc is None or m.acc < KNOWS
    if m.peak > EXPLODED and m.end > NOT_BACK:
        return m.peak, f"The training loss rose to {m.peak:.3g} times its first value and did not recover."
    lost = (m.end - m.best) / max(1 - m.best, 1e-9)
    if lost > LOST and m.best < 1 - FAR:
        return lost, f"The training loss gave back {lost:.0%} of its fall."
    if m.start > HUGE and m.plunge > PLUNGE:
        return m.start, (
            f"The mean training loss of the first epoch is {m.start:.3g}, {m.plunge:.3g} times that of the second: it "
            "exploded at once, or the targets are large and have not been scaled."
        )
    flat = m.acc is None and m.drop > CLIFF and abs(m.settled - 1) < SETTLED and m.epochs >= FEWEST_EPOCHS
    nothing_more = poor and m.learned is not None and m.learned < NO_MORE
    if flat or (nothing_more and m.drop > RECOVERED):
        return m.drop, (
            f"The training loss of the first epoch is {m.drop:.3g} times the later ones, and nothing was learned after "
            "it: it exploded at once."
        )
    return None


def not_started(m: CurveMeasures) -> Seen | None:
    """A loss that is flat from the start."""
    if m.acc is not None and m.acc > KNOWS:
        return None
    if m.end > 1 - STARTED:
        return 1 - m.end, f"The training loss fell by only {max(0.0, 1 - m.end):.1%}: it is flat from the start."
    if m.waited > LATE and not _falls(m) and m.end < 1 - FAR and m.epochs >= 2 * FEWEST_EPOCHS:
        return m.waited, f"The training loss was flat for the first {m.waited:.0%} of the training, and fell then."
    return None


def noisy(m: CurveMeasures) -> Seen | None:
    """Jumps between epochs that hide the trend, or that validation has and training has not."""
    if m.jumps > NOISE:
        return m.jumps, f"The {m.judged} loss jumps between epochs by {m.jumps:.0%} of all that it gained."
    if m.jumps > SOME_NOISE and m.extra > EXTRA:
        return m.jumps, (
            f"The validation loss jumps between epochs by {m.jumps:.0%} of all that it gained, {m.extra:.0f} times as "
            "much as the training loss."
        )
    return None


def leaked(m: CurveMeasures) -> Seen | None:
    """Validation as good as training, where training examples are known by heart."""
    # a validation loss that is a little lower is explained by its training loss being a mean over an epoch
    if m.validated and m.end < FITTED and -EQUAL < m.lead < BETTER:
        return m.lead, (
            f"The training loss fell to {m.end:.1%} of its first value, and the validation loss is the same within "
            f"{abs(m.lead):.1%}: unseen examples are hardly ever learned as well."
        )
    return None


def overfit(m: CurveMeasures) -> Seen | None:
    """A validation loss that rises, or a huge gap."""
    if not m.validated:
        return None
    if m.rise > RISE and m.turn > TURNED and m.gap > 0:
        return m.rise, f"The validation loss has turned: it ends {m.rise:.0%} of its value above its lowest."
    if m.gap > GAP and (m.level > GAP_LEVEL if m.acc_gap is None else m.acc_gap > ACC_GAP):
        more = f", the accuracy {100 * m.acc_gap:.0f} points" if m.acc_gap is not None else ""
        return m.gap, f"The gap between training and validation is {m.gap:.0%} of the validation loss{more}."
    return None


def cut_too_early(m: CurveMeasures) -> Seen | None:
    """A loss that still falls at the end."""
    if _falls(m):
        return m.fell, f"The {m.judged} loss still falls: by {m.fell:.0%} of its value in the last third."
    return None


def plateau(m: CurveMeasures) -> Seen | None:
    """A loss that has stopped falling, and shakes as with a high learning rate."""
    kept = m.rate_left is None or m.rate_left > RATE_KEPT
    if kept and m.shake > SHAKE and m.level > STUCK:
        return m.shake, f"The {m.judged} loss has stopped falling, and jumps by {m.shake:.0%} of its value each epoch."
    return None


def underfit(m: CurveMeasures) -> Seen | None:
    """No gap, and both losses high."""
    poor = m.level > POOR and (m.acc is None or m.acc < FINE)
    small = m.gap < (WIDER_GAP if m.level > GOOD else NO_GAP)
    if m.validated and small and poor and m.shake < SHAKE:
        return m.level, (
            f"There is hardly a gap between training and validation ({m.gap:.0%}), and both losses have stopped at "
            f"{m.level:.0%} of the first value."
        )
    return None


def healthy(m: CurveMeasures) -> Seen | None:
    """A loss that fell and came to rest near its best."""
    if m.level < GOOD and m.rise < RISE and m.fell < max(FALLING, SURE * m.fell_error):
        return m.level, f"The loss fell to {m.level:.0%} of its first value and came to rest near its best."
    return None


def _falls(m: CurveMeasures) -> bool:
    used_up = m.rate_left is not None and m.rate_left < RATE_USED_UP
    return not used_up and m.fell > FALLING and m.fell > SURE * m.fell_error and m.epochs >= FEWEST_EPOCHS


EARLY = ("diverged", "not_started")
"""Shapes that can be seen in fewer than five epochs."""

RULES: dict[str, Callable[[CurveMeasures], Seen | None]] = {
    "diverged": diverged,
    "not_started": not_started,
    "noisy": noisy,
    "leaked": leaked,
    "overfit": overfit,
    "cut_too_early": cut_too_early,
    "plateau": plateau,
    "underfit": underfit,
    "healthy": healthy,
}
"""The rules by shape, the gravest first: a training that never started has no gap worth reading."""
