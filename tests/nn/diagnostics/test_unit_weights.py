import torch
from torch import nn

from lightning_trainingkit.nn.diagnostics.unit_weights import unit_weights


def test_layers_whose_rows_are_units():
    net = nn.ModuleDict(
        {
            "embedding": nn.Embedding(9, 4),
            "norm": nn.LayerNorm(4),
            "attention": nn.MultiheadAttention(4, 2),
            "recurrent": nn.LSTM(4, 3),
            "up": nn.ConvTranspose2d(2, 5, 3),
            "conv": nn.Conv2d(2, 5, 3),
        }
    )
    net.register_parameter("position", nn.Parameter(torch.zeros(1, 7, 4)))
    assert unit_weights(net) == [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "recurrent.weight_ih_l0",
        "recurrent.weight_hh_l0",
        "conv.weight",
    ]


def test_names_are_those_of_the_module_without_compile():
    assert unit_weights(torch.compile(nn.Sequential(nn.Linear(2, 2)))) == ["0.weight"]
