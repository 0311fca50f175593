"""What stands in for the parts of a training that a rehearsal must not touch."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any

from torch import Tensor, nn

__all__ = ["Nothing", "held_by_functions", "take_hooks_off"]

_KIT = __name__.partition(".")[0]


class Nothing:
    """An optimizer or scheduler that does nothing. Each attribute that was not given is the object itself.

    Args:
        **attributes: Attributes that have a value.
    """

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the object itself."""
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter([self])

    def __getitem__(self, key: Any) -> Any:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *args: Any) -> None:
        pass


def take_hooks_off(copied: nn.Module) -> None:
    """Take the hooks of gradients and of the kit off a copied module.

    A copy shares its plain functions with the module. Their variables are those of the module, not of the copy.

    Args:
        copied: The copy.

    Raises:
        TypeError: If another forward hook is a plain function, or if an attribute is a function that holds state.
    """
    own = set(copied.modules())
    for name, layer in copied.named_modules():
        where = name or "the module"
        layer._backward_hooks.clear()
        layer._backward_pre_hooks.clear()
        for hooks in (layer._forward_hooks, layer._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if _is_ours(hook):
                    del hooks[key]
                elif isinstance(hook, FunctionType):
                    raise TypeError(f"a forward hook of {where} is a plain function")
        for attribute, value in vars(layer).items():
            if any(_holds_state(function, own) for function in _functions(value)):
                raise TypeError(f"`{attribute}` of {where} is a function that holds a part of the module")


def held_by_functions(copied: nn.Module, module: nn.Module) -> str:
    """Name an attribute of a copied module that is a plain function and holds a part of the module.

    A copy shares its plain functions with the module: they use and change the module, not the copy.

    Args:
        copied: The copy.
        module: The module.

    Returns:
        The attribute and its layer, in words. Empty if there is none.
    """
    layers = dict(module.named_modules())
    parts = {id(part) for part in (*layers.values(), *module.parameters(), *module.buffers())}
    parts |= {
        id(part) for layer in layers.values() for part in vars(layer).values() if isinstance(part, list | dict | set)
    }
    for name, layer in copied.named_modules():
        for attribute, value in vars(layer).items():
            found = [function for function in _functions(value) if not _is_ours(function)]
            seen: set[FunctionType] = set()
            while found:
                function = found.pop()
                seen.add(function)
                held = list(_held(function))
                if any(id(each) in parts or id(getattr(each, "__self__", None)) in parts for each in held):
                    where = "a hook" if attribute.endswith("_hooks") else f"`{attribute}`"
                    return f"{where} of {name or 'the module'}"
                found += [each for each in held if isinstance(each, FunctionType) and each not in seen]
    return ""


def _is_ours(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).partition(".")[0] == _KIT


def _functions(value: Any) -> Iterator[FunctionType]:
    """A function, or the functions in a list, tuple or dict."""
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
    return (each for each in values if isinstance(each, FunctionType))


def _holds_state(function: FunctionType, own: set[nn.Module]) -> bool:
    """Whether a function holds a container, a tensor, or a module that is not one of ``own``, or a method of one."""
    seen, found = {function}, list(_held(function))
    while found:
        value = found.pop()
        module = value if isinstance(value, nn.Module) else getattr(value, "__self__", None)
        if isinstance(module, nn.Module):
            if module not in own:
                return True
        elif isinstance(value, Tensor | list | dict | set):
            return True
        elif isinstance(value, FunctionType) and value not in seen:
            seen.add(value)
            found += _held(value)
    return False


def _held(function: FunctionType) -> Iterator[Any]:
    """The values of a closure and of the defaults."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not set yet
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
