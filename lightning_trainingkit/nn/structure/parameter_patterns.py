"""Match patterns with the names of layers and parameters, and choose parameters by them."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.phases import last_blocks
from lightning_trainingkit.nn.structure.blocks import Block
from lightning_trainingkit.nn.structure.names import plain_names

__all__ = ["match", "match_parameters", "no_match", "parameter_names", "read_patterns", "select"]


def match(pattern: str, names: Iterable[str]) -> list[str]:
    """List the names that a pattern matches, in their order.

    Args:
        pattern: Pattern of ``fnmatch``: ``*`` stands for any characters, dots among them.
        names: Names of modules or parameters.

    Example:
        >>> match("layer[12].*", ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"])
        ['layer1.0.conv1', 'layer2.0.conv1']
    """
    return [name for name in names if fnmatchcase(name, pattern)]


def read_patterns(argument: str, value: Any, hint: str) -> list[str]:
    """List name patterns that a user gave, as one string or a list of them.

    Args:
        argument: Name of the argument, for errors.
        value: What the user gave.
        hint: Sentence that says what to do.

    Raises:
        TypeError: If the value is neither a string nor a list of strings, or is an empty list.
    """
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list) or not patterns or not all(isinstance(each, str) for each in patterns):
        raise TypeError(f"`{argument}` must be a name pattern or a list of them, got {value!r}. {hint}")
    return patterns


def no_match(argument: str, rule: str, pattern: str, names: Iterable[str], hint: str = "") -> ValueError:
    """Make the error for a pattern or a name without a match. It lists the nearest names.

    Args:
        argument: Name of the argument that holds the pattern.
        rule: What the argument must do, such as ``"match a layer"``.
        pattern: The pattern.
        names: The known names.
        hint: Sentence that says what to do.
    """
    near = ", ".join(_check.nearest(pattern, names)) or "none"
    return ValueError(
        f"`{argument}` must {rule}, got {pattern!r}, which matches none. Nearest names: {near}. {hint}".strip()
    )


def parameter_names(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by their names without ``torch.compile``. A shared parameter stands under all its names."""
    found = module.named_parameters(remove_duplicate=False)
    return plain_names(dict(found))


def match_parameters(argument: str, rule: str, pattern: str, names: Iterable[str], hint: str = "") -> list[str]:
    """List the parameters that a pattern matches: by their own name, or by the name of a module around them.

    Args:
        argument: Name of the argument that holds the pattern, for the error.
        rule: What the argument must do, such as ``"name trainable layers"``.
        pattern: Pattern of ``fnmatch``.
        names: Names of parameters.
        hint: Sentence that says what to do.

    Raises:
        ValueError: If the pattern matches nothing.

    Example:
        >>> match_parameters("layers", "name a layer", "net", ["net.0.weight", "net.0.bias", "head.weight"])
        ['net.0.weight', 'net.0.bias']
    """
    known = {name: _above(name) for name in names}
    matched = set(match(pattern, dict.fromkeys(part for parts in known.values() for part in parts)))
    if not matched:
        modules_first = dict.fromkeys(part for parts in known.values() for part in parts[::-1])
        raise no_match(argument, rule, pattern, modules_first, hint)
    return [name for name, parts in known.items() if not matched.isdisjoint(parts)]


def select(
    argument: str, selectors: Iterable[str], names: dict[str, nn.Parameter], blocks: list[Block]
) -> dict[str, list[nn.Parameter]]:
    """Find the parameters that each selector chooses.

    Args:
        argument: Name of the argument that holds the selectors, for errors.
        selectors: ``all``, ``head`` (the last block), ``last n`` (the last block and up to ``n`` before it), or
            patterns over the names of modules and parameters.
        names: The parameters to choose from, by name.
        blocks: The blocks, the head last.

    Returns:
        Selector to its parameters, in the order of ``names``.

    Raises:
        ValueError: If a selector chooses nothing.
    """
    return {selector: _choose(argument, selector, names, blocks) for selector in selectors}


def _choose(argument: str, selector: str, names: dict[str, nn.Parameter], blocks: list[Block]) -> list[nn.Parameter]:
    if selector == "all":
        return list(dict.fromkeys(names.values()))
    count = 0 if selector == "head" else last_blocks(selector)
    if count is None:
        hint = "Or use 'all', 'head' or 'last 2'."
        chosen = {names[name] for name in match_parameters(argument, "name trainable layers", selector, names, hint)}
    else:
        chosen = {parameter for block in blocks[-1 - count :] for parameter in block.parameters}
    found = [parameter for parameter in dict.fromkeys(names.values()) if parameter in chosen]
    if not found:
        raise ValueError(
            f"`{argument}` must name trainable layers, got {selector!r}, which has requires_grad=False throughout. "
            "Set it to True where the phases are to decide."
        )
    return found


def _above(name: str) -> list[str]:
    """The name of a parameter, and the names of the modules around it."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
