"""Find the submodule at which the frozen part of a module ends."""

import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_trainingkit.nn.structure.attributes import attributes_put_back

__all__ = ["Boundary", "NoBoundaryError", "enclosing_parts", "find_boundary", "same_features"]


class NoBoundaryError(ValueError):
    """The features of the frozen part can't be stored. The text says why."""


class _ReachedError(BaseException):
    """Ends a forward pass at the boundary."""


def enclosing_parts(module: nn.Module, trainable: Collection[nn.Parameter]) -> list[str]:
    """Name the submodules that hold all trainable but not all frozen parameters, the innermost first.

    An empty name stands for the end of a wholly frozen module.
    """
    whole = set(module.parameters())
    wanted = whole.intersection(trainable)
    if not wanted:
        return [""] if whole else []
    parts = [(name, set(part.parameters())) for name, part in module.named_modules()]
    return [name for name, own in reversed(parts) if wanted <= own < whole]


def find_boundary(
    module: nn.Module, forward: Callable[[Tensor], Any], x: Tensor, trainable: Collection[nn.Parameter]
) -> tuple["Boundary", Tensor]:
    """Find the innermost submodule that makes the module's output from features of each image alone.

    The module is left unchanged.

    Args:
        module: The module, in the mode in which it will be called.
        forward: The module's original forward, if a patch replaces it.
        x: Two images, shape ``(2, ...)``.
        trainable: The trainable parameters.

    Returns:
        The boundary, and the features of the two images.

    Raises:
        NoBoundaryError: If there is none, with the reason for each submodule.
    """
    reasons = []
    for name in enclosing_parts(module, trainable):
        try:
            boundary = Boundary(module, forward, name)
            features, output = boundary.check(x)
            with _left_as_found(module, x):
                # First, so that it draws the random numbers that `check` drew.
                alone = boundary.part(features.clone())
                twice = boundary.features(x[:1].repeat_interleave(len(x), 0))
            _refuse(not same_features(alone, output, True), f"{boundary.place} alone returns something different")
            mixed = not same_features(twice[:1], features[:1], True)
            _refuse(mixed, f"the input of {boundary.place} depends on more than one image, as on its batch")
            return boundary, features
        except NoBoundaryError as error:
            reasons.append(str(error))
        except Exception as error:  # of the user's own forward
            reasons.append(f"the forward can't be run on {len(x)} images ({error})")
    raise NoBoundaryError(
        "; ".join(reasons) or "its trainable parameters lie in several submodules, or it trains as a whole"
    )


class Boundary:
    """The submodule at whose input the frozen part of a module ends. An empty name stands for the module's end."""

    def __init__(self, module: nn.Module, forward: Callable[[Tensor], Any], name: str) -> None:
        self.module, self.place = module, f"`{name}`" if name else "its end"
        self.part = end = module.get_submodule(name) if name else nn.Identity()
        self.forward = forward if name else lambda x: end(forward(x))
        inside = set(end.modules())
        self._outside = {each: path for path, each in module.named_modules() if each not in inside}

    def features(self, x: Tensor) -> Tensor:
        """Run the frozen part alone: images ``(N, ...)`` to features ``(N, ...)``."""
        return self._run(x, stop=True)[0]

    def check(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and output. Raise NoBoundaryError if the forward does more than compute them."""
        for module, name in self._outside.items():
            around = self.part in module.modules() and (module._forward_pre_hooks or module._backward_hooks)
            hooked = name and (module._forward_hooks or around)
            _refuse(bool(hooked), f"`{name}` ({type(module).__name__}) has a hook, which would not see every image")
        with _left_as_found(self.module, x), attributes_put_back(self.module, self._outside) as attributes_changed:
            buffers = [(each, each.clone()) for module in self._outside for each in module.buffers(recurse=False)]
            before = _random_states(x)
            features, outputs, states = self._run(x)
            changed = attributes_changed() or not all(torch.equal(*pair) for pair in buffers)
        _refuse(states != [before], f"random numbers are drawn before {self.place}, as by dropout")
        _refuse(features.requires_grad, f"trainable parameters act before {self.place}")
        _refuse(changed, f"the forward sets attributes or buffers outside of {self.place}")
        ended, version, output = outputs
        same = isinstance(output, Tensor) and output is ended and output._version == version
        _refuse(not same, f"the forward of {type(self.module).__name__} goes on after {self.place}")
        return features, output

    def _run(self, x: Tensor, stop: bool = False) -> tuple[Tensor, list[Any], list[Any]]:
        """Return the submodule's input, the outputs of submodule (with its version) and module, and random states."""
        inputs, outputs, states = list[Tensor](), list[Any](), list[Any]()

        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            given = args[0] if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) else torch.empty(())
            inputs.append(given.clone())  # dropout may work in place
            if stop:
                raise _ReachedError
            states.append(_random_states(x))

        with (
            self.part.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
            self.part.register_forward_hook(lambda *io: outputs.extend([io[-1], getattr(io[-1], "_version", 0)])),
            suppress(_ReachedError),
        ):
            outputs.append(self.forward(x.clone()))
        once = len(inputs) == 1 and inputs[0].shape[:1] == x.shape[:1]
        _refuse(not once, f"{self.place} is not called exactly once with one tensor, a row for each image")
        return inputs[0], outputs, states


def _refuse(wrong: bool, reason: str) -> None:
    if wrong:
        raise NoBoundaryError(reason)


@contextmanager
def _left_as_found(module: nn.Module, x: Tensor) -> Iterator[None]:
    """Restore attributes, buffers and random generators after a forward pass in training or evaluation."""
    buffers = [(each, each.clone()) for each in module.buffers()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with attributes_put_back(module), torch.random.fork_rng([x.device] if x.is_cuda else []):
        try:
            with torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.data.copy_(value)  # `data`: a backward pass may still need the graph


def _random_states(x: Tensor) -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state(x.device).tolist() if x.is_cuda else None
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), cuda  # noqa: NPY002


def same_features(one: Tensor, two: Tensor, same_kernels: bool = False) -> bool:
    """Whether features are equal up to rounding, which differs between batch sizes unless the kernels are the same."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    coarse = not same_kernels and (two.is_cuda or two.itemsize < 4 or torch.is_autocast_enabled(two.device.type))
    largest = float(two.detach().abs().nan_to_num().max()) if two.numel() else 0.0
    return torch.allclose(one, two, rtol=0, atol=(0.1 if coarse else 1e-5) * largest, equal_nan=True)
