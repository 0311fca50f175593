"""Find the weights whose rows are the incoming weights of units."""

from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from lightning_trainingkit.nn.structure.names import join, plain_name

__all__ = ["unit_weights"]

_OTHER_ROWS = (nn.Embedding, nn.EmbeddingBag, _ConvTransposeNd)


def unit_weights(module: nn.Module) -> list[str]:
    """Names of the weights of shape ``(units, ...)``: linear, convolutional, recurrent and attention layers.

    Embeddings (a row is a word) and transposed convolutions (the units are the second dimension) are left out.

    Example:
        >>> unit_weights(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2), nn.BatchNorm1d(2)))
        ['1.weight']
    """
    return [
        plain_name(join(prefix, name))
        for prefix, layer in module.named_modules(remove_duplicate=False)
        if not isinstance(layer, _OTHER_ROWS)
        for name, parameter in layer.named_parameters(recurse=False)
        if "weight" in name and parameter.dim() > 1
    ]
