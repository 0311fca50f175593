"""Run all members of one architecture as one forward, where that was seen to be faster and to give the same."""

import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.averaging.member_weights import Slots
from lightning_trainingkit.nn.averaging.placement import fits_on
from lightning_trainingkit.nn.averaging.sources import Call
from lightning_trainingkit.nn.structure.attributes import attributes_put_back

__all__ = ["Vmapped"]

ROUNDS = 3
FASTER = 0.97
TOLERANCE = 8.0
LIMIT = 2**30


class Vmapped:
    """Choose, for each shape of the arguments, between a loop over members and one ``torch.func.vmap`` of them.

    The first batch of a shape goes through the loop. With the second one the outputs of a member's layers are counted,
    and both ways are compared; with the next three both are timed. One forward is taken if the fastest of its three
    times is at most 0.97 of the loop's. The results are those of the loop until then, so that all this costs four
    forwards beside those that are needed, and a loop: with the second batch it is also seen whether members may stand
    in the place of the module's tensors, to the last bit, which is faster than to exchange the tensors' data. The loop
    it is, at once and for good, if

    - the module or a part of it is compiled, has hooks, or is in training mode, or a part has another forward than its
      class;
    - an attribute holds a weight a second time, as recurrent layers do, or a list;
    - the forward keeps something in an attribute, such as features: it would be that of all members, and of no use;
    - the outputs of all layers for all members would take more than 1 GiB, or half of the device's free memory;
    - anything raises, such as a forward that asks for values;
    - a class probability differs by more than 8 roundings (8 times ``torch.finfo.eps``: 1e-6 in float32, 0.06 under
      bfloat16; on a GPU, whose float32 may be rounded to 10 bits, 0.008);
    - the first time is twice the loop's.

    Args:
        module: The module whose weights the members are.
        slots: Its tensors.
        data: For each member, what the tensors are to hold.
    """

    def __init__(self, module: nn.Module, slots: Slots, data: Sequence[Sequence[Tensor]]) -> None:
        self._module, self._slots, self._data = module, slots, data
        self._stacks: list[Tensor] | None = None
        self._trials: dict[Hashable, _Trial] = {}

    @property
    def chosen(self) -> dict[Hashable, bool | None]:
        """By shapes: True where members run as one forward, False where one by one, None where it is not known yet."""
        return {key: trial.chosen for key, trial in self._trials.items()}

    def __call__(self, call: Call, arguments: Arguments) -> Tensor:
        """Return the outputs ``(K, N, C)`` of all members.

        Args:
            call: How to call the module.
            arguments: Positional and named arguments.
        """
        trial = self._trials.setdefault(_key(arguments), _Trial())
        trial.seen += 1
        if trial.chosen and _suitable(self._module):  # a hook may have come since
            return self._together(call, arguments)
        if trial.chosen is not None or trial.seen == 1:
            return self._one_by_one(call, arguments, trial.replacing)
        return self._compare(trial, call, arguments) if trial.seen == 2 else self._time(trial, call, arguments)

    def _compare(self, trial: "_Trial", call: Call, arguments: Arguments) -> Tensor:
        if getattr(call, "compiled", False) or self._slots.aliased or not _suitable(self._module):
            trial.chosen = False
            return self._one_by_one(call, arguments)
        counter = _Counter(self._module)
        try:
            outputs = self._one_by_one(call, arguments)
        finally:
            counter.remove()
        with self._nothing_left_behind(), suppress(Exception):  # a forward may want its Parameters
            trial.replacing = torch.equal(self._one_by_one(call, arguments, replacing=True), outputs)
        try:
            with self._nothing_left_behind() as changed:
                found = self._together(call, arguments) if self._small_enough(counter.bytes, outputs.device) else None
                same = not changed() and _same(found, outputs)
        except Exception:  # a forward under vmap may raise anything
            same = False
        if not same:
            trial.chosen = False
        return outputs

    def _time(self, trial: "_Trial", call: Call, arguments: Arguments) -> Tensor:
        device = self._data[0][0].device
        start = _now(device)
        outputs = self._one_by_one(call, arguments, trial.replacing)
        middle = _now(device)
        try:
            with self._nothing_left_behind():
                self._together(call, arguments)
        except Exception:  # for want of memory, now that something else takes more
            trial.chosen = False
        else:
            trial.note(middle - start, _now(device) - middle)
        return outputs

    @contextmanager
    def _nothing_left_behind(self) -> Iterator[Callable[[], bool]]:
        """For a forward that is not needed: neither attributes nor random numbers show it."""
        device = self._data[0][0].device
        generators = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with generators, attributes_put_back(self._module) as changed:
            yield changed

    def _small_enough(self, outputs: int, device: torch.device) -> bool:
        """Whether the weights once more and all the layers' outputs, which the loop has counted, may be held."""
        if self._stacks is None and not fits_on(device, self._slots.bytes * len(self._data)):
            return False
        return outputs <= LIMIT and fits_on(device, outputs)

    def _one_by_one(self, call: Call, arguments: Arguments, replacing: bool = False) -> Tensor:
        outputs: Tensor | None = None
        with torch.no_grad(), self._slots.replacing() if replacing else self._slots.lending() as put:
            for number, each in enumerate(self._data):
                put(each)
                out = call(self._module, arguments)
                if outputs is None and isinstance(out, Tensor):
                    outputs = out.new_empty((len(self._data), *out.shape))
                if outputs is None or not isinstance(out, Tensor) or out.shape != outputs.shape[1:]:
                    found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                    raise ValueError(
                        f"`target` must return logits of shape (N, C), got {found}. Name a submodule that does."
                    )
                outputs[number] = out  # at once: the next forward may write into the same tensor
        assert outputs is not None  # there are two members at least
        return outputs

    @torch.no_grad()
    def _together(self, call: Call, arguments: Arguments) -> Tensor:
        if self._stacks is None:
            with torch.inference_mode(False):
                self._stacks = [torch.stack(column) for column in zip(*self._data, strict=True)]
        with self._slots.replacing() as put:

            def called(*weights: Tensor) -> Any:
                put(weights)
                return call(self._module, arguments)

            found: Tensor = torch.vmap(called)(*self._stacks)
        return found


@dataclass
class _Trial:
    """What is known of one shape."""

    seen: int = 0
    timed: int = 0
    loop: float = math.inf
    together: float = math.inf
    chosen: bool | None = None
    replacing: bool = False
    """Whether the loop puts members in the place of the module's tensors."""

    def note(self, loop: float, together: float) -> None:
        """Note a round's seconds, and choose when there are enough."""
        self.timed += 1
        self.loop, self.together = min(self.loop, loop), min(self.together, together)
        if self.together > 2 * self.loop:
            self.chosen = False
        elif self.timed == ROUNDS:
            self.chosen = self.together <= FASTER * self.loop


class _Counter:
    """Sums the sizes of the outputs of all layers, those without submodules, over all calls."""

    def __init__(self, module: nn.Module) -> None:
        self.bytes = 0
        leaves = [each for each in module.modules() if not list(each.children())]
        self._hooks = [each.register_forward_hook(self._count) for each in leaves]

    def _count(self, module: nn.Module, args: Any, output: Any) -> None:
        apply_to_collection(output, Tensor, self._add)

    def _add(self, tensor: Tensor) -> None:
        self.bytes += tensor.numel() * tensor.element_size()

    def remove(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()


def _suitable(module: nn.Module) -> bool:
    return not any(
        each.training
        or each._forward_hooks
        or each._forward_pre_hooks
        or each._compiled_call_impl is not None
        or hasattr(each, "_orig_mod")
        or (each is not module and "forward" in vars(each))
        for each in module.modules()
    )


def _key(arguments: Arguments) -> Hashable:
    kinds = tuple((kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))
    args, kwargs = arguments
    if not kwargs and all(isinstance(x, Tensor) for x in args):  # most calls, made cheap
        return (*((x.shape, x.dtype, x.device) for x in args), kinds)
    described = apply_to_collection(arguments, Tensor, lambda x: f"{tuple(x.shape)} {x.dtype} {x.device}")
    return f"{described} {kinds}"


def _same(found: Any, outputs: Tensor) -> bool:
    if not isinstance(found, Tensor) or (found.shape, found.dtype) != (outputs.shape, outputs.dtype):
        return False
    device = outputs.device.type
    eps = torch.finfo(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else outputs.dtype).eps
    if device == "cuda":
        eps = max(eps, 2**-10)  # TF32
    apart = (found.double().softmax(dim=-1) - outputs.double().softmax(dim=-1)).abs().max()
    return bool((apart <= TOLERANCE * eps).item())  # NaN is none


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)
    return time.perf_counter()
