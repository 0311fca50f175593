"""Findings about layers that run in the wrong mode."""

from collections.abc import Collection, Mapping

from torch import nn

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.layer_calls import CallFact, layers_with_modes
from lightning_trainingkit.nn.diagnostics.untrained import listed
from lightning_trainingkit.nn.structure.names import plain_name
from lightning_trainingkit.nn.structure.randomness import layers_that_draw

__all__ = ["parts_in_eval_mode", "find_eval_mode", "find_training_mode"]

_LEAST = 3  # looked training steps without which nothing is said


def parts_in_eval_mode(module: nn.Module, trained: Collection[nn.Parameter]) -> dict[str, str]:
    """Find layers that are in eval mode because a trained part around them is.

    - **The part** is the largest module around the layer that is in eval mode with all its submodules. It holds more
      than the layer: a single BatchNorm or dropout is put in eval mode on purpose.
    - **Trained**: most of the part's parameters are trained. A part that is frozen, or mostly frozen, is in eval mode
      on purpose. So is a BatchNorm whose own parameters are frozen.

    Args:
        module: The trained module, at the end of a training step.
        trained: The parameters that are trained.

    Returns:
        Layer name to the name of its part, ``""`` for the module itself.

    Example:
        >>> net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval(), nn.Linear(2, 2))
        >>> parts_in_eval_mode(net, set(net.parameters()))
        {'0.1': '0'}
    """
    names = {plain_name(name): each for name, each in module.named_modules()}
    wholly = {name for name, each in names.items() if not any(part.training for part in each.modules())}
    trained = set(trained)
    shares: dict[str, float] = {}
    found = {}
    for name, layer in layers_with_modes(module).items():
        if name not in wholly or isinstance(layer, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | nn.LocalResponseNorm):
            continue
        part = min((above for above in wholly if _holds(above, name)), key=len)
        if part not in shares:
            shares[part] = _trained_share(names[part], trained)
        own = list(layer.parameters())
        frozen = own and not any(each in trained for each in own)
        if part != name and not frozen and shares[part] > 0.5:
            found[name] = part
    return found


def _trained_share(module: nn.Module, trained: Collection[nn.Parameter]) -> float:
    sizes = {parameter: parameter.numel() for parameter in module.parameters()}
    return sum(size for parameter, size in sizes.items() if parameter in trained) / max(1, sum(sizes.values()))


def _holds(above: str, name: str) -> bool:
    return not above or name == above or name.startswith(f"{above}.")


def find_eval_mode(facts: Mapping[str, CallFact], parts: Mapping[str, str]) -> list[Finding]:
    """Find layers of trained parts that the last looked training steps called in eval mode.

    Args:
        facts: Layer name to its calls in training.
        parts: Layer name to its part in eval mode.

    Returns:
        At most one finding.
    """
    layers = [name for name in parts if name in facts and facts[name].eval_streak >= _LEAST]
    if not layers:
        return []
    chosen = sorted({parts[name] for name in layers})
    steps = min(facts[name].eval_streak for name in layers)
    where = listed([name or "the whole module" for name in chosen])
    line = "self.train()" if "" in chosen else f'self.get_submodule("{chosen[0]}").train()'
    return [
        Finding.of(
            "eval_mode_in_training",
            where,
            len(layers),
            f"{where} trains in eval mode: {len(layers)} BatchNorm or dropout layers act as in evaluation "
            f"({listed(layers)}), in the last {steps} training steps that were looked at.",
            f"Call `{line}` in `on_train_start`, and after each `eval()` of your own: Lightning keeps the mode that it "
            "finds. If the part is frozen on purpose, set `requires_grad_(False)` on it.",
        )
    ]


def find_training_mode(module: nn.Module, facts: Mapping[str, CallFact]) -> list[Finding]:
    """Find layers that validation calls in training mode alone.

    Layers that draw and are switched on inside the validation step alone are Monte Carlo dropout. It is no finding.

    Args:
        module: The trained module.
        facts: Layer name to its calls in validation.

    Returns:
        At most one finding.
    """
    layers = layers_with_modes(module)
    drawing = layers_that_draw(layers.values())
    norms, draws = [], []
    for name, fact in facts.items():
        layer = layers.get(name)
        if layer is None or not fact.training or fact.evaluating:
            continue
        if layer in drawing:
            draws.append(name)
        elif getattr(layer, "track_running_stats", False) and getattr(layer, "running_mean", None) is not None:
            norms.append(name)
    if not norms:
        draws = [name for name in draws if facts[name].switched < facts[name].training]
    if not norms and not draws:
        return []
    wrong = [*norms, *draws]
    cause = (
        "The metrics depend on the batch, and validation data change the running statistics."
        if norms
        else "The metrics are random. If this is Monte Carlo dropout on purpose, average several passes."
    )
    line = "self.eval()" if norms else f'self.get_submodule("{draws[0]}").eval()'
    return [
        Finding.of(
            "evaluation_in_training_mode",
            listed(wrong),
            len(wrong),
            f"Validation runs {len(wrong)} layers in training mode ({len(norms)} BatchNorm, {len(draws)} that draw "
            f"random numbers): {listed(wrong)}. {cause}",
            f"Call `{line}` before the forward of `validation_step`, and no `train()` in the validation hooks.",
        )
    ]
