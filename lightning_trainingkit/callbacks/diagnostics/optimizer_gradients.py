"""The gradients of one optimizer in its sampled steps, by layer."""

from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import Optimizer

from lightning_trainingkit.functional.gradient_statistics import GradientSummary, combine
from lightning_trainingkit.nn.diagnostics.gradient_statistics import GradientRecorder
from lightning_trainingkit.nn.diagnostics.unit_weights import unit_weights
from lightning_trainingkit.nn.structure.names import plain_name
from lightning_trainingkit.nn.structure.parameter_patterns import parameter_names

__all__ = ["OptimizerGradients", "layer_of", "scalars"]

_SCALARS = ("clipped_norm", "update_ratio", "zeros", "sign_agreement")


class OptimizerGradients:
    """Record the gradients of one optimizer at each step that it is told of.

    Args:
        module: Module that names the parameters.
        optimizer: The optimizer. Groups that are added later are recorded too.
        earlier: Optimizers whose parameters are left out here, since they are recorded there.
        wanted: Whether to record a layer of this name.
        clips: Whether the gradients may be clipped between ``gradients_ready`` and ``gradients_clipped``.
        scale: Returns the factor that the gradients hold in ``gradients_ready``.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        earlier: Sequence[Optimizer],
        wanted: Callable[[str], bool],
        clips: bool,
        scale: Callable[[], float],
    ) -> None:
        self._module = module
        self._optimizer = optimizer
        self._earlier = earlier
        self._wanted = wanted
        self._clips = clips
        self._scale = scale
        self._known: tuple[list[int], list[int]] | None = None
        self._recorder: GradientRecorder | None = None
        self._has_step = False

    def gradients_ready(self) -> None:
        """Record the gradients before clipping."""
        self._follow_groups()
        self._has_step = False
        if self._recorder is not None:
            self._recorder.reset()
            self._recorder.record_gradients(scale=self._scale())

    def gradients_clipped(self) -> None:
        """Record the gradients after clipping."""
        if self._recorder is not None and self._clips:
            self._recorder.record_gradients(clipped=True)

    def stepped(self) -> None:
        """Record the update."""
        if self._recorder is not None:
            self._recorder.record_update()
            self._has_step = True

    def take(self) -> dict[str, GradientSummary]:
        """Return the summaries by layer of a step that was just made, or nothing if none was."""
        if self._recorder is None or not self._has_step:
            return {}
        self._has_step = False
        layers: dict[str, list[GradientSummary]] = {}
        for name, summary in self._recorder.summaries().items():
            layers.setdefault(layer_of(name), []).append(summary)
        return {layer: combine(parts) for layer, parts in layers.items()}

    def _follow_groups(self) -> None:
        held, others = _held([self._optimizer]), _held(self._earlier)
        if (held, others) == self._known:
            return
        self._known = held, others
        ids = set(held).difference(others)
        named = {
            name: parameter
            for name, parameter in parameter_names(self._module).items()
            if id(parameter) in ids and self._wanted(layer_of(name))
        }
        self._recorder = GradientRecorder(named, units=unit_weights(self._module)) if named else None


def _held(optimizers: Sequence[Optimizer]) -> list[int]:
    return [id(each) for optimizer in optimizers for group in optimizer.param_groups for each in group["params"]]


def layer_of(parameter: str) -> str:
    """Name of the layer that holds a parameter. A parameter of the module itself is a layer of its own.

    Example:
        >>> layer_of("net.0.weight"), layer_of("net.0.parametrizations.weight.original"), layer_of("scale")
        ('net.0', 'net.0', 'scale')
    """
    name = plain_name(parameter)
    owner, parametrized, _ = name.partition(".parametrizations.")
    return owner if parametrized else name.rpartition(".")[0] or name


def scalars(summary: GradientSummary) -> dict[str, float]:
    """The numbers of a summary that can be logged."""
    found = {"norm": summary.gradient_norm, **{name: getattr(summary, name) for name in _SCALARS}}
    if not summary.weight_norm and summary.update_norm:
        del found["update_ratio"]  # of a layer of zeros, infinite
    known = {name: value for name, value in found.items() if value is not None}
    return known if summary.steps else {}
