"""Find the submodule that a user has named."""

from torch import nn

from lightning_trainingkit.nn.structure.parameter_patterns import no_match

__all__ = ["find_target"]


def find_target(module: nn.Module, target: str | None) -> nn.Module:
    """Return the submodule with this name, or the module itself for None.

    Raises:
        ValueError: If there is no such submodule, or if it has no forward.
    """
    names = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
    if target is not None and target not in names:
        raise no_match("target", f"name a submodule of {type(module).__name__}", target, names)
    found = module.get_submodule(target) if target is not None else module
    inherited = getattr(getattr(type(found), "forward", None), "__qualname__", "")
    if inherited in ("LightningModule.forward", "_forward_unimplemented") and "forward" not in vars(found):
        raise ValueError(
            f"`target` must name a submodule with a forward, which {type(found).__name__} has not, got {target!r}. "
            f"Its submodules: {', '.join(names[:20])}."
        )
    return found
