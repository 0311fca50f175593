"""Run the layers of a model once for two calls of a training step that differ in the targets alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torchmetrics import Metric, MetricCollection

from lightning_trainingkit.callbacks.noise.forward_hooks import hooked_layers
from lightning_trainingkit.callbacks.noise.instance_patch import patched
from lightning_trainingkit.callbacks.noise.recorded_call import RecordedCall, differ, flat, is_differentiated

__all__ = ["SharedForward"]

Call = Callable[..., Any]


class SharedForward:
    """In the second call of a step, modules with the arguments of the first call return the output of the first call.

    - **Arguments** are the same if they are the same view of the same memory, unchanged, or if their values are equal.
      Objects other than tensors, numbers and functions never are. Grad mode and training mode must be the same too.
    - **Which modules**: the outermost ones. If a module gets other arguments, such as the targets, its children count.
    - **Once a pair**: dropout masks are shared, and statistics of BatchNorm move once.
    - **Hooks of the user** run in both calls, with their layer. The layers inside of it are shared.
    - **Values** are read by the host in the first pair of calls alone, on a CPU always. ``check`` finds the error
      where they differ later.

    Args:
        root: The module whose step is called. Make a new object when its layers may have changed.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._candidates: list[nn.Module] = list(_candidates(root))
        self._known = False
        self._hooked = hooked_layers(root)
        self._opened = set(self._hooked)
        self._shared: set[nn.Module] = set()
        self._ran_twice: set[nn.Module] = set()
        self._by_value: set[nn.Module] = set()
        self._differs: Tensor | None = None
        self._records: dict[nn.Module, list[RecordedCall]] = {}
        self._targets: set[int] = set()
        self._replays = False
        self._within = False
        self._depth = 0

    def within_layer(self) -> bool:
        """Whether a layer is running, in one of the two calls."""
        return self._depth > 0

    @property
    def ran_twice(self) -> list[str]:
        """Names of the layers with parameters that ran in both calls of a pair."""
        return [name for name, module in self._root.named_modules() if module in self._ran_twice]

    @contextmanager
    def pair(self, targets: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Callable[[], None]]:
        """Share modules in two calls. The function that the context gives must be called between them.

        Args:
            targets: The target in the two calls, then what differs with it. If the targets are equal, the pair shows
                nothing about later pairs.
        """
        learns = not self._known and not torch.equal(*targets[0])
        self._targets = {each.untyped_storage().data_ptr() for pair in targets for each in pair}

        def replay() -> None:
            self._replays = True

        try:
            with patched([_entry(each, self._calling(each)) for each in self._candidates]):
                yield replay
            if learns:
                inside = self._records.keys() - self._shared  # they were called inside of shared modules alone
                self._candidates = [each for each in self._candidates if each not in inside | self._opened]
                self._known = True
        finally:
            self._records, self._replays, self._within, self._depth = {}, False, False, 0
            if not self._known:
                self._opened = set(self._hooked)
                self._shared, self._by_value, self._ran_twice = set(), set(), set()

    def check(self) -> None:
        """Raise RuntimeError if the arguments of a shared module had other values in a later second call."""
        if self._differs is not None and self._differs.item():
            names = [name for name, module in self._root.named_modules() if module in self._by_value]
            raise RuntimeError(
                f"`training_step` must give {names} inputs that do not depend on the targets, got others in a later "
                "batch than the first. Use targets='soft', which calls the step once."
            )

    def _calling(self, module: nn.Module) -> Callable[[Call], Call]:
        def wrap(call: Call) -> Call:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                self._depth += 1
                try:
                    if self._within or module in self._opened:
                        return call(*args, **kwargs)
                    return (self._second if self._replays else self._first)(module, call, args, kwargs)
                finally:
                    self._depth -= 1

            return wrapper

        return wrap

    def _first(self, module: nn.Module, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        record = RecordedCall(self._mode(module), flat((args, kwargs)))
        output = self._alone(call, args, kwargs) if self._known else call(*args, **kwargs)
        record.end(output)
        self._records.setdefault(module, []).append(record)
        return output

    def _second(self, module: nn.Module, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arguments, mode = flat((args, kwargs)), self._mode(module)
        differentiated = any(is_differentiated(each) for each in arguments)
        records = [] if differentiated or self._holds_target(module) else self._records.get(module, [])
        free = [each for each in records if not each.used and each.mode == mode]
        record = next((each for each in free if each.is_same(arguments)), None)
        if record is None and free and self._are_alike(module, free[0], arguments):
            record = free[0]
        if record is not None:
            record.used = True
            self._shared.add(module)
            return record.output()
        whole = self._known or differentiated or _is_compiled(module)
        if any(True for _ in module.parameters(recurse=whole)):
            self._ran_twice.add(module)
        if differentiated:
            return self._alone(call, args, kwargs)
        if not self._known:
            self._opened.add(module)  # its children get their chance, unless it is compiled
        return call(*args, **kwargs)

    def _alone(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a module without a look at the modules inside."""
        self._within = True
        try:
            return call(*args, **kwargs)
        finally:
            self._within = False

    def _mode(self, module: nn.Module) -> tuple[bool, bool, list[int]]:
        # The first pair shows whether a step swaps parameters or changes them between its two calls.
        parameters = [] if self._known else list(module.parameters())
        weights = [number for each in parameters for number in (id(each), each._version)]
        return torch.is_grad_enabled(), module.training, weights

    def _holds_target(self, module: nn.Module) -> bool:
        """Whether an attribute is a target. The first pair shows it, and such a module is not shared later."""
        values = [] if self._known else [value for part in module.modules() for value in vars(part).values()]
        strided = [each for each in values if isinstance(each, Tensor) and each.layout == torch.strided]
        return any(each.untyped_storage().data_ptr() in self._targets for each in strided)

    def _are_alike(self, module: nn.Module, record: RecordedCall, arguments: list[Any]) -> bool:
        pairs = record.apart(arguments)
        if not pairs:
            return False
        if any(new.untyped_storage().data_ptr() in self._targets for _, new in pairs):
            return False  # targets that are equal by chance
        differs = torch.stack([differ(*pair) for pair in pairs]).any()
        if not self._known or differs.device.type == "cpu":
            alike = not differs.item()
            self._by_value |= {module} if alike else set()
            return alike
        if module not in self._by_value:
            return False
        self._differs = differs if self._differs is None else self._differs | differs
        return True


def _candidates(module: nn.Module) -> Iterator[nn.Module]:
    """Modules that a step may call from uncompiled code. Metrics have states of their own."""
    seen: set[nn.Module] = set()
    stack = [module]
    while stack:
        each = stack.pop()
        if each in seen or isinstance(each, Metric | MetricCollection):
            continue
        seen.add(each)
        yield each
        if not _is_compiled(each):
            stack += each.children()


def _is_compiled(module: nn.Module) -> bool:
    return isinstance(module, OptimizedModule) or module._compiled_call_impl is not None


def _entry(module: nn.Module, wrap: Callable[[Call], Call]) -> tuple[nn.Module, str, Call]:
    # torch calls one of these with the hooks of the module: a hook sees a shared call once.
    key = "_call_impl" if module._compiled_call_impl is None else "_compiled_call_impl"
    return module, key, wrap(getattr(module, key))
