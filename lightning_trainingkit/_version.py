"""The version of the kit, and those of the packages that its numbers depend on."""

__version__ = "0.1.0"

__all__ = ["__version__", "versions"]

_PACKAGES = ("lightning", "torch", "torchvision", "torchmetrics", "wandb")


def versions() -> dict[str, str]:
    """Version by name, for a record of a training."""
    import platform  # imported here, as importlib.metadata is: the package must cost nothing to import
    from importlib.metadata import version

    installed = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "lightning_trainingkit": __version__, **installed}
