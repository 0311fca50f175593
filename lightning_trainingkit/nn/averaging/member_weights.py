"""Let a module hold other weights than its own for a while."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lightning_trainingkit.nn.structure.names import plain_name, plain_names

__all__ = ["OwnWeights", "Slots"]

Put = Callable[[Sequence[Tensor]], None]


class OwnWeights(dict[str, Any]):
    """Weights that nobody else holds, so that they need not be copied."""


class Slots:
    """The parameters and buffers that a module's ``state_dict`` holds, each once, where other data may lie for a while.

    The data of the tensors is exchanged, not the tensors: whatever holds the parameters (compiled code, flat weights of
    recurrent layers, tied layers, parametrisations) sees the others.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.names: list[list[str]] = []
        """Names of each tensor; tied ones have several."""
        self._places: list[tuple[dict[str, Any], str]] = []  # moving a module to a device replaces its buffers
        self._every_place: list[tuple[dict[str, Any], str, int]] = []  # those of tied tensors too
        self._computing: list[nn.Module] = []  # old weight_norm, spectral_norm, pruning: they set a weight in each call
        known: dict[int, int] = {}
        for prefix, owner in module.named_modules(remove_duplicate=False):
            if owner._forward_pre_hooks:
                self._computing.append(owner)
            # TorchScript's have no iterator
            kept = [name for name in owner._buffers.keys() if name not in owner._non_persistent_buffers_set]  # noqa: SIM118
            for held, names in ((owner._parameters, list(owner._parameters.keys())), (owner._buffers, kept)):
                for name in names:
                    tensor = held[name]
                    if tensor is None:
                        continue
                    index = known.setdefault(id(tensor), len(self.names))
                    if index == len(self.names):
                        self.names.append([])
                        self._places.append((held, name))
                    self.names[index].append(f"{prefix}.{name}" if prefix else name)
                    self._every_place.append((held, name, index))

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors, in the order of ``names``."""
        return [held[name] for held, name in self._places]

    @property
    def kind(self) -> list[Any]:
        """Dtype of each tensor, None where it has gone, and the device of the first."""
        found = [held[name] if name in held else None for held, name in self._places]  # noqa: SIM401  (TorchScript's)
        dtypes = [None if tensor is None else tensor.dtype for tensor in found]
        return [*dtypes, getattr(found[0], "device", None)] if found else []

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def fault(self, weights: Mapping[str, Any]) -> str | None:
        """Say what of some weights does not fit the module, None if they fit."""
        lazy = [names[0] for names, tensor in zip(self.names, self.tensors, strict=True) if is_lazy(tensor)]
        if lazy:
            return f"{lazy[0]} of the module has no shape yet, call it once on a batch before"
        bare = [names[0] for names, tensor in zip(self.names, self.tensors, strict=True) if tensor.is_inference()]
        if bare:
            return f"{bare[0]} of the module was made in torch.inference_mode and can't hold others, build it outside"
        own, weights = plain_names(self._module.state_dict()), plain_names(weights)
        state = [name for name in {**own, **weights} if name.rpartition(".")[2] == "_extra_state"]
        if state:
            return f"{state[0]} is no tensor"
        tensors = plain_names({n: t for names, t in zip(self.names, self.tensors, strict=True) for n in names})
        missing = [name for name in tensors if name not in weights]
        unknown = [name for name in weights if name not in own]
        if missing or unknown:
            lists = {"it lacks": missing, "it has besides": unknown}
            return ", ".join(f"{what} {_some(names)}" for what, names in lists.items() if names)
        shapes = {name: (_shape(weights[name]), tuple(tensor.shape)) for name, tensor in tensors.items()}
        wrong = [f"{name} is {found} and not {wanted}" for name, (found, wanted) in shapes.items() if found != wanted]
        if wrong:
            return _some(wrong)
        for names in ([plain_name(name) for name in each] for each in self.names):
            apart = [name for name in names[1:] if not _equal(weights[name], weights[names[0]])]
            if apart:
                return f"{names[0]} and {apart[0]} differ, which are one tensor in the module"
        return None

    @torch.no_grad()
    def fit(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """Bring weights to the devices, dtypes and strides of the module's tensors, in their order.

        All are copies, but for parameters of ``OwnWeights`` that fit as they are.
        """
        own = isinstance(weights, OwnWeights)
        weights = plain_names(weights)
        # Of a tensor that is made in inference mode, the module's would become one too.
        with torch.inference_mode(False):
            # The caller may go on training what was given, and a forward may write into its buffers.
            data = [
                _like(
                    weights[plain_name(names[0])].detach(),
                    tensor.detach(),
                    keep=own and isinstance(tensor, nn.Parameter),
                )
                for names, tensor in zip(self.names, self.tensors, strict=True)
            ]
            recurrent = [each for each in self._module.modules() if isinstance(each, nn.RNNBase)]
            if not recurrent:
                return data
            with self.lending() as put:
                put(data)
                for each in recurrent:
                    each.flatten_parameters()  # where cuDNN wants them in one piece
                return [tensor.data for tensor in self.tensors]

    @property
    def aliased(self) -> bool:
        """Whether an attribute holds one of the tensors too, as those of recurrent layers do."""
        known = {id(tensor) for tensor in self.tensors}
        return any(
            _holds(value, known)
            for each in self._module.modules()
            for name, value in vars(each).items()
            if name not in ("_parameters", "_buffers", "_modules")
        )

    @contextmanager
    def replacing(self) -> Iterator[Put]:
        """Like ``lending``, but other tensors stand in the place of the module's: faster, but not for aliased ones."""
        tensors = self.tensors
        try:
            yield self._stand
        finally:
            self._stand(tensors)

    def _stand(self, tensors: Sequence[Tensor]) -> None:
        for held, name, index in self._every_place:
            held[name] = tensors[index]
        parametrize._cache.clear()  # what `parametrize.cached` has kept was made of others

    @contextmanager
    def lending(self) -> Iterator[Put]:
        """Give a function that lets the module hold other data (of ``fit``); its own is put back in the end."""
        tensors = self.tensors
        own = [tensor.data for tensor in tensors]
        computed = [(vars(each), name, vars(each)[name]) for each in self._computing for name in _plain_tensors(each)]

        def put(data: Sequence[Tensor]) -> None:
            for tensor, each in zip(tensors, data, strict=True):
                tensor.data = each
            self._stand(tensors)  # a forward may have set another buffer there
            torch.clear_autocast_cache()  # weights that it has converted are kept by what holds them

        try:
            yield put
        finally:
            put(own)
            for held, name, tensor in computed:
                held[name] = tensor


def _like(value: Tensor, like: Tensor, keep: bool) -> Tensor:
    same = (value.dtype, value.device, value.stride()) == (like.dtype, like.device, like.stride())
    return value if keep and same and not value.is_inference() else torch.empty_like(like).copy_(value)


def _plain_tensors(module: nn.Module) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, Tensor)]


def _holds(value: Any, known: set[int], depth: int = 3) -> bool:
    if isinstance(value, dict | list | tuple | set) and depth:
        inside = value.values() if isinstance(value, dict) else value
        return any(_holds(each, known, depth - 1) for each in inside)
    return id(value() if isinstance(value, ref) else value) in known


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(one, other)


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")
