"""Why a network does not learn a few minibatches: causes are shown by further short trials."""

from collections.abc import Callable

from torch import nn

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.untrained import listed
from lightning_trainingkit.tuning.memorise import Memorise
from lightning_trainingkit.tuning.reason import reason

__all__ = ["far_targets", "frozen_part", "is_certain", "not_to_judge", "rate_at_fault", "thawing_helps", "too_small"]

_CERTAIN = {
    "wrong_loss_sign",
    "softmax_before_loss",
    "parameters_not_trained",
    "gradients_not_cleared",
    "batch_leaks",
    "eval_mode_in_training",
    "normalisation_off",
    "symmetric_units",
}

_PROBE = 100  # steps of a trial with another rate
_POWERS = {1: 9, -1: 6}  # of 10, by which the rate is raised and lowered
_BETTER = 0.7  # share of the loss that another rate leaves, relative to the own rate
_STUCK = 0.98
_NEARLY = 0.9  # right predictions, of which a model that is too small is no likely reason
_FAR = 10.0  # times the loss of the best constant


def is_certain(finding: Finding) -> bool:
    """Whether a finding needs no trial of other rates. Few examples may leave the gradient of some layers at zero."""
    return finding.kind in _CERTAIN and "exactly zero" not in finding.message


Run = Callable[[Memorise], Memorise]


def rate_at_fault(own: Memorise, make: Callable[[float, int], Memorise], run: Run) -> Finding | None:
    """Train with larger and smaller rates, by factors of 10, and report a rate that is clearly better.

    Short trials go on to ever larger or smaller rates. If none of them is clearly better, the next larger and the next
    smaller rate get as many steps as the own rate had.

    Args:
        own: The training at the own rate.
        make: Makes a trial from a factor of the rates and a number of steps.
        run: Runs a trial.
    """
    steps = min(_PROBE, own.max_steps)
    directions = (-1, 1) if own.rises else (1, -1)
    for direction in directions:
        factor, best = _climb(direction, lambda factor: run(make(factor, steps)))
        if best.reached or best.left < _BETTER * min(own.left, 1.0):
            return _shown(own, factor, best)
    if own.max_steps > steps:
        for direction in directions:
            trial = run(make(10.0**direction, own.max_steps))
            if trial.reached:
                return _shown(own, 10.0**direction, trial)
    return None


def _climb(direction: int, probe: Callable[[float], Memorise]) -> tuple[float, Memorise]:
    """Multiply the rate by 10, or divide it, until the loss gets worse. Return the best factor and its trial."""
    factor = 10.0**direction
    best = trial = probe(factor)
    for power in range(2, _POWERS[direction] + 1):
        if trial.reached or (direction > 0 and trial.rises) or (best.left < _STUCK and trial.left > best.left):
            break
        trial = probe(10.0 ** (direction * power))
        if trial.left < best.left:
            factor, best = 10.0 ** (direction * power), trial
    return factor, best


def _shown(own: Memorise, factor: float, trial: Memorise) -> Finding:
    kind, word, verb = ("rate_too_low", "low", "Raise") if factor > 1 else ("rate_too_high", "high", "Lower")
    times = f"{factor:g} times as large" if factor > 1 else f"{1 / factor:g} times smaller"
    return reason(
        kind,
        "the optimizer",
        factor,
        f"The learning rate {own.rate:.2g} is too {word}: with it, {own.course}. With {trial.rate:.2g}, {times}, "
        f"{_reached(trial)}.",
        f"{verb} the learning rate, to about `lr={float(f'{trial.rate:.1g}'):g}`. `find_learning_rate` measures it on "
        "all data.",
    )


def thawing_helps(own: Memorise, thawed: Memorise, module: nn.Module) -> Finding | None:
    """Say that frozen parameters are the cause, if training them too is clearly better.

    Args:
        own: The training as it is.
        thawed: The training of all parameters.
        module: The module, to name its frozen layers.
    """
    if not thawed.reached and not thawed.left < _BETTER * min(own.left, 1.0):
        return None
    return frozen(module, f"With all of them trained, {_reached(thawed)}.")


def frozen_part(module: nn.Module) -> tuple[float, list[str], str]:
    """Return the frozen share of the parameters, the names of the frozen layers, and both in words."""
    sizes = {name: each.numel() for name, each in module.named_parameters()}
    names = [name for name, each in module.named_parameters() if not each.requires_grad]
    share = sum(sizes[name] for name in names) / max(1, sum(sizes.values()))
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    return (
        share,
        layers,
        f"{share if share == 1 else min(share, 0.99):.0%} of the parameters are frozen: {listed(layers)}."
        if layers
        else "",
    )


def frozen(module: nn.Module, shown: str) -> Finding:
    """Name the frozen layers of a module."""
    share, layers, words = frozen_part(module)
    return reason(
        "frozen_parameters",
        layers[0],
        share,
        f"{words} {shown}",
        f'Train them too: `self.get_submodule("{layers[0].rpartition(".")[0] or layers[0]}").requires_grad_(True)`, '
        "before the optimizer is built.",
    )


def not_to_judge(own: Memorise, draws: bool, other_terms: bool) -> Finding | None:
    """Say why a module need not learn the sample by heart, or None.

    Args:
        own: The training.
        draws: Whether the training step draws random numbers.
        other_terms: Whether the step adds to its known losses what differs from batch to batch.
    """
    if own.optimizers > 1:
        return reason(
            "several_optimizers",
            "the optimizers",
            float(own.optimizers),
            f"The module has {own.optimizers} optimizers, which may work against each other, as those of a GAN do.",
            "Check each network alone, in a module with one optimizer.",
        )
    if draws:
        return reason(
            "step_draws",
            "training_step",
            own.left,
            "The training step draws random numbers, so that the same batch gives other outputs each time. It cannot "
            "be learnt by heart.",
            "Leave out what the step draws, such as mixup, noise or augmentation, for this check.",
        )
    if other_terms:
        return reason(
            "other_terms",
            "training_step",
            own.left,
            "The step adds other terms to the loss, which may keep some predictions from being right, as those of a "
            "teacher network do.",
            "Leave the other terms out for this check.",
        )
    return None


def too_small(own: Memorise, module: L.LightningModule, examples: int) -> Finding:
    """Say what is left if no rate is better, and no fault was seen.

    Args:
        own: The training.
        module: The trained module.
        examples: Number of examples.
    """
    quarter = own.losses[-max(2, len(own.losses) // 4) :]
    falls = own.left < 1 and quarter[-1] < 0.9 * quarter[0]
    if falls or (own.accuracies and own.accuracies[-1] >= _NEARLY):
        return reason(
            "too_few_steps",
            "the training",
            float(len(own.steps)),
            f"The loss still falls after {len(own.steps)} steps." if falls else "Only few predictions are wrong.",
            f"Give it more steps, `max_steps={2 * own.max_steps}`, or a larger learning rate.",
        )
    widths = {
        name: int(getattr(layer, "out_features", 0) or getattr(layer, "out_channels", 0))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }
    count = sum(each.numel() for each in module.parameters() if each.requires_grad)
    narrow = min(list(widths)[:-1], key=lambda name: widths[name], default="")
    where = f"; its narrowest layer, {narrow}, has {widths[narrow]} outputs" if narrow else ""
    return reason(
        "model_too_small",
        narrow or "the model",
        float(count),
        f"No other rate is better, and no fault was seen: the model is likely too small. It has {count} trained "
        f"parameters for {examples} examples{where}.",
        f"Make {f'{narrow} wider' if narrow else 'the model larger'}, or give the head more inputs.",
    )


def _reached(trial: Memorise) -> str:
    if not trial.accuracies:
        return trial.course
    return f"{trial.accuracies[-1]:.0%} of the predictions are right after {len(trial.steps)} steps"


def far_targets(own: Memorise) -> Finding | None:
    """Say that the targets of a regression are not scaled, or None."""
    if own.accuracies or not own.chance or not own.steps or not own.steps[0] > _FAR * own.chance:
        return None
    return Finding.of(
        "wrong_initial_loss",
        "the targets",
        own.steps[0],
        f"The loss begins at {own.steps[0]:.3g}, and the best constant output gives {own.chance:.3g}: the targets are "
        "far from 0.",
        "Scale the targets to mean 0 and std 1: `(y - mean) / std`.",
    )
