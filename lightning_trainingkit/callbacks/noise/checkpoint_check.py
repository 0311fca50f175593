"""Look at a checkpoint before Lightning loads its weights."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.structure.replaced_forward import take_away

__all__ = ["before_loading"]


def before_loading(pl_module: L.LightningModule, check: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Call ``check`` with each checkpoint that Lightning loads into a module, before the weights change.

    The hooks of callbacks come after the weights are loaded, so that the module's own hook is patched.

    Returns:
        A function that takes the patch away. Call it in ``teardown`` and ``on_exception``.
    """
    found = vars(pl_module).get("on_load_checkpoint")
    method = pl_module.on_load_checkpoint

    @wraps(method)
    def hook(checkpoint: dict[str, Any]) -> None:
        check(checkpoint)
        method(checkpoint)

    vars(pl_module)["on_load_checkpoint"] = hook
    return lambda: take_away(pl_module, hook, found, "on_load_checkpoint")
