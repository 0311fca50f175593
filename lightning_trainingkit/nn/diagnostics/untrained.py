"""Findings about parameters that require a gradient and are not trained."""

from collections.abc import Collection, Mapping

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.parameter_watch import ParameterFact

__all__ = ["find_untrained", "group_names", "listed"]

_LEAST = 3  # batches and steps without which nothing is said
_FEW = 10  # batches without a gradient that suffice at the end of the fit
_MORE = 30  # after the first epoch: a layer may be skipped at random
_MANY = 100  # in the first epoch

_REASONS: dict[str, tuple[str, str]] = {
    "no optimizer": (
        "{count} of {all} trainable parameters get gradients, and no optimizer holds them: {names}. "
        "Was the optimizer built before these layers were added or replaced?",
        "Build the optimizer from all parameters, after the layers: `torch.optim.AdamW(self.parameters())`. "
        'If they are frozen on purpose, say so: `self.get_submodule("{first}").requires_grad_(False)`.',
    ),
    "no step": (
        "{count} of {all} trainable parameters get gradients, and their optimizer made no step in {batches} batches: "
        "{names}.",
        "In manual optimization, call `optimizer.step()` after `self.manual_backward(loss)`, with "
        "`optimizer = self.optimizers()`. An overridden `optimizer_step` must call `optimizer.step(closure=closure)`.",
    ),
    "cleared": (
        "{count} of {all} trainable parameters get gradients, and the gradients are None or zero in each step of the "
        "optimizer ({steps} steps): {names}.",
        "Clear the gradients before the backward pass, not between it and the step: `optimizer.zero_grad()`, "
        "`self.manual_backward(loss)`, `optimizer.step()`.",
    ),
    "no gradient": (
        "{count} of {all} trainable parameters got no gradient in {batches} batches: {names}. "
        "The forward does not use them, or the graph is cut behind them (`detach()`, `.data`, `torch.no_grad()`).",
        "Remove the cut, or use the layers in `forward`. If they are frozen on purpose, say so: "
        '`self.get_submodule("{first}").requires_grad_(False)`.',
    ),
    "zero": (
        "{count} of {all} trainable parameters had gradients of exactly zero in {batches} batches: {names}. "
        "A factor of zero, a mask, or dead units stand between them and the loss.",
        'Look for the factor of zero between `self.get_submodule("{first}")` and the loss: a loss weight of 0, a mask '
        "of zeros, or an activation that is 0 for all inputs.",
    ),
}
"""Reason to message and advice, in the order in which findings are listed."""


def find_untrained(
    facts: Mapping[str, ParameterFact], *, epochs: int, final: bool, leave_out: Collection[str] = ()
) -> list[Finding]:
    """Find parameters that require a gradient, and are in no optimizer, get no gradient or are in no step.

    No finding:

    - **Averages**: parameters that get no gradient and change all the same.
    - **Frozen parts**: parts in eval mode that get no gradient or are in no optimizer.

    Args:
        facts: Parameter name to its facts.
        epochs: Number of finished epochs.
        final: Whether the fit is over.
        leave_out: Parameter names that another finding covers.

    Returns:
        One finding for each reason. ``where`` names the layers, ``value`` is the share of the trainable parameters.
    """
    if not any(fact.in_optimizer for fact in facts.values()):
        return []
    # One of several optimizers may begin after an epoch.
    no_step_yet = not any(fact.steps for fact in facts.values())
    trained = {name.rpartition(".")[0] for name, fact in facts.items() if fact.applied}
    reasons: dict[str, list[str]] = {}
    for name, fact in facts.items():
        needed = _FEW if final else _MORE if epochs else _MANY
        reason = _reason(fact, needed, settled=final or epochs > 0, all_begun=final or epochs > 1 or no_step_yet)
        # A bias may have a gradient of zero by its place in the net, beside a weight that is trained.
        beside = reason in ("zero", "cleared") and name.rpartition(".")[0] in trained
        if reason and name not in leave_out and not beside:
            reasons.setdefault(reason, []).append(name)
    return [_finding(reason, reasons[reason], facts) for reason in _REASONS if reason in reasons]


def _reason(fact: ParameterFact, needed: int, *, settled: bool, all_begun: bool) -> str:
    """Why a parameter is not trained. Empty if it is, if that is on purpose, or if it is too early to say."""
    if fact.applied or fact.batches < _LEAST or (fact.changed and not fact.arrived):
        return ""
    if not fact.in_optimizer:
        return "no optimizer" if fact.nonzero and not fact.changed and not fact.eval_mode else ""
    if not fact.arrived:
        long = fact.batches >= needed and fact.steps >= _LEAST
        return "no gradient" if long and not fact.eval_mode else ""
    if not settled:
        return ""
    if fact.nonzero and not fact.changed:
        if not fact.steps:
            return "no step" if all_begun else ""
        return "cleared" if fact.steps >= _LEAST else ""
    return "zero" if not fact.nonzero and fact.steps >= _LEAST else ""


def _finding(reason: str, names: list[str], facts: Mapping[str, ParameterFact]) -> Finding:
    groups = group_names(names, facts)
    message, advice = _REASONS[reason]
    chosen = [facts[name] for name in names]
    details = {
        "count": len(names),
        "all": len(facts),
        "names": listed(groups),
        "first": _module_of(groups[0], names),
        "batches": max(fact.batches for fact in chosen),
        "steps": max(fact.steps for fact in chosen),
    }
    share = len(names) / len(facts)
    return Finding.of(
        "parameters_not_trained", listed(groups), share, message.format(**details), advice.format(**details)
    )


def _module_of(group: str, names: Collection[str]) -> str:
    """The module of a group: the group itself, or the owner of a single parameter."""
    return group.rpartition(".")[0] if group in names else group


def group_names(names: Collection[str], known: Collection[str]) -> list[str]:
    """Replace parameter names by the names of the largest modules of which all known parameters are among them.

    Example:
        >>> group_names(["net.0.weight", "net.0.bias", "net.2.bias"], ["net.0.weight", "net.0.bias", "net.2.weight",
        ...     "net.2.bias"])
        ['net.0', 'net.2.bias']
    """
    chosen = set(names)
    outside = {part for name in known if name not in chosen for part in _above(name)}
    groups: dict[str, None] = {}
    for name in names:
        whole = [part for part in _above(name) if part not in outside]
        groups[whole[0] if whole else name] = None
    return list(groups)


def _above(name: str) -> list[str]:
    """The names of the modules around a parameter, the outermost first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def listed(names: Collection[str], most: int = 4) -> str:
    """Join names for a message: the first few, and the number of the others."""
    first = list(names)[:most]
    return ", ".join(first) + (f" and {len(names) - most} more" if len(names) > most else "")
