"""Blend the states of torchmetrics' metrics that a training step updates in each of two calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_sum
from torchmetrics.wrappers import BootStrapper, MinMaxMetric, Running

from lightning_trainingkit.callbacks.noise.blended_values import blend_values
from lightning_trainingkit.callbacks.noise.step_metrics import find_parts, on_update

__all__ = ["BlendedMetrics"]

States = dict[str, Tensor]
_WRAPPERS = {BootStrapper: "samples", MinMaxMetric: "extremes", Running: "window"}
"""Metrics that keep more than their states show, and what they keep."""


@dataclass
class _Kept:
    """A metric as it was before the first update of a batch, and after the first call of the step."""

    metric: Metric
    count: int
    states: States
    cache: Any
    cache_of_first: Any
    shared: bool
    after_first: States = field(default_factory=dict)
    count_of_first: int = 0
    updated_twice: bool = False


class BlendedMetrics:
    """Metrics whose state after two calls is the blend of the states after each call alone.

    Sums are linear: with the state S, ``w (S + a) + (1 - w) (S + b) = S + w a + (1 - w) b``. With the first
    update all states of a metric that has integers become float64, in batches without a blend too: all ranks have the
    same type. A metric that a shared layer updates is updated once, by the first call.

    Args:
        module: The module, whose step may update its metrics.
        within_layer: Tells whether a layer of the model is running.
    """

    def __init__(self, module: nn.Module, within_layer: Callable[[], bool]) -> None:
        self._metrics = find_parts(module, Metric)  # type: ignore[type-abstract]
        self._collections = find_parts(module, MetricCollection)
        self._within_layer = within_layer
        self._kept: dict[int, _Kept] = {}  # by id: the hash of a metric changes with its state

    @contextmanager
    def single(self) -> Iterator[None]:
        """Run the step once, without a blend."""
        updated: dict[int, Metric] = {}

        def see(metric: Metric, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            updated[id(metric)] = metric

        with on_update(self._metrics, see):
            yield
        # A metric that has no blend is refused in the first batch with a blend.
        held = [_states(each) for each in updated.values() if not _has_other_states(each)]
        states = [state for each in held if _counts(each) for state in each.values()]
        self._replace({id(each): (each, _wide(each)) for each in states if each.dtype != _wide(each).dtype})

    @contextmanager
    def first(self) -> Iterator[None]:
        """Run the first call of the step."""
        self._kept.clear()
        with self._restored_after_error(), on_update(self._metrics, self._keep):
            yield
        for kept in self._kept.values():
            metric = kept.metric
            kept.after_first, kept.cache_of_first = _states(metric), metric._forward_cache
            kept.count_of_first = metric._update_count
            metric._update_count = kept.count
            _put(metric, _clones(kept.states))

    @contextmanager
    def second(self) -> Iterator[None]:
        """Run the second call of the step."""
        with self._restored_after_error(), on_update(self._metrics, self._keep):
            yield

    def blend(self, weight: float) -> None:
        """Give each updated metric the blend of its two states."""
        blended: dict[int, tuple[Tensor, Tensor]] = {}
        for kept in self._kept.values():
            metric = kept.metric
            metric._computed = None
            once = kept.shared and bool(kept.after_first) and not kept.updated_twice
            states = _states(metric)
            wide = _wide if _counts(states) else _same
            for name, state in states.items():
                first = wide(kept.after_first.get(name, kept.states[name]))
                blended[id(state)] = state, first if once else torch.lerp(wide(state), first, weight)
            if once:
                metric._update_count, metric._forward_cache = kept.count_of_first, kept.cache_of_first
            elif kept.cache_of_first is not kept.cache:
                metric._forward_cache = blend_values(
                    kept.cache_of_first, metric._forward_cache, weight, type(metric).__name__, counts=True
                )
        self._kept.clear()
        self._replace(blended)
        for collection in self._collections:
            collection._state_is_copy = False  # `items()` has copied the states of the second call
            collection._compute_groups_create_state_ref()

    def _keep(self, metric: Metric, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept = self._kept.get(id(metric))
        if kept is not None:
            kept.updated_twice |= bool(kept.after_first)
            return
        others = _has_other_states(metric)
        if others:
            raise TypeError(
                f"`training_step` must update metrics whose states are sums, beside targets='pair', got "
                f"{type(metric).__name__}, whose {', '.join(others)} cannot be blended. Update it in validation alone, "
                "or give it `thresholds` if it takes them."
            )
        cache = metric._forward_cache
        self._kept[id(metric)] = _Kept(metric, metric.update_count, _states(metric), cache, cache, self._within_layer())
        _put(metric, _clones(_states(metric)))

    def _replace(self, states: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Replace states, from the id of a state to the state and the new one.

        Metrics of one compute group in a MetricCollection share their tensors.
        """
        for metric in self._metrics:
            held = vars(metric)
            own = {name: states[id(held[name])][1] for name in metric._defaults if id(held.get(name)) in states}
            if own:
                _put(metric, own)
                metric._computed = None

    @contextmanager
    def _restored_after_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for kept in self._kept.values():
                metric = kept.metric
                metric._update_count, metric._computed, metric._forward_cache = kept.count, None, kept.cache
                _put(metric, kept.states)
            self._kept.clear()
            raise


def _has_other_states(metric: Metric) -> list[str]:
    held = vars(metric)
    return [kept for kind, kept in _WRAPPERS.items() if isinstance(metric, kind)] + [
        name
        for name, reduction in metric._reductions.items()
        if name in held and (reduction is not dim_zero_sum or not isinstance(held[name], Tensor))
    ]


def _states(metric: Metric) -> States:
    held = vars(metric)  # ClasswiseWrapper shows states of the metric inside as its own
    return {name: held[name] for name in metric._defaults if isinstance(held.get(name), Tensor)}


def _put(metric: Metric, states: States) -> None:
    vars(metric).update(states)  # a state is a plain attribute, and torch's setter takes ten times as long


def _clones(states: States) -> States:
    return {name: state.clone() for name, state in states.items()}


def _counts(states: States) -> bool:
    """Whether a metric counts something: its states must become floats of one type."""
    return any(not state.is_floating_point() or state.dtype == torch.float64 for state in states.values())


def _wide(state: Tensor) -> Tensor:
    return state.to(torch.float32 if state.device.type == "mps" else torch.float64)


def _same(state: Tensor) -> Tensor:
    return state
