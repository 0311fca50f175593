"""Choose parameters of a model by ``all``, ``head``, ``last n`` or name patterns."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from lightning_trainingkit.functional.phases import last_blocks
from lightning_trainingkit.nn.structure.blocks import Block
from lightning_trainingkit.nn.structure.names import plain_names

__all__ = ["parameter_names", "select"]


def parameter_names(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name, as the module has them without ``torch.compile``; one that is shared has all its names."""
    found = module.named_parameters(remove_duplicate=False)
    return plain_names(dict(found))


def select(
    argument: str, selectors: Iterable[str], names: dict[str, nn.Parameter], blocks: list[Block]
) -> dict[str, list[nn.Parameter]]:
    """Find what each selector chooses.

    Args:
        argument: Where the selectors stand, for errors.
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
        chosen = {parameter for name, parameter in names.items() if any(fnmatchcase(n, selector) for n in _above(name))}
        if not chosen:
            known = list(dict.fromkeys(above for name in names for above in _above(name)[::-1]))
            near = get_close_matches(selector, known, n=8, cutoff=0.3) or known[:20]
            raise ValueError(
                f"`{argument}` must name something that can train, got {selector!r}, which matches nothing. "
                f"Nearest names: {', '.join(near)}. Or use 'all', 'head' or 'last 2'."
            )
    else:
        chosen = {parameter for block in blocks[-1 - count :] for parameter in block.parameters}
    found = [parameter for parameter in dict.fromkeys(names.values()) if parameter in chosen]
    if not found:
        raise ValueError(
            f"`{argument}` must name something that can train, got {selector!r}, all of which has requires_grad=False. "
            "Set it to True where the phases are to decide."
        )
    return found


def _above(name: str) -> list[str]:
    """The parameter's own name, and those of the modules that it is in."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
