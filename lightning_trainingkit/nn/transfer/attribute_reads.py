"""Know what a traced forward reads from its modules, and notice when that is another value."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

__all__ = ["Reads", "plain_attributes", "reads_noted", "is_still"]

_CONTAINERS = (dict, list, tuple)
_MISSING = object()
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}


@dataclass
class Reads:
    """What was read from modules.

    Args:
        names: Names of attributes by module: its own, its class's, those of properties, and those that it lacks.
        found: What was found there. Parameters and buffers are in none of them.
    """

    names: dict[nn.Module, set[str]] = field(default_factory=dict)
    found: list[tuple[nn.Module, str, Any]] = field(default_factory=list)

    def looked_up(self) -> "Reads":
        """These, with what is found there now."""
        found = []
        for module, names in self.names.items():
            for name in names:
                value = _look(module, name)
                plain = value is _MISSING or isinstance(value, _CONTAINERS) or _is_plain(value)
                if plain or name in vars(module) or name in module._modules:  # a method is made anew by each look
                    found.append((module, name, _copy(value)))
        return Reads(self.names, found)

    def changed(self) -> set[nn.Module]:
        """Modules of which something else would be read now."""
        return {module for module, name, value in self.found if not is_still(_look(module, name), value)}


@contextmanager
def reads_noted(module: nn.Module) -> Iterator[Reads]:
    """Note what is read from a module and its parts meanwhile."""
    reads = Reads({each: set() for each in module.modules()})

    def noted(self: nn.Module, name: str) -> Any:
        if not name.startswith("__") and name not in _OF_EVERY_MODULE and self in reads.names:
            reads.names[self].add(name)
        return object.__getattribute__(self, name)

    before = vars(nn.Module).get("__getattribute__")
    nn.Module.__getattribute__ = noted  # type: ignore[assignment, method-assign]
    try:
        yield reads
    finally:
        del nn.Module.__getattribute__
        if before is not None:
            nn.Module.__getattribute__ = before  # type: ignore[method-assign]


def plain_attributes(modules: Iterable[nn.Module]) -> dict[nn.Module, tuple[int, dict[str, Any]]]:
    """By module, how many attributes it has, and those that are plain, or tensors that are no buffers."""
    parts = {each: vars(each) for each in modules}
    return {
        each: (
            len(own),
            {
                name: _copy(value, whole=True)
                for name, value in own.items()
                if name not in _OF_EVERY_MODULE and (isinstance(value, (*_CONTAINERS, Tensor)) or _is_plain(value))
            },
        )
        for each, own in parts.items()
    }


def is_still(now: Any, before: Any) -> bool:
    """Whether a value is the copied one, with the same inside."""
    if now is before:
        return True
    if isinstance(before, _Loose):
        return now is before.tensor and _version(now) == before.version
    if isinstance(before, _Object):
        return now is before.whole and _inside(now) == before.plain
    if isinstance(before, dict):
        return (
            isinstance(now, dict)
            and len(now) == len(before)
            and all(key in now and is_still(now[key], value) for key, value in before.items())
        )
    if isinstance(before, list | tuple):
        return isinstance(now, type(before)) and len(now) == len(before) and all(map(is_still, now, before))
    return _is_plain(now) and _is_plain(before) and bool(now == before)


def _look(module: nn.Module, name: str) -> Any:
    own = vars(module)
    if name in own:
        return own[name]
    if name in module._modules:
        return module._modules[name]
    if name in module._parameters or name in module._buffers:
        return None
    try:
        return getattr(module, name)
    except Exception:  # a property of the user's, or none at all
        return _MISSING


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


@dataclass(frozen=True)
class _Object:
    """An object that is no module, and what it held."""

    whole: Any
    plain: dict[str, Any]


@dataclass(frozen=True)
class _Loose:
    """A tensor that is neither parameter nor buffer, and how often it had been written to."""

    tensor: Tensor
    version: int


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _inside(value: Any) -> dict[str, Any]:
    """Plain attributes of an object, and the step, if it is a Trainer."""
    plain = {name: each for name, each in vars(value).items() if _is_plain(each)}
    return plain | ({"global_step": value.global_step} if hasattr(type(value), "global_step") else {})


def _copy(value: Any, whole: bool = False) -> Any:
    """A value to compare with; of tensors in it the identity, or the ``whole`` of what they hold."""
    if isinstance(value, Tensor) and whole:
        return _Loose(value, _version(value))
    if isinstance(value, dict):
        return {key: _copy(each, whole) for key, each in value.items()}
    if isinstance(value, list):
        return [_copy(each, whole) for each in value]
    if isinstance(value, tuple) and not all(map(_is_plain, value)):
        return tuple(_copy(each, whole) for each in value)
    if hasattr(value, "__dict__") and not isinstance(value, nn.Module | Tensor | type):
        return _Object(value, _inside(value))
    return value
