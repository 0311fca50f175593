"""The blocks of a model, from its stem to its head."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lightning_trainingkit.nn._tracing import NORMS, join

__all__ = ["Block", "find_blocks"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Block:
    """Parameters of a model that belong together.

    Args:
        name: Name of the module that holds the first of them.
        parameters: Each parameter once; one that two blocks share is in the later one.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]


def find_blocks(module: nn.Module, head: str, *, skip: tuple[type[nn.Module], ...] = ()) -> list[Block]:
    """Cut a model into blocks, in the order in which they are defined, the head last.

    A block is a module whose class occurs several times (a residual block, a transformer layer), or a layer that is in
    none. Containers, and classes that occur once, are looked into. A norm layer belongs to the block before it, and
    parameters that a container holds itself (a class token) to the first block.

    Args:
        module: Any module; names are relative to it.
        head: Name of its last layer, as ``find_head`` gives it.
        skip: Types of submodules to leave out.

    Returns:
        The blocks that have parameters.

    Example:
        >>> from torchvision.models import resnet18
        >>> names = [block.name for block in find_blocks(resnet18(), "fc")]
        >>> print(*names)
        conv1 layer1.0 layer1.1 layer2.0 layer2.1 layer3.0 layer3.1 layer4.0 layer4.1 fc
    """
    top = module.get_submodule(head)
    counts = Counter(type(each) for each in module.modules())
    found: list[tuple[str, list[nn.Parameter]]] = []
    first: list[nn.Parameter] = []
    for name, part, whole in _parts(module, "", top, counts, skip):
        if not whole:
            first += part.parameters(recurse=False)
        elif found and all(isinstance(each, NORMS) for each in _holders(part)):
            found[-1][1].extend(part.parameters())
        else:
            found.append((name, list(part.parameters())))
    if found:
        found[0] = (found[0][0], first + found[0][1])
    elif first:
        found.append(("", first))
    found.append((head, list(top.parameters())))
    seen: set[nn.Parameter] = set()
    blocks = []
    for name, parameters in reversed(found):
        new = [each for each in dict.fromkeys(parameters) if each not in seen]
        seen.update(new)
        if new:
            blocks.append(Block(name, tuple(new)))
    return blocks[::-1]


def _parts(
    module: nn.Module, name: str, head: nn.Module, counts: Counter[type], skip: tuple[type[nn.Module], ...]
) -> Iterator[tuple[str, nn.Module, bool]]:
    """Name the modules to take whole, and those of which only their own parameters are left to take."""
    if module is head or isinstance(module, skip):
        return
    children = [(key, child) for key, child in module.named_children() if any(True for _ in child.parameters())]
    above = any(each is head for each in module.modules())
    opened = above or type(module) in _CONTAINERS or counts[type(module)] == 1
    if children and opened:
        yield name, module, False
        for key, child in children:
            yield from _parts(child, join(name, key), head, counts, skip)
    elif any(True for _ in module.parameters()):
        yield name, module, True


def _holders(module: nn.Module) -> list[nn.Module]:
    """The modules that hold parameters themselves."""
    return [each for each in module.modules() if any(True for _ in each.parameters(recurse=False))]
