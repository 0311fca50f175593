"""Replace the activations of a finished model for a training."""

from typing import Any

import torch
from torchmetrics import Metric

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks._broadcast import broadcast_module
from lightning_trainingkit.callbacks._lightning import averages_other_shapes
from lightning_trainingkit.callbacks.noise.checkpoint_check import BeforeLoading
from lightning_trainingkit.callbacks.noise.surgery import Change, Surgery
from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.layers.activation_modules import read_activations
from lightning_trainingkit.nn.layers.activation_swap import plan_activations
from lightning_trainingkit.nn.layers.replace import named, surgery_on
from lightning_trainingkit.nn.layers.replacement import Replacement
from lightning_trainingkit.nn.structure.tracing import LAYERS, NORMS
from lightning_trainingkit.nn.weights.surgery_record import SURGERY
from lightning_trainingkit.nn.weights.trained import is_trained

__all__ = ["ReplaceActivation"]


class ReplaceActivation(Surgery):
    """Replace the activation modules of a finished model before it trains. The new ones stay after the fit.

    - **Activations without parameters** change no key of the state dict. **prelu** adds a slope for each module.
    - **maxout** makes the layer before it, and a BatchNorm between them, twice as wide.
    - **selu** also turns the dropout after it into alpha dropout.
    - **Gates and outputs** (a sigmoid that is a factor, or that ends the model) stay, unless they are named exactly.
    - **Functions** such as ``F.relu`` can't be replaced. A pattern that matches one is an error that names it.

    Evaluation and a resumed fit need the callback too. A checkpoint of a training without it is an error.

    Args:
        to: An activation for all places, or a dict of name patterns to activations. The last match wins. Names are
            those of `torch.nn.functional`, such as ``"gelu"`` and ``"leaky_relu(0.2)"``, and ``"maxout(2)"``.
        init: Whether the layers before a new SELU get LeCun-normal weights in a fit. SELU normalises itself with them.
        verbose: Whether to print the changes.

    Raises:
        TypeError: If ``to`` is neither a string nor a dict of strings. In ``setup``, if a layer is TorchScript,
            quantised or wrapped.
        ValueError: If an activation is unknown. In ``setup``, if a pattern matches no activation module or a function,
            a place can't take Maxout, or another surgery has changed a layer.

    Example:
        >>> import lightning as L
        >>> swap = ReplaceActivation({"net.layer4.*": "silu"})
        >>> trainer = L.Trainer(callbacks=[swap], logger=False, enable_checkpointing=False)

    References:
        Goodfellow et al., "Maxout Networks", ICML 2013, arXiv:1302.4389.
        Klambauer et al., "Self-Normalizing Neural Networks", NIPS 2017, arXiv:1706.02515.
    """

    def __init__(self, to: str | dict[str, str], *, init: bool = False, verbose: bool = True) -> None:
        super().__init__(verbose=verbose)
        self.to = to
        self.init = _check.flag("init", init)
        self._activations = read_activations(to)
        self._replacement: Replacement | None = None
        self._is_new = False  # whether this stage has replaced layers
        self._has_loaded = False
        self._layers: dict[str, str] = {}
        self._before_loading: BeforeLoading | None = None

    def operate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the activations, unless an earlier stage has."""
        by = type(self).__name__
        self._has_loaded = False
        init = self.init and trainer.state.fn == "fit"
        with torch.random.fork_rng(devices=[]):  # what the training draws later stays as it was
            plan = plan_activations(pl_module, self._activations, by, init=init, skip=(Metric,))
        layers = named(pl_module)
        trained = [name for name, _, after in plan.changes if "weights" in after and is_trained(layers[name])]
        if trained:
            raise ValueError(
                f"`init` must be False where layers are trained, got True and {', '.join(trained[:8])}. "
                "Leave `init` out to keep their weights."
            )
        replacement = Replacement(pl_module, plan.modules, by)
        self._before_loading = BeforeLoading(pl_module, lambda checkpoint: self._check(replacement, checkpoint))
        if plan.changes or self._replacement is None:  # otherwise an earlier stage has printed them
            self.announce(trainer, [Change(*each) for each in plan.changes], *plan.notes, *_differences(replacement))
        replacement.put()
        if plan.modules:
            self._replacement, self._is_new = replacement, True
        if init or "maxout" in {each.name for each in self._activations.values()}:
            broadcast_module(trainer, pl_module)
        changed = {name: each for name, each in named(pl_module).items() if surgery_on(each) == by}
        self._layers = {name: str(each) for name, each in changed.items() if not isinstance(each, (*LAYERS, *NORMS))}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a copy of the model for an average of weights that has the old layers."""
        if averages_other_shapes(trainer):
            raise ValueError(
                f"`callbacks` must hold {type(self).__name__} before callbacks that average weights, got one whose "
                f"copy of the model has the old layers. Put {type(self).__name__} first, and make the layers in "
                "the module's `__init__`."
            )

    def undo(self) -> None:
        """Put the old layers back, to the last bit, before any training.

        Raises:
            ValueError: If new layers were trained or loaded, whose weights would be lost.
        """
        if self._replacement is not None:
            self._replacement.undo()
            self._replacement, self._layers = None, {}

    def state_dict(self) -> dict[str, Any]:
        """Return the replaced activations, by name."""
        return {SURGERY: dict(self._layers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the record of the replaced activations."""
        self._layers = dict(state_dict.get(SURGERY, {}))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put back the module's hooks. Put back the old layers after an evaluation that loaded no checkpoint."""
        super().teardown(trainer, pl_module, stage)
        if self._before_loading is not None:
            self._before_loading.remove()
            self._before_loading = None
        if stage != "fit":
            self._undo_if_unused()
        self._is_new = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put back the module's hooks, and the old layers if no step was made with the new ones."""
        if not trainer.global_step:
            self._undo_if_unused()
        self.teardown(trainer, pl_module, "fit")

    def _undo_if_unused(self) -> None:
        """Put the old layers back if this stage replaced them, and no weights were trained or loaded since."""
        if self._is_new and not self._has_loaded and self._replacement is not None and not self._replacement.is_changed:
            self.undo()

    def _check(self, replacement: Replacement, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError if a checkpoint comes from a model with other activations."""
        self._has_loaded = True
        name, states = type(self).__name__, checkpoint.get("callbacks")
        given = f"{name}({self.to!r})"
        if states and self.state_key not in states:
            raise ValueError(
                f"`ckpt_path` must be a checkpoint of a training with {name}, got one without. Leave the callback out. "
                f"To go on from its weights with {given}, load them into the module before the fit."
            )
        saved = states[self.state_key].get(SURGERY) if states else None
        if saved is not None and saved != self._layers:
            other = next(each for each in [*saved, *self._layers] if saved.get(each) != self._layers.get(each))
            raise ValueError(
                f"`ckpt_path` must be a checkpoint of a training with {given}, got one with {saved.get(other)} for "
                f"`{other}`, which is {self._layers.get(other)} here. Give the arguments of that training."
            )
        keys = replacement.differences(checkpoint.get("state_dict", {}))
        if keys and replacement.rebuilds:
            raise ValueError(
                f"`ckpt_path` must be a checkpoint of a training with {given}, got one in which "
                f"{', '.join(keys[:4])} differ. Leave the callback out, or load it into the module before the fit."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_replacement": None, "_before_loading": None}


def _differences(replacement: Replacement) -> list[str]:
    """Say how the parameters and the keys of the state dict change."""
    notes = [f"Parameters: {replacement.added_parameters:+,}."] if replacement.added_parameters else []
    kinds = {
        "New keys": replacement.new_keys,
        "Keys that go": replacement.removed_keys,
        "Keys of another shape": replacement.resized_keys,
    }
    for kind, keys in kinds.items():
        if keys:
            notes.append(f"{kind}: {', '.join(keys[:8])}" + (f" and {len(keys) - 8} more." if len(keys) > 8 else "."))
    return notes or ["The keys of the state dict stay."]
