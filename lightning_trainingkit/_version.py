"""The version of the kit, and the versions of the packages that its numbers depend on."""

from functools import cache

__version__ = "0.1.0"

__all__ = ["__version__", "versions"]

_PACKAGES = ("lightning", "torch", "torchvision", "torchmetrics", "wandb")


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and its main dependencies by name, for the record of a training."""
    import platform  # imported here: importing the package must be fast

    installed = {name: _installed(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "lightning_trainingkit": __version__, **installed}


@cache  # a process keeps the packages that it has imported, and each look-up parses a file
def _installed(package: str) -> str:
    from importlib.metadata import version  # as above

    return version(package)
