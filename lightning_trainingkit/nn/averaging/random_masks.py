"""Random masks at test time: dropout and similar layers in training mode, all other layers in eval mode."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.averaging.sources import Call
from lightning_trainingkit.nn.structure.names import plain_names
from lightning_trainingkit.nn.structure.parameter_patterns import match, no_match
from lightning_trainingkit.nn.structure.randomness import layers_that_draw, noise_on, rates

__all__ = ["RandomMasks", "random_layers"]


class RandomMasks:
    """Random masks of dropout and similar layers, as a source of passes: Monte-Carlo dropout.

    - **Modes**: in each pass the layers of ``random_layers`` are in training mode, all other layers, BatchNorm
      included, in eval mode. After the pass each layer has its own mode again, also after an exception.
    - **Independence**: two passes never share a call of the module. So masks are independent, even for layers that draw
      once for a whole batch (``StochasticDepth(mode="batch")``).
    - **max_batch**: such a layer draws once for each part of a cut batch. Views that share a call share its draw.

    Args:
        passes: Number of masks, with equal weights.
        layers: Further layers to put into training mode, see ``random_layers``.
        seed: Seed of a separate sequence of random numbers for these masks, on the CPU and on the module's CUDA
            devices. torch's generators then keep their state. None draws from torch's generators, as dropout does.

    Raises:
        TypeError: If ``layers`` is neither a string nor a list of strings.
        ValueError: If ``passes`` is not positive. At the first call, if the module draws no random numbers or a pattern
            matches no layer.

    Example:
        >>> import torch
        >>> from lightning_trainingkit.nn.averaging.averaged import Averaged
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)).eval()
        >>> masks = RandomMasks(20)
        >>> Averaged(net, masks).each_pass(torch.rand(2, 4)).shape
        torch.Size([20, 2, 3])
        >>> masks.found
        {'1': 'Dropout'}

    References:
        Gal and Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016, arXiv:1506.02142.
    """

    kind = "masks"

    def __init__(self, passes: int, *, layers: str | list[str] | None = None, seed: int | None = None) -> None:
        passes = _check.integer("passes", passes, "20 is usual, more are smoother.", least=1)
        given = [layers] if isinstance(layers, str) else layers or []
        if not isinstance(given, list) or not all(isinstance(pattern, str) for pattern in given):
            raise TypeError(f"`layers` must be a pattern over names of layers or a list of them, got {layers!r}.")
        self.passes, self.layers, self.seed = passes, layers, seed
        self.names = [f"mask {index + 1}" for index in range(passes)]
        self.weights = [1 / passes] * passes
        self.found: dict[str, str] = {}
        """Class of each layer that was random in the last pass, by the layer's name."""
        self._module: nn.Module | None = None
        self._wanted: list[tuple[Any, bool]] = []
        self._numbers = None if seed is None else _Numbers(seed)

    def around(self, index: int, call: Call) -> Call:
        """Return the call with a new random mask drawn in each run of it.

        The first run of an average looks for the random layers, and raises ValueError if there are none.
        """

        def masked(module: nn.Module, arguments: Arguments) -> Any:
            if index == 0 or module is not self._module:  # the first mask of each average
                self._look_at(module)
            with _modes(self._wanted), nullcontext() if self._numbers is None else self._numbers.drawn():
                return call(module, arguments)

        return masked

    def _look_at(self, module: nn.Module) -> None:
        found = random_layers(module, self.layers)
        on = set(found.values())
        noises = {layer: noise for layer in set(_named(module).values()) if (noise := noise_on(layer)) is not None}
        by_noise = {layer for layer in noises if layer in on and not rates(layer)}
        self.found = {
            name: noises[layer].by if layer in by_noise else type(layer).__name__ for name, layer in found.items()
        }
        self._wanted = [(layer, layer in on - by_noise) for layer in set(_named(module).values())]
        # A layer with noise, which may be a BatchNorm, stays in eval mode
        self._wanted += [(noise, layer in on) for layer, noise in noises.items()]
        if self._numbers is not None:
            self._numbers.devices = {each.device for each in chain(module.parameters(), module.buffers())}
        self._module = module


def random_layers(module: nn.Module, layers: str | list[str] | None = None) -> dict[str, nn.Module]:
    """Find the layers of a module that draw random numbers in training mode.

    With a rate above 0 these are:

    - **torch**: dropout of every kind, ``RReLU``, multi-head attention, recurrent networks of several layers, and
      ``TransformerEncoderLayer`` with dropout, whose fast path in eval mode would skip the dropout.
    - **Any package**: stochastic depth, DropPath and DropBlock, found by the class's name, and fused attention with a
      child ``attn_drop``.
    - **torchvision and timm**: each module with a rate as an attribute (Swin's attention, DenseNet's layers, timm's
      EfficientNet).
    - **Fractional max pooling**, which draws in eval mode too.
    - **Noise of the kit's callbacks**, such as ``DropConnect``. It is on, and its layer stays in eval mode.

    Other code that draws, such as ``F.dropout(x, training=self.training)``, does not show. Name such layers in
    ``layers``.

    Args:
        module: The module to search.
        layers: ``fnmatch`` patterns over the names of further layers within ``module`` (``*`` matches dots too); ``""``
            is the module itself. A layer's own flag counts, not its children's flags. Layers with running statistics,
            such as BatchNorm, are never included.

    Returns:
        The layers by name.

    Raises:
        ValueError: If there is no such layer, or if a pattern matches no layer.

    Example:
        >>> from torch import nn
        >>> list(random_layers(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.Dropout(0.0))))
        ['1']
    """
    names = _named(module)
    on = layers_that_draw(names.values())
    for pattern in [layers] if isinstance(layers, str) else layers or []:
        on |= _match(module, names, pattern)
    if not on:
        there = sorted({type(each).__name__ for each in names.values()})
        raise ValueError(
            "`target` must have a layer that draws random numbers (dropout, stochastic depth, DropBlock, RReLU, "
            f"fractional max pooling, with a rate above 0), got {type(module).__name__} made of: {', '.join(there)}. "
            "If one draws in its own forward, as by F.dropout(x, training=self.training), name it in `layers`."
        )
    first: dict[nn.Module, str] = {}
    for name, each in names.items():
        if each in on:
            first.setdefault(each, name)
    return {name: each for each, name in first.items()}


def _named(module: nn.Module) -> dict[str, nn.Module]:
    """Modules by name, without the name parts of ``torch.compile``. A shared module has several names."""
    return plain_names(dict(module.named_modules(remove_duplicate=False)))


def _match(module: nn.Module, names: dict[str, nn.Module], pattern: str) -> set[nn.Module]:
    matched = match(pattern, names)
    found = {names[name] for name in matched if not _keeps_statistics(names[name])}
    if found:
        return found
    if matched:
        raise ValueError(
            f"`layers` must match others than layers with running statistics, got {pattern!r}, which matches "
            f"{', '.join(matched[:20])} alone. These stay in eval mode: leave the pattern out."
        )
    raise no_match("layers", f"match names in {type(module).__name__}", pattern, names)


def _keeps_statistics(module: nn.Module) -> bool:
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))


@contextmanager
def _modes(wanted: list[tuple[Any, bool]]) -> Iterator[None]:
    before = [(layer, layer.training) for layer, training in wanted if layer.training != training]
    try:
        for layer, training in before:
            layer.training = not training
        yield
    finally:
        for layer, training in before:
            layer.training = training


class _Numbers:
    """A sequence of random numbers that continues from pass to pass, separate from torch's generators."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.devices: set[torch.device] = set()
        """Devices of the module that draws the numbers."""
        self._states: dict[str, Tensor] = {}

    @contextmanager
    def drawn(self) -> Iterator[None]:
        generators = {
            str(device): torch.cuda.default_generators[device.index] for device in self.devices if device.type == "cuda"
        }
        generators["cpu"] = torch.default_generator
        before = {name: generator.get_state() for name, generator in generators.items()}
        try:
            for name, generator in generators.items():
                if name in self._states:
                    generator.set_state(self._states[name])
                else:
                    generator.manual_seed(self.seed)
            yield
        finally:
            for name, generator in generators.items():
                self._states[name] = generator.get_state()
                generator.set_state(before[name])
