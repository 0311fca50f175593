"""Statistics of what the layers of a model put out."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.statistics import ActivationSummary
from lightning_trainingkit.nn.diagnostics.layer_record import LayerRecord
from lightning_trainingkit.nn.diagnostics.layer_summaries import Reduce, summarise
from lightning_trainingkit.nn.diagnostics.observed_layers import observed_layers
from lightning_trainingkit.nn.diagnostics.recording_op import Listener, send

__all__ = ["ActivationRecorder"]


class ActivationRecorder:
    """Record mean, spread, extremes, a histogram, and saturated and dead units of layers, by forward hooks.

    - **Window**: the forward passes with ``recording = True`` since ``reset``. The default is False.
    - **All elements** count for mean, std, min, max and dead units. Saturated and positive shares, the histogram and
      the spread between images come from a fixed sample.
    - **A unit** is a channel of a convolution, or a feature. A layer that its parent calls several times has
      separate units in each call.
    - **Memory** is bounded, and nothing waits for the device before ``summaries``.
    - **torch.compile**: no graph break. A model that ran compiled before ``attach`` compiles again.

    Args:
        module: The model, unchanged apart from the hooks.
        patterns: Patterns over the names of submodules. The default is all activations, modules and functions alike;
            without any, the linear and convolutional layers, before their activation.
        bins: Number of bins of each histogram. The window before sets their range.
        sample: Number of elements of each output in the fixed sample.
        windows: Number of windows, the last ones, in which a dead unit was always zero.

    Raises:
        TypeError: If a layer is quantised.
        ValueError: If a pattern matches no layer, or a number is below 1.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> recorder = ActivationRecorder(net)
        >>> recorder.attach()
        >>> recorder.recording = True
        >>> output = net(torch.ones(16, 4))
        >>> recorder.remove()
        >>> {name: (summary.images, summary.min >= 0) for name, summary in recorder.summaries().items()}
        {'1': (16, True)}
    """

    def __init__(
        self,
        module: nn.Module,
        patterns: str | Iterable[str] | None = None,
        *,
        bins: int = 64,
        sample: int = 4096,
        windows: int = 1,
    ) -> None:
        bins = _check.integer("bins", bins, "64 is the default.", least=1)
        sample = _check.integer("sample", sample, "4096 is the default.", least=1)
        self.windows = _check.integer("windows", windows, "1 is the default.", least=1)
        self._recording = self._attached = self._stays = False
        self._module = module
        layers = observed_layers(module, patterns)
        device = next((each.device for each in module.parameters() if not each.is_meta), torch.device("cpu"))
        self._records = [LayerRecord(layer, bins, sample, device) for layer in layers]
        self._listeners: list[Listener] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._token = torch.zeros(1)

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in the order of the model."""
        return [record.layer.name for record in self._records]

    @property
    def recording(self) -> bool:
        """Whether forward passes count."""
        return self._recording

    @recording.setter
    def recording(self, on: bool) -> None:
        if on != self._recording:
            self._recording = on
            if on and self._attached:
                self._put_on()
            elif not on and not self._stays:
                self._take_off()

    def attach(self) -> None:
        """Put hooks on the layers while ``recording`` is True, and on the layers of a compiled model for good."""
        self._attached = True
        if self._recording or _was_compiled(self._module):
            self._put_on()

    def _put_on(self) -> None:
        if self._handles:
            return
        self._stays = _was_compiled(self._module)
        if self._stays:
            torch.compiler.reset()  # a graph from before the hooks would not call them
        for record in self._records:
            layer = record.layer
            self._handles.append(layer.module.register_forward_hook(self._hook(record.record)))
            if layer.parent is not None:
                self._handles.append(layer.parent.register_forward_pre_hook(self._mark(record.enter)))
                self._handles.append(layer.parent.register_forward_hook(self._mark(record.leave)))

    def remove(self) -> None:
        """Take the hooks off. The summaries stay."""
        self._attached = False
        self._take_off()

    def _take_off(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._listeners = [], []

    def reset(self) -> None:
        """Begin a window. The histograms take the range of the window that ends."""
        for record in self._records:
            record.reset()

    def summaries(self, reduce: Reduce | None = None) -> dict[str, ActivationSummary]:
        """Summarise the window, with one copy from the device.

        Args:
            reduce: ``reduce(tensor, "sum")`` reduces a tensor over ranks in place, ``"min"`` and ``"max"`` too. All
                ranks must call then, and get the same summaries.

        Returns:
            Name of each layer that was called in the window, to its summary.
        """
        with torch.inference_mode(False), torch.no_grad():
            return summarise(self._records, self.windows, reduce)

    def _hook(self, receive: Any) -> Any:
        listener = Listener(receive)
        self._listeners.append(listener)

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._recording and (y := _first_tensor(output)) is not None:
                send(listener, y, self._token)

        return hook

    def _mark(self, receive: Any) -> Any:
        listener = Listener(receive)
        self._listeners.append(listener)

        def hook(module: nn.Module, *args: Any) -> None:
            if self._recording:
                send(listener, self._token, self._token)

        return hook


def _first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor in what a layer returns."""
    if isinstance(output, Tensor):
        usable = output.is_floating_point() and not output.is_meta and output.layout == torch.strided
        return output if usable and output.numel() else None
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        for each in output:
            if (found := _first_tensor(each)) is not None:
                return found
    return None


def _was_compiled(module: nn.Module) -> bool:
    """Whether the model, a part of it or a method on one of its instances is compiled."""
    if "torch._dynamo" not in sys.modules:
        return False
    from torch._dynamo import OptimizedModule

    def compiled(each: nn.Module) -> bool:
        own = vars(each)
        patched = any(hasattr(value, "_torchdynamo_orig_callable") for value in own.values() if callable(value))
        return isinstance(each, OptimizedModule) or each._compiled_call_impl is not None or patched

    return any(compiled(each) for each in module.modules())
