"""Trace a module's forward as far as possible, with its layers kept whole."""

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from lightning_trainingkit.nn.structure.attributes import attributes_put_back

__all__ = [
    "LAYERS",
    "LEAVES",
    "NORMS",
    "PASSED_ATTRIBUTES",
    "Trace",
    "UntraceableError",
    "layer_names",
]

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
LEAVES = (*LAYERS, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
PASSED_ATTRIBUTES = ("T", "mT", "H", "mH", "data", "real")  # which pass a tensor's values on
_ONE_AT_A_TIME = threading.RLock()  # fx patches `nn.Module` for all threads while it traces


def layer_names(module: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> list[str]:
    """Name the linear and convolutional layers of a module, each once, outside of submodules of the skipped types."""
    skipped = [name for name, m in module.named_modules() if isinstance(m, skip)]
    layers = [name for name, m in module.named_modules() if isinstance(m, LAYERS)]
    return [name for name in layers if not any(name == s or name.startswith(f"{s}.") for s in skipped)]


class UntraceableError(Exception):
    """The forward of a module cannot be traced. The text names the module and the reason."""


class Trace:
    """The graph of a module's forward. Submodules that cannot be traced are opaque calls in it.

    Args:
        module: The module, traced with the defaults of all arguments after the first. It is left unchanged.
        whole: Tells which further submodules stay one call in the graph.

    Raises:
        UntraceableError: If the forward itself cannot be traced.
    """

    def __init__(self, module: nn.Module, whole: Callable[[nn.Module], bool] = lambda module: False) -> None:
        tracer = _Tracer(whole)
        with _ONE_AT_A_TIME, _left_as_found(module):
            try:
                parameters = list(inspect.signature(module.forward).parameters.values())
                defaults = {p.name: p.default for p in parameters[1:] if p.default is not p.empty}
                self.graph = tracer.trace(module, defaults or None)
            except Exception as error:  # a forward given proxies may raise anything; TorchScript has no signature
                raise UntraceableError(_reason(module, error)) from error
        self.module = module
        self.opaque = tracer.opaque
        """Name of each submodule that could not be traced, and the reason."""
        begun = tuple(f"{name}." for name in self.opaque)
        calls = [node for node in self.graph.nodes if node.op == "call_module"]
        self.calls = {node: str(node.target) for node in calls if not str(node.target).startswith(begun)}
        """Calls of layers, functions kept whole and opaque parts, in their order, with the submodule's name."""


class _Tracer(fx.Tracer):
    """Traces through a module, but keeps layers and untraceable submodules whole."""

    proxy_buffer_attributes = True  # otherwise `self.num_batches_tracked.add_(1)` would really count
    trace_asserts = True

    def __init__(self, whole: Callable[[nn.Module], bool]) -> None:
        factories = (
            torch.arange,
            torch.empty,
            torch.full,
            torch.linspace,
            torch.ones,
            torch.rand,
            torch.randn,
            torch.zeros,
        )
        super().__init__(autowrap_functions=factories)
        self._autowrap_search.append(torch)  # their sizes may be proxies too
        self.opaque: dict[str, str] = {}
        self._whole = whole
        self._thread = threading.get_ident()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return an attribute of a module, or its proxy in the thread that traces."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a submodule stays one call in the graph."""
        if isinstance(m, LEAVES) or self._whole(m):
            return True
        return super().is_leaf_module(m, module_qualified_name) and not layer_names(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace a submodule without its hooks, or keep it whole where that is impossible."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        if isinstance(m, torch.jit.ScriptModule):  # it takes proxies, but does not show which layers it calls
            name = self.path_of_module(m)
            self.opaque[name] = f"the forward of {type(m).__name__} is TorchScript"
            return self.create_proxy("call_module", name, args, kwargs)
        around = self.module_stack.copy()
        try:
            # Without the user's hooks, which proxies would confuse.
            return super().call_module(m, m.forward, args, kwargs)
        except Exception as error:  # as above
            self.module_stack = around  # fx takes a module off its stack only after a forward without an error
            name = self.path_of_module(m)
            self.opaque[name] = _reason(m, error)
            return self.create_proxy("call_module", name, args, kwargs)


def _reason(module: nn.Module, error: Exception) -> str:
    own = getattr(type(module), "forward", None)  # a TorchScript module's class has none
    inherited = getattr(own, "__qualname__", "") == "LightningModule.forward"
    if inherited or isinstance(error, NotImplementedError):
        return f"{type(module).__name__} has no forward"
    text = (str(error) or type(error).__name__).splitlines()[0]
    return f"the forward of {type(module).__name__} cannot be traced: {text}"


@contextmanager
def _left_as_found(module: nn.Module) -> Iterator[None]:
    """Undo the side effects of a forward with proxies: attributes, random numbers, warnings."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fast path reads values
    try:
        with attributes_put_back(module), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
