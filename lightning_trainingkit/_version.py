"""The version of the kit, and the versions of the packages that its numbers depend on."""

__version__ = "0.1.0"

__all__ = ["__version__", "versions"]

_PACKAGES = ("lightning", "torch", "torchvision", "torchmetrics", "wandb")


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and its main dependencies by name, for the record of a training."""
    import platform  # imported here, like importlib.metadata: importing the package must be fast
    from importlib.metadata import version

    installed = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "lightning_trainingkit": __version__, **installed}
