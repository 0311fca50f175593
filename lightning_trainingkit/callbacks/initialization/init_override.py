"""Initialise the layers of an existing model again, by one scheme or by name pattern."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

from rich.console import Console
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_trainingkit._lightning import BaseFinetuning, L, is_overridden, refuse_other_package
from lightning_trainingkit.callbacks._broadcast import broadcast_module
from lightning_trainingkit.callbacks._lightning import after_build, refuse_twice
from lightning_trainingkit.callbacks.initialization.drawing import check_layers, copy_layer, draw_layer, plan_row
from lightning_trainingkit.callbacks.initialization.report import LayerInit, other_matrices, table
from lightning_trainingkit.callbacks.initialization.rules import Rule, read_bias, read_rules
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.gain import parse_activation
from lightning_trainingkit.nn.initialization.frozen_layers import find_copies, is_frozen
from lightning_trainingkit.nn.initialization.layer_weight import weight_fault, weight_holder, weight_std
from lightning_trainingkit.nn.structure.activation_after import activation_after
from lightning_trainingkit.nn.structure.head import find_head
from lightning_trainingkit.nn.structure.parameter_patterns import match, no_match
from lightning_trainingkit.nn.weights.trained import is_trained, mark_trained

__all__ = ["InitOverride", "LayerInit"]


@dataclass(frozen=True)
class _Drawn:
    """A layer that was initialised in this fit."""

    rule: Rule
    row: LayerInit  # `std_after` was measured right after the draw
    is_kept_frozen: bool  # whether the layer was frozen before the draw


class InitOverride(L.Callback):
    """Initialise linear and convolutional layers again before a fit, with the gain of each layer's activation.

    ``std = gain / sqrt(Din)`` (kaiming) or ``1 / sqrt(Din)`` (xavier), ``Din = k * k * C_in / groups``. Tracing the
    forward finds the activations.

    - **Resume**: a resumed run keeps its checkpoint's weights.
    - **Pretrained weights** are overwritten. Name the new layers alone.
    - **Trained layers**, trained or loaded by the kit, raise an error. A second fit with this callback keeps them.
    - **Frozen layers** are drawn only if a pattern other than ``*`` names them. Frozen copies of a drawn layer (a
      momentum encoder) get the same values.
    - **Beside TransferLearning** all drawn layers must train in its first phase.
    - **Norm layers**, embeddings and layers of metrics stay.

    All ranks get the weights of rank 0. ``report`` holds a `LayerInit` for each layer. README.md tells more.

    Args:
        scheme: A scheme such as ``"kaiming_normal"``, or a dict of `fnmatch` patterns over layer names to schemes or to
            functions that fill a weight in place. The last match wins, and ``head`` is the last layer that the forward
            calls. README.md lists all schemes.
        bias: ``zeros``, ``constant(value)`` or ``normal(std)`` for the biases of these layers. None keeps them.
        nonlinearity: Activation to assume after every layer, such as ``"relu"`` or ``"leaky_relu(0.2)"``, instead of
            the traced one. Needed if the forward cannot be traced.
        again: Whether to draw trained layers again, in each fit.
        verbose: Whether to print the report.

    Raises:
        TypeError: If ``scheme`` is neither a string nor a dict of strings or functions.
        ValueError: If a scheme or a name is unknown. In ``setup``, if a pattern matches no layer, or a layer's weight
            is empty or does not exist yet. If a gain is needed and the layer's activation is unknown. If a layer is
            trained, or another callback freezes it.

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
        again: bool = False,
        verbose: bool = True,
    ) -> None:
        self.scheme = scheme
        self.bias = bias
        self.nonlinearity = nonlinearity
        self.again = _check.flag("again", again)
        self.verbose = verbose
        self._rules = read_rules(scheme)
        self._bias_rule = None if bias is None else read_bias(bias)
        if nonlinearity is not None:
            parse_activation(nonlinearity)
        self.report: list[LayerInit] = []
        self._initialised: WeakSet[nn.Module] = WeakSet()
        self._put_back: Callable[[], None] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Initialise the existing layers, and later the layers that the module's own hooks make."""
        refuse_other_package(self, trainer)
        if stage != "fit":
            return
        refuse_twice(trainer, self, "Put all patterns into one dict.")
        if any(isinstance(each, BaseFinetuning) for each in trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError(
                "`callbacks` must not hold Lightning's BaseFinetuning beside InitOverride, which would draw the layers "
                "that it freezes. Use TransferLearning, or initialise the new layers in the module's `__init__`."
            )
        done: dict[nn.Module, _Drawn] = {}
        turns = 1 + sum(is_overridden(name, pl_module) for name in ("setup", "configure_model"))

        def initialise() -> None:
            nonlocal turns
            turns -= 1
            layers, left = self._initialise(trainer, pl_module, done, last=not turns)
            broadcast_module(trainer, pl_module)
            rows = {layer: done[layer].row for layer in layers.values() if layer in done}
            if left and not rows and not turns and self._initialised.isdisjoint(layers.values()):
                raise ValueError(
                    f"`scheme` must name the frozen layers that are to be drawn, got {self.scheme!r}, and all that it "
                    f"matches are frozen: {_listed(left)}. Give a dict of name patterns, or leave the callback out."
                )
            if rows and not turns:
                self._initialised.update(rows)
                self.report = [replace(row, std_after=weight_std(layer)) for layer, row in rows.items()]
                if self.verbose and trainer.is_global_zero:
                    rest = other_matrices(pl_module, layers) if isinstance(self.scheme, str) else []
                    Console().print(table(self.report, left, rest))

        self._put_back = after_build(pl_module, initialise)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mark the module as trained."""
        mark_trained(pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put back the module's hooks."""
        if self._put_back is not None:
            self._put_back()
            self._put_back = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put back the module's hooks, and mark the module as trained if it made a step."""
        self.teardown(trainer, pl_module, "fit")
        if trainer.global_step:
            mark_trained(pl_module)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_initialised", "_put_back")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _initialised=WeakSet(), _put_back=None)

    def _initialise(
        self, trainer: L.Trainer, pl_module: L.LightningModule, done: dict[nn.Module, _Drawn], *, last: bool
    ) -> tuple[dict[str, nn.Module], list[str]]:
        """Draw each layer once, and again only if a later hook of the module changed its rule or its activation.

        Returns:
            The layers by name, and the names of the frozen layers that were not drawn.
        """
        phases = [each for each in trainer.callbacks if hasattr(each, "first_trainable")]  # type: ignore[attr-defined]
        if phases and not last:  # the first phase's layers are known after all layers are made
            return {}, []
        after = activation_after(pl_module, skip=(Metric,))
        layers = {name: m for name, m in pl_module.named_modules() if name in after.known or name in after.unknown}
        rules, named = self._match(pl_module, layers, last=last)
        known = () if self.again else self._initialised
        rules = {name: rule for name, rule in rules.items() if layers[name] not in known}
        frozen = {name: layer for name, layer in layers.items() if layer not in known and is_frozen(layer)}
        for name in frozen:
            _refuse_late_freeze(name, layers[name], done)
        left = [name for name in rules if name in frozen and name not in named]
        rules = {name: rule for name, rule in rules.items() if name not in left}
        if last:  # until then a hook may still make a layer, give it a shape, or complete the forward
            check_layers(rules, layers, after, self.nonlinearity)
        seen = {weight_holder(layer) for layer in layers.values() if layer in known}
        draws: dict[str, _Drawn] = {}
        for name, layer in layers.items():
            if name not in rules or weight_fault(layer) or weight_holder(layer) in seen:
                continue
            seen.add(weight_holder(layer))
            row = plan_row(name, rules[name], after, self.nonlinearity)
            if row is None:
                continue
            old = done.get(layer)
            if old is None or (old.rule, old.row.gain) != (rules[name], row.gain):
                std = weight_std(layer) if old is None else old.row.std_before
                draws[name] = _Drawn(rules[name], replace(row, std_before=std), name in frozen)
        trainable = {name: layers[name] for name in draws if name not in frozen}
        copies = find_copies(frozen, trainable)
        others = {name: layer for name, layer in frozen.items() if name not in draws and name not in copies}
        copies |= find_copies(others, {name: layers[name] for name in draws if name in frozen and name not in copies})
        draws = {name: draw for name, draw in draws.items() if name not in copies}
        self._refuse(trainer, pl_module, phases, {name: layers[name] for name in [*draws, *copies]}, set(draws))
        for name, draw in draws.items():
            draw_layer(name, layers[name], draw.rule, draw.row.gain, self._bias_rule)
            done[layers[name]] = replace(draw, row=replace(draw.row, std_after=weight_std(layers[name])))
        for name, source in copies.items():
            draw, std = draws[source], weight_std(layers[name])
            copy_layer(name, layers[name], layers[source], biases=self._bias_rule is not None)
            row = replace(draw.row, layer=name, scheme=f"copy of {source}", std_before=std)
            done[layers[name]] = _Drawn(draw.rule, row, True)
        return layers, [name for name in left if layers[name] not in done]

    def _refuse(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        phases: list[Any],
        layers: dict[str, nn.Module],
        drawn: set[str],
    ) -> None:
        """Raise ValueError if a layer is trained, or if another callback freezes it at the start of training."""
        trained = [name for name, layer in layers.items() if trainer.global_step or is_trained(layer)]
        if trained and not self.again:
            raise ValueError(
                "`again` must be True where layers are trained, or have loaded weights, got False and "
                f"{_listed(trained)}. Leave InitOverride out to train on, or name the new layers alone."
            )
        for callback in phases:
            first = callback.first_trainable(pl_module)
            closed = [name for name in layers if name in drawn and first.isdisjoint(layers[name].parameters())]
            if closed:
                raise ValueError(
                    f"`scheme` must be a dict whose patterns match only layers that the first phase of "
                    f"{type(callback).__name__} trains, got {self.scheme!r}, which matches {_listed(closed)}. "
                    "Write {'head': 'normal(0.01)'}, say."
                )

    def _match(
        self, pl_module: L.LightningModule, layers: dict[str, nn.Module], *, last: bool
    ) -> tuple[dict[str, Rule], set[str]]:
        """Return each layer's rule by name, and the names of the layers that a pattern other than `*` matches."""
        chosen: dict[str, Rule] = {}
        named: set[str] = set()
        for pattern, rule in self._rules.items():
            if pattern != "head":
                names = match(pattern, layers)
            else:  # the last layer is known after all layers are made
                head = [find_head(pl_module, skip=(Metric,))] if last and layers else []
                names = [name for name in head if name in layers]
            if last and not names:
                raise no_match("scheme", "have patterns that match a layer", pattern, layers)
            chosen.update(dict.fromkeys(names, rule))
            named.update(names if pattern != "*" else ())
        return chosen, named


def _refuse_late_freeze(name: str, layer: nn.Module, done: dict[nn.Module, _Drawn]) -> None:
    """Raise ValueError if a hook of the module froze a layer after InitOverride drew it."""
    draw = done.get(layer)
    if draw is not None and not draw.is_kept_frozen and weight_std(layer) == draw.row.std_after:
        raise ValueError(
            f"`{name}` must be frozen in `__init__`, got a layer that `setup` or `configure_model` freezes after "
            "InitOverride has drawn it. Freeze it earlier, or leave it out by giving a dict of name patterns."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
