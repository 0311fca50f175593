"""Members of an ensemble as a source of passes: sets of weights for one architecture, or modules of any."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.averaging import check_weights
from lightning_trainingkit.nn.averaging.call_arguments import Arguments, CallArguments
from lightning_trainingkit.nn.averaging.member_weights import Slots
from lightning_trainingkit.nn.averaging.placement import Relocation, out_of_memory_hint
from lightning_trainingkit.nn.averaging.sources import Call
from lightning_trainingkit.nn.averaging.vectorized import Vectorized, check_vectorize
from lightning_trainingkit.nn.structure.modes import evaluating

__all__ = ["Members"]


class Members:
    """Members of an ensemble, as a source of passes for ``Averaged``. They multiply with views and masks.

    Members run one after the other, and members of weight 0 never run.

    - **Sets of weights** run in the averaged module, whose tensors hold the member's data for one pass. They get no
      gradients. They are copied to the module's device at the first batch; later changes have no effect.
    - **Modules** run in eval mode. They are moved to the batch's device and, unless the averaged module computes in
      float32, to its dtype. ``put_back`` moves them back.

    Args:
        members: Modules, and sets of weights (a ``state_dict``) of the averaged module.
        weights: ``"uniform"``, or a number for each member, none negative, with sum 1.
        names: Names of the members in errors, by default their numbers.
        vectorize: Run weights, or modules of one architecture, as one ``torch.vmap`` forward without gradients, for
            many small members on a GPU (20 ResNets, 32 images). The first batch compares it with the loop. Not with
            early exits, ``max_batch`` or random masks.
        offload: Keep one member at a time on the device. Sets of weights are copied again for each turn.

    Raises:
        TypeError: If a member is neither a module nor a set of weights.
        ValueError: If there is no member, one member stands twice, or ``weights`` do not fit. At the first batch, if a
            set of weights is of another architecture, or if ``vectorize`` cannot run the members or differs from the
            loop.
        torch.OutOfMemoryError: If members do not fit on the device, with the hint ``offload=True``.

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
        vectorize: bool = False,
        offload: bool = False,
    ) -> None:
        self.members: list[Any] = list(members)
        if not self.members:
            raise ValueError("`members` must hold at least one member, got none. Pass modules or sets of weights.")
        wrong = [type(each).__name__ for each in self.members if not isinstance(each, nn.Module | Mapping)]
        if wrong:
            raise TypeError(f"`members` must be modules or sets of weights, got {wrong[0]}. Load it first.")
        self.names = list(names) if names is not None else [f"member {k}" for k in range(len(self.members))]
        for k, each in enumerate(self.members):
            if any(each is other for other in self.members[:k]):
                raise ValueError(f"`members` must differ, got {self.names[k]} twice. Give it a larger weight instead.")
        if isinstance(weights, str) and weights != "uniform":
            raise ValueError(f"`weights` must be 'uniform' or numbers, got {weights!r}. Leave it out for equal ones.")
        given = [1 / len(self.members)] * len(self.members) if isinstance(weights, str) else weights
        self.weights = check_weights("weights", given, len(self.members), "member")
        self._run = [index for index, weight in enumerate(self.weights) if weight]
        kinds = {isinstance(self.members[index], nn.Module) for index in self._run}
        check_vectorize(vectorize, {"offload": offload})
        if vectorize and len(kinds) > 1:
            raise ValueError(
                "`vectorize` must be False where some members are weights of the target and others are modules of "
                "their own (files with other hyperparameters, modules in memory), got True. Set `target` to the "
                "submodule that returns logits, or leave `vectorize` out."
            )
        self.vectorize, self.offload = vectorize, _check.flag("offload", offload)
        self._outputs: int | None = None  # number of outputs that each module must have
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out copies and records of the device."""
        return {**vars(self), "_slots": None, "_vectorized": None, "_moves": {}, "_here": {}}

    def around(self, index: int, call: Call) -> Call:
        """Return the call of one member."""

        def member(module: nn.Module, arguments: Arguments) -> Any:
            with out_of_memory_hint(self.offload):
                return self._one(index, call, self._look_at(module, arguments), arguments)

        return member

    def together(self, call: Call) -> Call:
        """Return a call with the outputs ``(K, N, C)`` of all members with a weight above 0."""

        def members(module: nn.Module, arguments: Arguments) -> Any:
            with out_of_memory_hint(self.offload):
                slots = self._look_at(module, arguments)
                if self._vectorized is not None:
                    return self._vectorized(arguments)
                if self.vectorize:
                    return self._compare(call, slots, arguments)
                return torch.stack(self._all(call, slots, arguments))

        return members

    def expect_outputs(self, call: Call, module: nn.Module, arguments: Arguments) -> None:
        """Require of members that are modules the averaged module's number of outputs in this call."""
        if any(isinstance(self.members[index], nn.Module) for index in self._run):
            out = call(module, CallArguments(arguments).copy().arguments)
            self._outputs = out.shape[-1] if isinstance(out, Tensor) and out.ndim == 2 else None

    def put_back(self) -> None:
        """Move modules back to their devices, and release copies."""
        self._leave(list(self._here))
        self._forget()

    def _forget(self) -> None:
        self._slots: Slots | None = None
        self._device: torch.device | None = None
        self._vectorized: Vectorized | None = None
        self._moves: dict[int, Relocation] = {}
        self._here: dict[int, Any] = {}  # members on the device: copies of weights, None for a module

    def _look_at(self, module: nn.Module, arguments: Arguments) -> Slots:
        """Prepare for a module and a device, at the first batch and after a change of either."""
        device = CallArguments(arguments).device
        known = self._slots
        if known is not None and known.module is module and not known.changed and device == self._device:
            return known
        self.put_back()
        slots = Slots(module)
        for name, each in zip(self.names, self.members, strict=True):
            fault = None if isinstance(each, nn.Module) else next(slots.faults(each), None)
            if fault:
                raise ValueError(
                    f"`members` must be weights of {type(module).__name__}, got {name}: {fault}. For another "
                    "architecture pass the built module."
                )
        dtypes = {tensor.dtype for tensor in slots.tensors if tensor.is_floating_point()}
        dtype = dtypes.pop() if len(dtypes) == 1 and torch.float32 not in dtypes else None
        modules = [(k, self.members[k]) for k in self._run if isinstance(self.members[k], nn.Module)]
        self._moves = {k: Relocation(each, device, dtype) for k, each in modules}
        self._slots, self._device = slots, device
        return slots

    def _one(self, index: int, call: Call, slots: Slots, arguments: Arguments) -> Any:
        member = self.members[index]
        if member is slots.module:
            return call(member, arguments)
        self._bring(index, slots)
        if isinstance(member, nn.Module):
            with evaluating(member):
                out = call(member, arguments)
            if isinstance(out, Tensor) and out.ndim == 2 and self._outputs not in (None, out.shape[1]):
                raise ValueError(
                    f"`members` must have the same classes, got {out.shape[1]} from {self.names[index]} and "
                    f"{self._outputs} in the tested module. Leave it out."
                )
            return out
        with torch.no_grad(), slots.lending() as put:
            put(self._here[index])
            return call(slots.module, arguments)

    def _all(self, call: Call, slots: Slots, arguments: Arguments) -> list[Any]:
        if self._moves or self.offload:
            return [_own(self._one(index, call, slots, arguments)) for index in self._run]
        passes = []
        with torch.no_grad(), slots.lending() as put:
            for index in self._run:
                self._bring(index, slots)
                put(self._here[index])
                passes.append(_own(call(slots.module, arguments)))
        return passes

    def _compare(self, call: Call, slots: Slots, arguments: Arguments) -> Any:
        """Run all members as one forward, and keep doing so if it gives the outputs of the loop."""

        def on_copies(module: nn.Module, arguments: Arguments) -> Any:  # a forward may write into its arguments
            return call(module, CallArguments(arguments).copy().arguments)

        passes = self._all(on_copies, slots, arguments)
        if self._moves:
            vectorized = Vectorized.of([self.members[index] for index in self._run])
        else:
            names = [each[0] for each in slots.names]
            states = [dict(zip(names, self._here[index], strict=True)) for index in self._run]
            vectorized = Vectorized(slots.module, states)
        found = vectorized.checked(arguments, passes)
        self._vectorized = vectorized
        self._leave(self._run[1:] if self._moves else self._run)
        return found

    def _bring(self, index: int, slots: Slots) -> None:
        if index not in self._here:
            if self.offload:
                self._leave(list(self._here))
            if index in self._moves:
                self._moves[index].go()
            self._here[index] = None if index in self._moves else slots.fit(self.members[index])

    def _leave(self, indices: Sequence[int]) -> None:
        for index in set(indices) & self._here.keys():
            del self._here[index]
            if index in self._moves:
                self._moves[index].put_back()


def _own(out: Any) -> Any:
    """Copy an output, since a forward may return the same tensor in each call."""
    return out.clone() if isinstance(out, Tensor) else out
