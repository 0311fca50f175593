"""The only file of the kit that touches Lightning's private parts or patches a module's hooks."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden

__all__ = ["after_build"]


def after_build(pl_module: L.LightningModule, action: Callable[[], None]) -> Callable[[], None]:
    """Call ``action`` now, and once more right after the module's own ``setup`` and ``configure_model``.

    Layers may be made in either, and both run after a callback's ``setup`` and before a checkpoint is restored.
    Each hook is put back before it runs.

    Returns:
        A function that puts back the hooks that did not run (call it in ``teardown`` and ``on_exception``).
    """
    action()
    undo = [_after_once(pl_module, name, action) for name in ("setup", "configure_model") if is_overridden(name, pl_module)]
    return lambda: [put_back() for put_back in undo] and None


def _after_once(pl_module: L.LightningModule, name: str, action: Callable[[], None]) -> Callable[[], None]:
    found = vars(pl_module).get(name)
    method = getattr(pl_module, name)

    @wraps(method)
    def hook(*args: Any, **kwargs: Any) -> Any:
        put_back()
        result = method(*args, **kwargs)
        action()
        return result

    def put_back() -> None:
        hook.done = True  # type: ignore[attr-defined]
        # Another callback may have wrapped the same hook later: then that one's turn comes first, and it skips this one.
        if vars(pl_module).get(name) is not hook:
            return
        below = hook
        while getattr(below, "done", False):
            below = below.below  # type: ignore[attr-defined]
        if below is None:
            del vars(pl_module)[name]
        else:
            vars(pl_module)[name] = below

    hook.below = found  # type: ignore[attr-defined]
    vars(pl_module)[name] = hook
    return put_back
