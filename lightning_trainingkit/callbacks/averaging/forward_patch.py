"""Replace a module's forward by an average over passes, and put the forward back."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from itertools import permutations
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.averaging.average import Averaging
from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.averaging.output_use import OutputUse
from lightning_trainingkit.nn.averaging.sources import Call, Source
from lightning_trainingkit.nn.structure.replaced_forward import take_away

__all__ = ["ForwardPatch", "PassProvider", "refuse_masks_within"]

_KEYS = ("forward", "_compiled_call_impl")  # `module.compile()` keeps the compiled call in the second attribute


class PassProvider(Protocol):
    """A callback that adds passes to the average."""

    average: str
    early_exit: bool
    max_batch: int | None

    def look_at_first(self, call: Call, module: nn.Module, arguments: Arguments) -> None:
        """Inspect the first call before it is averaged."""

    def observe(self, result: Tensor, averaging: Averaging) -> None:
        """Inspect the average of each call."""


class ForwardPatch:
    """Patch one module's ``forward`` with the averaging loop. Callbacks with the same target share the patch.

    - **Calls**: the module's ``__call__`` runs the patch as it ran the forward. Any step can call it, compiled or not,
      with any arguments.
    - **Undo**: the module's ``__dict__`` gets its own entries back when the last callback is removed.
    - **Compilation**: the loop over passes is never compiled. The forward inside it is compiled if the module was
      compiled or if compiled code calls it.

    Args:
        module: The module to patch.
        name: The user's name for the module, for errors.
        compiler: Compiles a forward in the same way as the calling code, see ``_call_compiled``.
    """

    def __init__(self, module: nn.Module, name: str, compiler: Callable[..., Any]) -> None:
        self.module, self.name, self.compiler = module, name, compiler
        self.users: list[tuple[PassProvider, Source]] = []
        self.averaging: Averaging | None = None
        self.called = False
        self.use: OutputUse | None = None
        """Record of how the step uses the averages of the stage's first batch."""
        self.insists = False
        """Whether a callback has ``output="classes"``."""
        self._inside = False
        self._found = {key: vars(module)[key] for key in _KEYS if key in vars(module)}
        self._forward = inner = module.forward
        self._compiled = self._found.get("_compiled_call_impl")
        self._compiled_here: Any = None

        @wraps(inner, updated=())  # its attributes would tell torch.compile to look through ours
        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._run((args, kwargs), torch.compiler.is_compiling())

        def call(*args: Any, **kwargs: Any) -> Any:
            if vars(module).get("forward") is not forward:  # Lightning redirects a forward to a step under DDP
                return self._compiled(*args, **kwargs)  # type: ignore[misc]
            return self._run((args, kwargs), False)

        forward.patch = self  # type: ignore[attr-defined]
        self._ours = {"forward": forward} | ({"_compiled_call_impl": call} if self._compiled else {})
        vars(module).update(self._ours)

    @classmethod
    def of(cls, module: nn.Module, name: str, compiler: Callable[..., Any] = torch.compile) -> "ForwardPatch":
        """Return the patch that another callback made for this module, or a new patch."""
        patch = getattr(vars(module).get("forward"), "patch", None)
        return patch if isinstance(patch, cls) and patch.module is module else cls(module, name, compiler)

    def add(self, user: PassProvider, source: Source) -> None:
        """Multiply the passes by a callback's passes.

        Raises:
            ValueError: If the callback does not fit the callbacks that the patch has.
        """
        users = [*self.users, (user, source)]
        target = self.name or "the module"
        if source.kind in [other.kind for _, other in self.users]:
            raise ValueError(f"`target` must get one {type(user).__name__}, got two for {target}. Make them one.")
        if len({each.average for each, _ in users}) > 1:
            given = ", ".join(f"{each.average!r} from {type(each).__name__}" for each, _ in users)
            raise ValueError(f"`average` must be the same for all callbacks of {target}, got {given}. Choose one.")
        self.users = users
        self._build()

    def remove(self, user: PassProvider) -> None:
        """Remove a callback's passes, and put the forward back if the callback was the last."""
        self.users = [each for each in self.users if each[0] is not user]
        if self.users:
            self._build()
            return
        self.averaging = None  # other code may have wrapped the patch since: it then only calls the forward
        take_away(self.module, self._ours["forward"], self._found.get("forward"))
        self._take_away()

    def _build(self) -> None:
        limits = [user.max_batch for user, _ in self.users if user.max_batch is not None]
        self.averaging = Averaging(
            [source for _, source in self.users],
            average=self.users[0][0].average,
            early_exit=any(user.early_exit for user, _ in self.users),
            max_batch=min(limits, default=None),
        )

    def _take_away(self) -> None:
        for key, ours in self._ours.items():
            if vars(self.module).get(key) is ours:
                del vars(self.module)[key]
                vars(self.module).update({key: self._found[key]} if key in self._found else {})

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _run(self, arguments: Arguments, compiling: bool) -> Any:
        if self.averaging is None or self._inside:  # a forward that calls itself is one pass
            return self._forward(*arguments[0], **arguments[1])
        first, self.called, self._inside = not self.called, True, True
        call = self._call_compiled if compiling else self._call
        use = self.use if self.use is not None and self.use.active else None
        try:
            with use.paused() if use is not None else nullcontext():
                for user, _ in self.users if first else ():
                    user.look_at_first(call, self.module, arguments)
                result = self.averaging(call, self.module, arguments)
        finally:
            self._inside = False
        if use is not None:
            use.follow(result, arguments)
        for user, _ in self.users:
            user.observe(result, self.averaging)
        return result

    def _call(self, module: nn.Module, arguments: Arguments) -> Any:
        args, kwargs = arguments
        if module is not self.module:
            return module(*args, **kwargs)
        if self._compiled is None:
            return self._forward(*args, **kwargs)
        self._take_away()  # torch compiled the call of the module's own forward
        try:
            return self._compiled(*args, **kwargs)
        finally:
            vars(self.module).update(self._ours)

    def _call_compiled(self, module: nn.Module, arguments: Arguments) -> Any:
        """Call the module after a graph break in compiled code, which would run the module eagerly."""
        if module is not self.module or self._compiled is not None:
            return self._call(module, arguments)
        if self._compiled_here is None:
            self._compiled_here = self.compiler(self._forward)
        return self._compiled_here(*arguments[0], **arguments[1])


def refuse_masks_within(pl_module: L.LightningModule) -> None:
    """Raise ValueError if masks are averaged inside another average: the entropy would be measured in each pass."""
    found = [getattr(vars(each).get("forward"), "patch", None) for each in pl_module.modules()]
    patches = [each for each in found if isinstance(each, ForwardPatch) and each.averaging]
    for inner, outer in permutations(patches, 2):
        if any(source.kind == "masks" for _, source in inner.users) and inner.module in list(outer.module.modules()):
            others = ", ".join(source.kind for _, source in outer.users)
            raise ValueError(
                f"`target` must be the same for MonteCarloDropout and {others}, got {inner.name!r}, which is a part of "
                f"{outer.name or type(outer.module).__name__!r}: the entropy would be measured in each of its passes. "
                "Give both one target."
            )
