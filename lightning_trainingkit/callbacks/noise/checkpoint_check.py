"""Look at a checkpoint before Lightning loads its weights."""

from collections.abc import Callable
from types import MethodType
from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.structure.replaced_forward import take_away

__all__ = ["BeforeLoading"]


class BeforeLoading:
    """Call ``check`` with each checkpoint that Lightning loads into a module, before the weights change.

    The hooks of callbacks come after the weights are loaded, so that the module's own hook is patched. A copy of the
    module, and a pickled one, have the patch without the check.

    Args:
        pl_module: The module. It keeps the patch until ``remove``. Call it in ``teardown`` and ``on_exception``.
        check: What to call.
    """

    def __init__(self, pl_module: L.LightningModule, check: Callable[[dict[str, Any]], None]) -> None:
        self._module, self._check = pl_module, check
        self._found = vars(pl_module).get("on_load_checkpoint")
        vars(pl_module)["on_load_checkpoint"] = self

    def __call__(self, checkpoint: dict[str, Any]) -> None:
        """Run in place of the module's hook."""
        self._check(checkpoint)
        self.__wrapped__(checkpoint)

    @property
    def __wrapped__(self) -> Any:
        """The hook below."""
        return self._found or MethodType(type(self._module).on_load_checkpoint, self._module)

    def remove(self) -> None:
        """Take the patch away."""
        take_away(self._module, self, self._found, "on_load_checkpoint")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_check": _no_check}


def _no_check(checkpoint: dict[str, Any]) -> None:
    """Let every checkpoint pass."""
