"""The rules that name the shape of curves, each with its thresholds."""

from collections.abc import Callable

from lightning_trainingkit.functional.curve_epochs import FEWEST_EPOCHS
from lightning_trainingkit.functional.curve_measures import CurveMeasures

__all__ = ["EARLY", "RULES", "Seen"]

Seen = tuple[float, str]
"""The number that a rule rests on, and a sentence with it."""

# diverged
RISEN = 1.15  # training loss at the end, relative to the first
EXPLODED = 5.0  # highest training loss, relative to the first
NOT_BACK = 0.5  # training loss at the end after an explosion, relative to the first
LOST, FAR = 0.5, 0.25  # share of the fall that the training loss gave back, and how far it must have fallen
HUGE, PLUNGE = 100.0, 25.0  # mean training loss of the first epoch, and of one epoch relative to the next one's
CLIFF, SETTLED = 4.0, 0.15  # loss of the first epoch relative to the later ones, and change of these as a share
NO_MORE = 0.02  # gain of accuracy after the first epoch that is none
RECOVERED, WILD = 2.0, 0.25  # the first epoch's loss relative to the later ones, and jump of the loss as a share of it
# not started
STARTED = 0.06  # share of the first loss by which training must have lowered it
FLAT, HARDLY = 0.02, 0.15  # change since the second epoch, and share of the first loss, that single steps may explain
KNOWS = 0.8  # accuracy from which a flat loss is a finished training, not one that never started
# noisy
NOISE = 0.15  # typical jump, as a share of all that was gained
# leaked
FITTED, BY_HEART = 0.15, 0.05  # training loss relative to the first, from which a gap must show; if it still falls
STILL = 0.04  # typical jump, as a share of all that was gained, of a training that has come to rest
EQUAL, BETTER = 0.06, 0.3  # how much worse and better a loss on validation is the same, as a share of the loss
# overfit
RISE = 0.15  # of the validation loss above its lowest
TURNED = 3.0  # the same, in jumps
WIDE = 0.42  # gap, as the geometric mean of its share of the validation loss and its share of the first loss
# cut too early
FALLING = 0.045  # share of the judged loss that the last third took away
SURE = 2.5  # the same, in standard errors
STEADY = 0.65  # pace of the last sixth relative to the last third's: a schedule that ends slows the fall down
RATE_USED_UP = 0.05  # learning rate relative to the highest, below which a schedule has ended
# plateau and underfit
SHAKE = 0.04  # typical jump at the end, as a share of the loss, that a low learning rate does not make
STUCK, POOR = 0.07, 0.2  # judged loss relative to the first, which could still fall
FINE = 0.9  # accuracy that is not poor
RATE_KEPT = 0.3  # learning rate relative to the highest, above which it was not decayed
NO_GAP = 0.3  # share of the validation loss
# healthy
GOOD = 0.8  # judged loss at the end, relative to the first


def diverged(m: CurveMeasures) -> Seen | None:
    """A loss that is not finite, or that ends far above its best."""
    if m.broken is not None:
        return m.broken, f"The loss is not finite from step {m.broken:g} on."
    if m.end > RISEN:
        return m.end, f"The training loss ends at {m.end:.1f} times its first value."
    poor = m.acc is None or m.acc < KNOWS
    if m.peak > EXPLODED and m.end > NOT_BACK:
        return m.peak, f"The training loss rose to {m.peak:.3g} times its first value and did not recover."
    lost = (m.end - m.best) / max(1 - m.best, 1e-9)
    if lost > LOST and m.best < 1 - FAR:
        return lost, f"The training loss gave back {lost:.0%} of its fall."
    if m.start > HUGE and m.plunge > PLUNGE:
        return m.start, (
            f"The mean training loss of the first epoch is {m.start:.3g}, and fell by a factor of {m.plunge:.3g} in "
            "one epoch: it exploded at once, or the targets are large and have not been scaled."
        )
    flat = poor and m.drop > CLIFF and abs(m.settled - 1) < SETTLED and m.epochs >= FEWEST_EPOCHS
    nothing_more = poor and m.learned is not None and m.learned < NO_MORE
    if flat or (nothing_more and m.drop > RECOVERED):
        return m.drop, (
            f"The training loss of the first epoch is {m.drop:.3g} times the later ones, and nothing was learned after "
            "it: it exploded at once."
        )
    if nothing_more and m.train_shake > WILD:
        return m.train_shake, (
            f"The training loss jumps by {m.train_shake:.0%} of its value each epoch, and nothing was learned."
        )
    return None


def not_started(m: CurveMeasures) -> Seen | None:
    """A loss that is flat from the start."""
    if m.acc is not None and m.acc > KNOWS:
        return None
    if m.end > 1 - STARTED:
        return 1 - m.end, f"The training loss fell by only {max(0.0, 1 - m.end):.1%}: it is flat from the start."
    if m.settled < 1 + FLAT and min(m.end, m.level) > 1 - HARDLY:
        more = max(0.0, m.settled - 1)
        return more, f"The training loss fell by only {more:.1%} since the second epoch, and is as high as at first."
    return None


def noisy(m: CurveMeasures) -> Seen | None:
    """Jumps between epochs that hide the trend."""
    if m.jumps > NOISE:
        return m.jumps, f"The {m.judged} loss jumps between epochs by {m.jumps:.0%} of all that it gained."
    return None


def leaked(m: CurveMeasures) -> Seen | None:
    """Validation as good as training, where training examples are known by heart."""
    # a validation loss that is a little lower is explained by its training loss being a mean over an epoch
    known = m.end < (BY_HEART if _falls(m) else FITTED)
    if m.validated and known and m.jumps < STILL and -EQUAL < m.lead < BETTER:
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
    if m.gap > 0 and (m.gap * (m.level - m.end)) ** 0.5 > WIDE:
        return m.gap, f"The gap between training and validation is {m.gap:.0%} of the validation loss."
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
    if m.validated and m.gap < NO_GAP and poor:
        return m.level, (
            f"There is hardly a gap between training and validation ({m.gap:.0%}), and both losses have stopped at "
            f"{m.level:.0%} of the first value."
        )
    return None


def healthy(m: CurveMeasures) -> Seen | None:
    """A loss that fell and came to rest near its best."""
    if m.level < GOOD and m.rise < RISE and not _falls(m):
        return m.level, f"The loss fell to {m.level:.0%} of its first value and came to rest near its best."
    return None


def _falls(m: CurveMeasures) -> bool:
    used_up = m.rate_left is not None and m.rate_left < RATE_USED_UP
    return (
        not used_up
        and m.pace > STEADY
        and m.fell > FALLING
        and m.fell > SURE * m.fell_error
        and m.epochs >= FEWEST_EPOCHS
    )


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
