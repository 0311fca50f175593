"""Put a member's weights into a module for one call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lightning_trainingkit.nn.structure.names import plain_name, plain_names

__all__ = ["Slots"]


class Slots:
    """The parameters and buffers in a module's ``state_dict``, each once, whose data can be exchanged for a while.

    Only the data of the tensors are exchanged, the tensors stay. Compiled code, flat weights of recurrent layers, tied
    layers and parametrisations hold the tensors, and so use the member's data.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.names: list[list[str]] = []
        """Names of each tensor. A tied tensor has several."""
        self._first: list[tuple[Any, str]] = []  # owner and name, since moving a module replaces its buffers
        self._places: list[tuple[Any, str, int]] = []
        self._hooked: list[nn.Module] = []  # old weight_norm, spectral_norm, pruning: a hook sets the weight
        known: dict[int, int] = {}
        for prefix, owner in module.named_modules(remove_duplicate=False):
            self._hooked += [owner] if owner._forward_pre_hooks else []
            for held, unsaved in ((owner._parameters, ()), (owner._buffers, owner._non_persistent_buffers_set)):
                for name, tensor in held.items():
                    if tensor is None or name in unsaved:
                        continue
                    index = known.setdefault(id(tensor), len(self.names))
                    if index == len(self.names):
                        self.names.append([])
                        self._first.append((held, name))
                    self.names[index].append(f"{prefix}.{name}" if prefix else name)
                    self._places.append((held, name, index))
        self._kind = [(tensor.dtype, tensor.device) for tensor in self.tensors]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors, in the order of ``names``."""
        return [held[name] for held, name in self._first]

    @property
    def changed(self) -> bool:
        """Whether the module was moved, cast or parametrised since."""
        try:
            return self._kind != [(tensor.dtype, tensor.device) for tensor in self.tensors]
        except KeyError:
            return True

    def faults(self, weights: Mapping[str, Any]) -> Iterator[str]:
        """Yield the reasons why weights do not fit the module."""
        weights, own = plain_names(weights), plain_names(self.module.state_dict())
        tensors: dict[str, tuple[str, Tensor]] = {}
        for names, tensor in zip(self.names, self.tensors, strict=True):
            tensors |= {plain_name(name): (plain_name(names[0]), tensor) for name in names}
            name = f"{names[0]} of the module"
            if is_lazy(tensor):
                yield f"{name} has no shape yet, call it once on a batch before"
            if tensor.is_inference():
                yield f"{name} was made in torch.inference_mode and can't hold others, build it outside"
        yield from (f"{name} is no tensor" for name in own | weights if name.rpartition(".")[2] == "_extra_state")
        lists = {"it lacks": tensors.keys() - weights.keys(), "it has besides": weights.keys() - own.keys()}
        if any(lists.values()):
            every = [*tensors, *weights]  # in the order of the module, then of the file
            found = {what: [name for name in every if name in names] for what, names in lists.items() if names}
            yield ", ".join(f"{what} {_some(names)}" for what, names in found.items())
        shapes = {name: (_shape(weights[name]), tuple(tensor.shape)) for name, (_, tensor) in tensors.items()}
        wrong = [f"{name} is {found} and not {wanted}" for name, (found, wanted) in shapes.items() if found != wanted]
        if wrong:
            yield _some(wrong)
        for name, (first, _) in tensors.items():
            if weights[name] is not weights[first] and not torch.equal(weights[name], weights[first]):
                yield f"{first} and {name} differ, which are one tensor in the module"

    @torch.no_grad()
    def fit(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """Copy weights to the devices, dtypes and strides of the module's tensors, in their order."""
        weights = plain_names(weights)
        with torch.inference_mode(False):  # data made in inference mode would turn the module's into inference tensors
            pairs = zip(self.names, self.tensors, strict=True)
            data = [torch.empty_like(tensor.data).copy_(weights[plain_name(names[0])]) for names, tensor in pairs]
            recurrent = [each for each in self.module.modules() if isinstance(each, nn.RNNBase)]
            if not recurrent:
                return data
            with self.lending() as put:
                put(data)
                for each in recurrent:
                    each.flatten_parameters()  # cuDNN needs the weights in one piece of memory
                return [tensor.data for tensor in self.tensors]

    @contextmanager
    def lending(self) -> Iterator[Callable[[Sequence[Tensor]], None]]:
        """Yield a function that puts data of ``fit`` into the module. The module's own data come back at the end."""
        tensors = self.tensors
        own = [tensor.data for tensor in tensors]
        cached = parametrize._cache_enabled
        computed = [(vars(each), name, value) for each in self._hooked for name, value in vars(each).items()]

        def put(data: Sequence[Tensor]) -> None:
            for tensor, each in zip(tensors, data, strict=True):
                tensor.data = each
            for held, name, index in self._places:  # a forward may have set another buffer there
                held[name] = tensors[index]
            if cached:
                parametrize._cache.clear()  # it holds weights computed from the previous data
            torch.clear_autocast_cache()

        try:
            yield put
        finally:
            put(own)
            for attributes, name, value in computed:
                if isinstance(value, Tensor):
                    attributes[name] = value


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")
