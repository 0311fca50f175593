"""The record of a surgery in a checkpoint: which layers a callback had replaced in the model that was saved."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_trainingkit.nn.structure.names import plain_names

__all__ = ["SURGERY", "check_surgery"]

SURGERY = "replaced_layers"
"""Key in a callback's state: name of each replaced layer to its description."""


def check_surgery(path: object, content: Any, module: nn.Module) -> None:
    """Raise a ValueError if a checkpoint comes from a model with other layers than the module.

    Weights of replaced activations fit into the old model, too, and would be silently wrong there.

    Args:
        path: The file, for the error.
        content: The file's content.
        module: The module that gets its weights.
    """
    states = content.get("callbacks") if isinstance(content, Mapping) else None
    layers = plain_names(dict(module.named_modules(remove_duplicate=False)))
    for key, state in states.items() if isinstance(states, Mapping) else ():
        saved = state.get(SURGERY) if isinstance(state, Mapping) else None
        for name, text in saved.items() if isinstance(saved, Mapping) else ():
            if name in layers and str(layers[name]) != text:
                callback = str(key).partition("{")[0].rpartition(".")[2]
                raise ValueError(
                    f"`module` must have the layers of the model in {path}, where {callback} had made `{name}` {text}, "
                    f"got {layers[name]}. Replace the layers in the same way before you load it, by "
                    "`lightning_trainingkit.nn.replace_activation`, say."
                )
