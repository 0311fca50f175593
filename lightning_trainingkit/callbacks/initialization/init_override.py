"""Initialise the layers of an existing model again, by one scheme or by name pattern."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_trainingkit.callbacks._broadcast import broadcast_module
from lightning_trainingkit.callbacks._lightning import after_build
from lightning_trainingkit.callbacks.initialization.report import LayerInit, other_matrices, table
from lightning_trainingkit.functional.gain import parse_activation
from lightning_trainingkit.functional.init import InitScheme, init_, parse_scheme
from lightning_trainingkit.nn.initialization.layer_weight import fill_, weight_fault, weight_holder, weight_std
from lightning_trainingkit.nn.structure.activation_after import FollowingActivations, activation_after
from lightning_trainingkit.nn.structure.head import find_head
from lightning_trainingkit.nn.structure.parameter_patterns import match, no_match

__all__ = ["InitOverride", "LayerInit"]

Rule = InitScheme | Callable[[Tensor], Any]


class InitOverride(L.Callback):
    """Initialise the linear and convolutional layers anew before a fit, with the gain of what really follows each.

    ``std = gain / sqrt(Din)`` (kaiming) or ``1 / sqrt(Din)`` (xavier), with ``Din = k * k * C_in / groups``. The gain
    is that of the activation after the layer, found by tracing the forward through norm, pooling and reshaping.

    Layers that no pattern names stay as they are, and so do norm layers, embeddings and the layers of metrics.
    It happens in ``setup`` and, for layers made there, right after the module's own ``setup`` and ``configure_model``:
    before the optimizer is made, a learning-rate finder runs or a checkpoint is restored, so a resumed run goes on
    from its checkpoint. A second fit with the same callback object leaves trained layers alone (a copy of it, or one
    in a spawned process, does not know of them); to train on from weights loaded by hand, leave the callback out.
    Frozen layers are initialised like the others. All ranks then hold the parameters and buffers of rank 0.
    ``report`` holds a `LayerInit` for each layer.

    Args:
        scheme: ``constant(value)``, ``normal(std)``, ``zeros``, ``orthogonal``, ``xavier_normal``, ``xavier_uniform``,
            ``kaiming_normal`` or ``kaiming_uniform``; the last four with ``(fan_in)``, the default and the lecture's
            rule, ``(fan_out)`` or, xavier only, ``(fan_avg)``, which is Glorot's. Or a dict of `fnmatch` patterns over
            layer names to schemes or to functions that fill a weight in place; the last match wins, and the pattern
            ``head`` is the last layer that the forward calls.
        bias: ``zeros``, ``constant(value)`` or ``normal(std)`` for the biases of these layers, None to keep them.
        nonlinearity: Activation to take after every layer, such as ``"relu"`` or ``"leaky_relu(0.2)"``, instead of
            the one found. Needed where a forward cannot be traced.
        verbose: Whether to print the report.

    Raises:
        TypeError: If ``scheme`` is neither a string nor a dict of strings or functions.
        ValueError: If a scheme or a name is unknown; in ``setup``, if a pattern matches no layer, a layer's weight is
            empty or does not exist yet, or a gain is needed and what follows the layer is unknown.

    Example:
        >>> import lightning as L
        >>> init = InitOverride({"backbone.*": "kaiming_normal", "head": "normal(0.01)"})
        >>> trainer = L.Trainer(callbacks=[init], logger=False, accelerator="cpu")

    References:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
        He et al., "Delving Deep into Rectifiers", ICCV 2015, arXiv:1502.01852.
    """

    def __init__(
        self,
        scheme: str | dict[str, str | Callable[[Tensor], Any]] = "kaiming_normal",
        *,
        bias: str | None = "zeros",
        nonlinearity: str | None = None,
        verbose: bool = True,
    ) -> None:
        self.scheme = scheme
        self.bias = bias
        self.nonlinearity = nonlinearity
        self.verbose = verbose
        self._rules = _read_rules(scheme)
        self._bias_rule = None if bias is None else _read_bias(bias)
        if nonlinearity is not None:
            parse_activation(nonlinearity)
        self.report: list[LayerInit] = []
        self._initialised: WeakSet[nn.Module] = WeakSet()
        self._put_back: Callable[[], None] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Initialise the layers that are there, and those that the module's own hooks make."""
        if stage != "fit":
            return
        rows: dict[nn.Module, tuple[Rule, LayerInit]] = {}
        turns = 1 + sum(is_overridden(name, pl_module) for name in ("setup", "configure_model"))

        def initialise() -> None:
            nonlocal turns
            turns -= 1
            layers = self._initialise(pl_module, rows, last=not turns)
            broadcast_module(trainer, pl_module)
            done = {layer: rows[layer][1] for layer in layers.values() if layer in rows}
            if done and not turns:
                self._initialised.update(done)
                self.report = [replace(row, std_after=weight_std(layer)) for layer, row in done.items()]
                if self.verbose and trainer.is_global_zero:
                    rest = other_matrices(pl_module, layers) if isinstance(self.scheme, str) else []
                    Console().print(table(self.report, rest))

        self._put_back = after_build(pl_module, initialise)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put back the module's hooks."""
        if self._put_back is not None:
            self._put_back()
            self._put_back = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put back the module's hooks."""
        self.teardown(trainer, pl_module, "fit")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_initialised", "_put_back")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _initialised=WeakSet(), _put_back=None)

    def _initialise(
        self, pl_module: L.LightningModule, rows: dict[nn.Module, tuple[Rule, LayerInit]], *, last: bool
    ) -> dict[str, nn.Module]:
        """Fill each layer once, and again only if a later hook of the module changed its rule or what follows it."""
        after = activation_after(pl_module, skip=(Metric,))
        layers = {name: m for name, m in pl_module.named_modules() if name in after.known or name in after.unknown}
        rules = self._match(pl_module, layers, last=last)
        rules = {name: rule for name, rule in rules.items() if layers[name] not in self._initialised}
        if last:  # until then a hook may still make a layer, give it a shape, or complete the forward
            self._check(rules, layers, after)
        seen = {weight_holder(layer) for layer in layers.values() if layer in self._initialised}
        for name, layer in layers.items():
            if name not in rules or weight_fault(layer) or weight_holder(layer) in seen:
                continue
            seen.add(weight_holder(layer))
            rule, row = rules[name], self._plan(name, rules[name], after)
            if row is None:
                continue
            old_rule, old = rows.get(layer, (None, replace(row, std_before=weight_std(layer))))
            rows[layer] = rule, replace(row, std_before=old.std_before)
            if old_rule is None or (old_rule, old.gain) != (rule, row.gain):
                self._fill(name, layer, rule, row.gain)
        return layers

    def _match(self, pl_module: L.LightningModule, layers: dict[str, nn.Module], *, last: bool) -> dict[str, Rule]:
        chosen: dict[str, Rule] = {}
        for pattern, rule in self._rules.items():
            if pattern != "head":
                names = match(pattern, layers)
            else:  # which layer is the last is known once all are made
                head = [find_head(pl_module, skip=(Metric,))] if last and layers else []
                names = [name for name in head if name in layers]
            if last and not names:
                raise no_match("scheme", "have patterns that match a layer", pattern, layers)
            chosen.update(dict.fromkeys(names, rule))
        return chosen

    def _check(self, rules: dict[str, Rule], layers: dict[str, nn.Module], after: FollowingActivations) -> None:
        for name in rules:
            if problem := weight_fault(layers[name]):
                raise ValueError(f"`{name}` {problem}")
        lost = [name for name in after.unknown if _needs_gain(rules.get(name))]
        if lost and self.nonlinearity is None:
            reasons = "; ".join(dict.fromkeys(after.unknown[name] for name in lost))
            raise ValueError(
                f"`nonlinearity` must be given where what follows a layer is unknown, got None for {', '.join(lost)} "
                f"({reasons}). Give the activation, such as nonlinearity='relu', or give these layers a scheme that "
                "needs no gain, such as xavier_normal."
            )

    def _plan(self, name: str, rule: Rule, after: FollowingActivations) -> LayerInit | None:
        activation = parse_activation(self.nonlinearity) if self.nonlinearity else after.known.get(name)
        if _needs_gain(rule) and activation is None:
            return None
        gain = None
        if isinstance(rule, InitScheme) and activation is not None and rule.needs_gain:
            gain = activation.gain
        elif isinstance(rule, InitScheme) and rule.mode:
            gain = 1.0
        label = str(rule) if isinstance(rule, InitScheme) else getattr(rule, "__name__", type(rule).__name__)
        return LayerInit(name, label, activation.name if activation else None, gain, float("nan"), float("nan"))

    def _fill(self, name: str, layer: nn.Module, rule: Rule, gain: float | None) -> None:
        def fill(weight: Tensor) -> Any:
            if not isinstance(rule, InitScheme):
                return rule(weight)
            groups, transposed = getattr(layer, "groups", 1), getattr(layer, "transposed", False)
            return init_(weight, rule, gain=gain or 1.0, groups=groups, transposed=transposed)

        bias = self._bias_rule
        try:
            fill_(layer, "weight", fill)
            if bias is not None and layer.bias is not None:
                fill_(layer, "bias", lambda tensor: init_(tensor, bias))
        except ValueError as error:
            raise ValueError(f"`{name}` {error}") from error


def _read_rules(scheme: Any) -> dict[str, Rule]:
    if isinstance(scheme, str):
        return {"*": parse_scheme(scheme)}
    if not isinstance(scheme, dict) or not all(isinstance(pattern, str) for pattern in scheme):
        raise TypeError(
            f"`scheme` must be a string or a dict of name patterns, got {scheme!r}. "
            "A function for all layers is {'*': function}."
        )
    if not scheme:
        raise ValueError("`scheme` must name at least one pattern, got {}. Leave the callback out to change nothing.")
    for pattern, rule in scheme.items():
        if not isinstance(rule, str) and not callable(rule):
            raise TypeError(f"`scheme[{pattern!r}]` must be a string or a function, got {rule!r}. Write 'zeros', say.")
    return {pattern: parse_scheme(rule) if isinstance(rule, str) else rule for pattern, rule in scheme.items()}


def _read_bias(bias: str) -> InitScheme:
    name = bias.partition("(")[0]
    if name not in ("zeros", "constant", "normal"):
        raise ValueError(f"`bias` must be zeros, constant(value), normal(std) or None, got {bias!r}. Choose one.")
    return parse_scheme(bias)


def _needs_gain(rule: Rule | None) -> bool:
    return isinstance(rule, InitScheme) and rule.needs_gain
