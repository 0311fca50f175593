"""The record of a surgery in a checkpoint: which layers a callback had replaced in the model that was saved."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_trainingkit.nn.structure.names import plain_names

__all__ = ["SURGERY", "check_surgery", "surgeries_in"]

SURGERY = "replaced_layers"
"""Key in a callback's state: name of each replaced layer to its description."""


def surgeries_in(content: Any) -> dict[str, Mapping[str, str]]:
    """Read the records of a checkpoint: key of each callback that replaced layers, to its replaced layers.

    Args:
        content: The file's content.
    """
    states = content.get("callbacks") if isinstance(content, Mapping) else None
    states = states if isinstance(states, Mapping) else {}
    found = {str(key): state.get(SURGERY) for key, state in states.items() if isinstance(state, Mapping)}
    return {key: saved for key, saved in found.items() if isinstance(saved, Mapping) and saved}


def check_surgery(path: object, content: Any, module: nn.Module) -> None:
    """Raise a ValueError if a checkpoint comes from a model with other layers than the module.

    Weights of replaced activations fit into the old model, too, and would be silently wrong there.

    Args:
        path: The file, for the error.
        content: The file's content.
        module: The module that gets its weights.
    """
    layers = plain_names(dict(module.named_modules(remove_duplicate=False)))
    for key, saved in surgeries_in(content).items():
        for name, text in saved.items():
            if name in layers and str(layers[name]) != text:
                callback = key.partition("{")[0].rpartition(".")[2]
                raise ValueError(
                    f"`module` must have the layers of the model in {path}, where {callback} had made `{name}` {text}, "
                    f"got {layers[name]}. Replace the layers in the same way before you load it, by "
                    "`lightning_trainingkit.nn.replace_activation`, say."
                )
