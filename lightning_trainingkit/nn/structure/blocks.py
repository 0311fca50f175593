"""The blocks of a model, from its stem to its head."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lightning_trainingkit.nn.structure.call_order import call_order, layers_of
from lightning_trainingkit.nn.structure.names import join

__all__ = ["Block", "find_blocks"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Block:
    """Parameters of a model that belong together.

    Args:
        name: Name of the module that holds the first parameters.
        parameters: Each parameter once. A parameter that two blocks share is in the later block.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]


@dataclass
class _Part:
    """An unfinished block: the number of its first use, its name, and the names of its parameters."""

    used: int
    name: str
    names: list[str]


def find_blocks(module: nn.Module, *, skip: tuple[type[nn.Module], ...] = ()) -> list[Block]:
    """Cut a model into blocks, in the order in which its forward uses them, the head last.

    - **A block** is a module whose class occurs several times (a residual block, a transformer layer), or a layer
      outside of such modules. Containers, and classes that occur once, are split.
    - **Modules without a matrix**, such as norms, belong to the block before them. A class token belongs to the first.
    - **The head** is the last layers, as ``find_heads`` finds them, with the modules that the forward uses later.
    - **Modules that the forward doesn't call in evaluation** belong to the block that is defined before them.
    - **A forward that can't be traced**: its submodules follow in the order of their definition.

    Args:
        module: Any module; names are relative to it.
        skip: Types of submodules to leave out.

    Returns:
        The blocks that have parameters.

    Example:
        >>> from torchvision.models import resnet18
        >>> print(*[block.name for block in find_blocks(resnet18())])
        conv1 layer1.0 layer1.1 layer2.0 layer2.1 layer3.0 layer3.1 layer4.0 layer4.1 fc
    """
    found = call_order(module, skip=skip)
    first: dict[str, int] = {}
    for number, name in enumerate(found.order):
        first.setdefault(name, number)
    heads = [module.get_submodule(name) for name in found.last]
    parts: list[_Part] = []
    loose: list[str] = []  # parameters of containers, and of modules before all blocks
    for name, part, whole in _walk(module, "", heads, Counter(type(each) for each in module.modules()), skip):
        names = [join(name, each) for each, _ in part.named_parameters(recurse=whole, remove_duplicate=False)]
        used = [first[each] for each in names if each in first]
        if whole and used:
            parts.append(_Part(min(used), name, names))
        elif whole and parts:
            parts[-1].names += names
        else:
            loose += names
    blocks = _join(parts, found.last, layers_of(module, skip))
    for name in loose if blocks else []:
        if name in first:
            block = next((each for each in reversed(blocks) if each.used <= first[name]), blocks[0])
        else:  # the module's own parameters that only training uses go with the head
            block = blocks[0] if "." in name else blocks[-1]
        block.names.append(name)
    return _blocks(module, blocks or [_Part(0, "", loose)])


def _join(parts: list[_Part], last: list[str], layers: list[str]) -> list[_Part]:
    """Order the parts by use. Parts after the last layers join the head, parts without a matrix another block."""
    heads = [part for part in parts if part.name in last]
    end = max((head.used for head in heads), default=math.inf)
    blocks: list[_Part] = []
    ahead: list[str] = []
    for part in sorted(parts, key=lambda part: part.used):
        if part in heads or part.used > end:
            continue
        if any(layer == part.name or layer.startswith(f"{part.name}.") for layer in layers):
            blocks.append(_Part(part.used, part.name, ahead + part.names))
            ahead = []
        elif blocks:
            blocks[-1].names += part.names
        else:
            ahead += part.names
    if heads or ahead:
        after = [name for part in parts if part not in heads and part.used > end for name in part.names]
        names = [name for head in heads for name in head.names]
        blocks.append(_Part(int(end) if heads else 0, " and ".join(last), ahead + names + after))
    return blocks


def _blocks(module: nn.Module, parts: list[_Part]) -> list[Block]:
    """Make the blocks. Each parameter goes to the last part that has it, in the order of definition."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    rank = {name: number for number, name in enumerate(parameters)}
    seen: set[nn.Parameter] = set()
    found = []
    for part in reversed(parts):
        names = sorted(part.names, key=rank.__getitem__)
        new = [each for each in dict.fromkeys(parameters[name] for name in names) if each not in seen]
        seen.update(new)
        if new:
            found.append(Block(part.name, tuple(new)))
    return found[::-1]


def _walk(
    module: nn.Module, name: str, heads: list[nn.Module], counts: Counter[type], skip: tuple[type[nn.Module], ...]
) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield each part with its name, and whether it is taken whole or without its children."""
    if isinstance(module, skip):
        return
    if any(module is head for head in heads):
        yield name, module, True
        return
    children = [(key, child) for key, child in module.named_children() if any(True for _ in child.parameters())]
    above = any(each is head for each in module.modules() for head in heads)
    opened = above or type(module) in _CONTAINERS or counts[type(module)] == 1
    if children and opened:
        yield name, module, False
        for key, child in children:
            yield from _walk(child, join(name, key), heads, counts, skip)
    elif any(True for _ in module.parameters()):
        yield name, module, True
