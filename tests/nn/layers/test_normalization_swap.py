import pytest
import torch
from torch import nn

from lightning_trainingkit.nn import replace_normalization


def net(bias=True):
    layers = [
        nn.Conv2d(3, 8, 3, bias=bias),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 40, 1, groups=2),
        nn.BatchNorm2d(40),
    ]
    made = nn.Sequential(*layers, nn.Flatten(), nn.Linear(40, 6, bias=bias), nn.BatchNorm1d(6)).eval()
    for norm in made:
        if hasattr(norm, "running_mean"):
            (
                norm.running_mean.normal_(),
                norm.running_var.uniform_(0.5, 2),
                norm.weight.data.normal_(),
                norm.bias.data.normal_(),
            )
    return made


@pytest.mark.parametrize("bias", [True, False])
def test_folding_keeps_the_output_and_undo_every_bit(bias):
    model, x = net(bias), torch.randn(4, 3, 3, 3)
    output, keys = model(x), list(model.state_dict())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    done = replace_normalization(model, "none", fold=True)
    assert torch.allclose(model(x), output, atol=1e-5)
    assert done.new_keys == ([] if bias else ["0.bias", "6.bias"])
    assert "1.running_mean" in done.removed_keys
    assert all(each.requires_grad and each.is_leaf for each in model.parameters())
    done.undo()
    assert list(model.state_dict()) == keys
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(model(x), output)


@pytest.mark.parametrize(("to", "groups"), [("group", [2, 10, 1]), ("layer", [1, 1, 1])])
def test_group_and_layer_keep_scale_and_shift(to, groups):
    model = net()
    weight, x = model[1].weight.clone(), torch.randn(4, 3, 3, 3)
    done = replace_normalization(model, to)
    assert [each.num_groups for each in model if isinstance(each, nn.GroupNorm)] == groups
    assert torch.equal(model[1].weight, weight)
    assert done.added_parameters == 0
    assert done.removed_keys[:3] == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    reference = nn.functional.layer_norm(z := model[0](x), z.shape[1:]) if to == "layer" else None
    if reference is not None:
        scaled = reference * weight[:, None, None] + model[1].bias[:, None, None]
        assert torch.allclose(model[1](z), scaled, atol=1e-5)


def test_a_norm_of_the_wanted_kind_stays():
    model = net()
    norm = model[1]
    assert not replace_normalization(model, "batch").rebuilds
    assert model[1] is norm


def test_layers_that_also_apply_an_activation_keep_it():
    timm = pytest.importorskip("timm")
    model = timm.create_model("regnetx_002", num_classes=3).eval()
    x = torch.randn(1, 3, 32, 32)
    output = model(x)
    done = replace_normalization(model, "none", fold=True)
    assert torch.allclose(model(x), output, rtol=1e-4, atol=1e-4 * output.abs().max().item())
    done.undo()
    replace_normalization(model, "group")
    assert isinstance(model.stem.bn.act, nn.ReLU)


@pytest.mark.parametrize(
    ("model", "to", "fold", "rule"),
    [
        (net(), "batchnorm", False, "`to` must be one of 'batch', 'group', 'layer', 'none'"),
        (net(), {"norm.*": "group"}, False, "which matches none"),
        (net(), "group", True, "`fold` must be False unless"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), "none", True, r"comes from 0 \(ReLU\)"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)),
            "none",
            True,
            "must be a BatchNorm with running statistics",
        ),
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), {"1": "group"}, False, "whose channels come last"),
    ],
)
def test_bad_input(model, to, fold, rule):
    before = str(model)
    with pytest.raises(ValueError, match=rule):
        replace_normalization(model, to, fold=fold)
    assert str(model) == before


def test_a_norm_inside_of_a_compiled_part_is_folded():
    part, x = net(), torch.randn(4, 3, 3, 3)
    model = nn.Sequential(torch.compile(part, backend="eager"))
    before = part(x)
    replace_normalization(model, "none", fold=True)
    assert isinstance(part[1], nn.Identity)
    assert torch.allclose(part(x), before, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_norms_in_torchscript_and_layers_with_hooks_are_refused():
    model = net()
    model[1] = torch.jit.script(model[1])
    with pytest.raises(TypeError, match="`1` must be a module in Python"):
        replace_normalization(model, "group")
    model = net()
    nn.utils.prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(ValueError, match="`0` must have no hooks for replace_normalization"):
        replace_normalization(model, "none", fold=True)


@pytest.mark.parametrize(
    ("norm", "groups"), [(nn.BatchNorm2d(8), 2), (nn.BatchNorm2d(2), 1), (nn.BatchNorm2d(256), 32)]
)
def test_groups_have_at_least_four_channels_where_there_are_as_many(norm, groups):
    model = nn.Sequential(norm)
    replace_normalization(model, "group")
    assert model[0].num_groups == groups


def test_a_group_norm_behind_a_linear_layer_tells_examples_apart():
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8))
    replace_normalization(model, "group")
    y = model(torch.randn(3, 5))
    assert not torch.allclose(y[0], y[1], atol=0.1)
