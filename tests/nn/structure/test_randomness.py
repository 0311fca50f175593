import pytest
import timm
import torchvision
from torch import nn

from lightning_trainingkit.nn.layers.output_dropout import OutputDropout
from lightning_trainingkit.nn.structure.randomness import dropout_rates, layers_that_draw


@pytest.mark.parametrize(
    ("module", "rates"),
    [
        (nn.Dropout(0.0), ["p"]),
        (nn.AlphaDropout(0.1), ["p"]),
        (nn.MultiheadAttention(4, 1), ["dropout"]),
        (nn.LSTM(2, 2, 2), ["dropout"]),
        (nn.LSTM(2, 2, 1), []),
        (nn.Linear(2, 2), []),
        (torchvision.ops.StochasticDepth(0.1, "row"), []),
        (timm.layers.DropPath(0.1), []),
        (timm.layers.DropBlock2d(0.1), []),
        (torchvision.models.densenet121(drop_rate=0.0).features.denseblock1.denselayer1, ["drop_rate"]),
        (timm.create_model("vit_tiny_patch16_224", depth=1), []),  # it keeps a rate that its dropout layers apply
    ],
)
def test_rates_of_dropout_that_a_module_applies(module, rates):
    assert dropout_rates(module) == rates


def test_a_layer_with_noise_in_front_draws_until_the_noise_is_removed():
    layer = nn.Linear(2, 2)
    noise = OutputDropout(layer, 0.1, "DropoutOverride")
    assert layers_that_draw([layer]) == {layer}
    noise.rate = 0.0
    assert not layers_that_draw([layer])
    noise.rate = 0.1
    noise.remove()
    assert not layers_that_draw([layer])
