"""Members of an ensemble as a source of passes: sets of weights for one architecture, or modules of any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_trainingkit.functional.averaging import check_weights
from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.averaging.member_weights import Slots
from lightning_trainingkit.nn.averaging.placement import Relocation, fits_on
from lightning_trainingkit.nn.averaging.sources import Call
from lightning_trainingkit.nn.averaging.vectorized import Vmapped
from lightning_trainingkit.nn.structure.modes import evaluating

__all__ = ["Members"]


class Members:
    """Members of an ensemble, as a source of passes: for ``Averaged``, with views and masks as one likes.

    A member is a set of weights for the architecture of the module that is averaged, or a module of its own. Weights
    run in that module: its tensors hold the member's data for one pass, and their own again after it, also when the
    pass raises, so that a forward that is compiled or hooked stays so. (Where neither is, other tensors may stand in
    their place, if that was seen to give the same.) Weights are copied at the first call, so that what is trained later
    is not seen, get the dtypes, strides and devices of the module's, and run without gradients: what is to be
    differentiated is passed as modules. A forward that keeps something made of its weights in an attribute, to use it
    again, would use one member's for all. A module is called in the place of the averaged one with the same arguments,
    in eval mode and on the device of the batch; if the averaged one computes in another dtype than float32
    (``bf16-true``), in that.

    On a GPU the members lie together if they take at most half of the memory that is free at the first batch; else they
    wait where they are, the CPU say, and come for each batch in turn. ``put_back`` undoes it. Where all are weights and
    lie together they may run as one ``torch.vmap`` forward, if that is seen to be faster and to give the same
    (``max_batch`` and ``early_exit`` prevent it); members of weight 0 are not run at all.

    Args:
        members: Modules, and sets of weights (a ``state_dict``) of the averaged module.
        weights: ``"uniform"``, or a number for each member, none negative, of sum 1.
        names: What the members are called in errors, by default their number.

    Raises:
        TypeError: If a member is neither.
        ValueError: If there is none, one is given twice, or ``weights`` don't fit; when called, if a set of weights is
            not of the module's architecture.

    Example:
        >>> import torch
        >>> from lightning_trainingkit.nn.averaging.averaged import Averaged
        >>> nets = [torch.nn.Linear(4, 3) for _ in range(3)]
        >>> ensemble = Averaged(nets[0], Members([net.state_dict() for net in nets]))
        >>> ensemble(torch.rand(2, 4)).shape
        torch.Size([2, 3])

    References:
        Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS
        2017, arXiv:1612.01474.
    """

    kind = "members"

    def __init__(
        self,
        members: Sequence[nn.Module | Mapping[str, Tensor]],
        *,
        weights: str | Sequence[float] = "uniform",
        names: Sequence[str] | None = None,
    ) -> None:
        self.members = list(members)
        if not self.members:
            raise ValueError("`members` must hold at least one member, got none. Pass modules or sets of weights.")
        each: Any
        for each in self.members:
            if not isinstance(each, nn.Module | Mapping):
                kind = type(each).__name__
                raise TypeError(f"`members` must be modules or sets of weights, got {kind}. Load it first.")
        self.names = list(names) if names is not None else [f"member {k}" for k in range(len(self.members))]
        for k, each in enumerate(self.members):
            if any(each is other for other in self.members[:k]):
                raise ValueError(f"`members` must differ, got {self.names[k]} twice. Give it a larger weight instead.")
        if isinstance(weights, str) and weights != "uniform":
            raise ValueError(f"`weights` must be 'uniform' or numbers, got {weights!r}. Leave it out for equal ones.")
        uniform = [1 / len(self.members)] * len(self.members)
        given = uniform if isinstance(weights, str) else weights
        self.weights = check_weights("weights", given, len(self.members), "member")
        run = [member for member, weight in zip(self.members, self.weights, strict=True) if weight]
        self._all_weights = len(run) > 1 and not any(isinstance(member, nn.Module) for member in run)
        self._bound: _Bound | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what lies where a module is."""
        return {**vars(self), "_bound": None}

    def around(self, index: int, call: Call) -> Call:
        """Let one of the members be called."""

        def member(module: nn.Module, arguments: Arguments) -> Any:
            given = self.members[index]
            if given is module:
                return call(module, arguments)
            bound = self._bind(module, arguments)
            held = bound.fetch(index, given)
            if isinstance(given, nn.Module):
                with evaluating(given):
                    return call(given, arguments)
            with torch.no_grad(), bound.slots.lending() as put:
                put(held)
                return call(module, arguments)

        return member

    def together(self, call: Call, module: nn.Module, arguments: Arguments) -> Call | None:
        """Return a call with the outputs of all members of a weight above 0, ``(K, N, C)``, if all are weights.

        See ``Vmapped`` for what it does.
        """
        if not self._all_weights:
            return None
        bound = self._bind(module, arguments)
        if not bound.together:
            return None
        if bound.vmapped is None:
            data = [bound.fetch(k, self.members[k]) for k, weight in enumerate(self.weights) if weight]
            bound.vmapped = Vmapped(module, bound.slots, data)
        vmapped = bound.vmapped

        def all_members(_: nn.Module, arguments: Arguments) -> Tensor:
            return vmapped(call, arguments)

        return all_members

    def put_back(self) -> None:
        """Bring modules back to where they were, and let go of what lies on a device."""
        bound, self._bound = self._bound, None
        if bound is not None:
            bound.put_back()

    def _bind(self, module: nn.Module, arguments: Arguments) -> "_Bound":
        """Look at the module, once for each device that its batches lie on, and again where it was cast or moved."""
        device = _device(arguments)
        if self._bound is not None and self._bound.fits(module, device):
            return self._bound
        self.put_back()
        slots = Slots(module)
        for name, member in zip(self.names, self.members, strict=True):
            fault = None if isinstance(member, nn.Module) else slots.fault(member)
            if fault:
                raise ValueError(
                    f"`members` must be weights of {type(module).__name__}, got {name}: {fault}. For another "
                    "architecture pass the built module."
                )
        run = [member for member, weight in zip(self.members, self.weights, strict=True) if weight]
        needed = sum(_missing(each, device) if isinstance(each, nn.Module) else slots.bytes for each in run)
        self._bound = _Bound(module, device, slots, fits_on(device, needed))
        self._bound.look_at(self.members)
        return self._bound


@dataclass
class _Bound:
    """The module that is averaged, and what of its members lies on its device."""

    module: nn.Module
    device: torch.device
    slots: Slots
    together: bool
    """Whether there is room for all members."""
    away: dict[int, Relocation] = field(default_factory=dict)
    fetched: dict[int, Any] = field(default_factory=dict)
    vmapped: Vmapped | None = None

    def __post_init__(self) -> None:
        self.kind = self.slots.kind

    def fits(self, module: nn.Module, device: torch.device) -> bool:
        """Whether this is what was looked at."""
        return module is self.module and device == self.device and self.kind == self.slots.kind

    def look_at(self, members: Sequence[Any]) -> None:
        """Note where modules are before any of them goes: they may share parts."""
        dtype = self._dtype()
        self.away = {
            k: Relocation(each, self.device, dtype) for k, each in enumerate(members) if isinstance(each, nn.Module)
        }

    def fetch(self, index: int, member: Any) -> Any:
        """Bring a member to the device; if there is no room for all, the others go."""
        if index not in self.fetched:
            if not self.together:
                self.put_back()
            if isinstance(member, nn.Module):
                self.away[index].go()
                self.fetched[index] = self.away[index]
            else:
                self.fetched[index] = self.slots.fit(member)
        return self.fetched[index]

    def put_back(self) -> None:
        """Bring modules back, and let go of weights."""
        for held in self.fetched.values():
            if isinstance(held, Relocation):
                held.put_back()
        self.fetched.clear()

    def _dtype(self) -> torch.dtype | None:
        """What the averaged module computes in, where that is not what everything is made in."""
        dtypes = {tensor.dtype for tensor in self.slots.tensors if tensor.is_floating_point()}
        return dtypes.pop() if len(dtypes) == 1 and torch.float32 not in dtypes else None


def _missing(module: nn.Module, device: torch.device) -> int:
    """Bytes of a module that are not on a device."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.device != device)


def _device(arguments: Arguments) -> torch.device:
    """Where the first tensor is; there is one, or the average would not have come here."""
    for each in arguments[0]:
        if isinstance(each, Tensor):
            return each.device
    found: list[torch.device] = []
    apply_to_collection(arguments, Tensor, lambda tensor: found.append(tensor.device))
    return found[0]
