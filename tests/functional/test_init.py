import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from lightning_trainingkit.functional.gain import ACTIVATIONS, Activation, parse_activation
from lightning_trainingkit.functional.init import InitScheme, fans, init_, parse_scheme

SIZES = st.integers(1, 6)


def drawn(fill, *shape):
    torch.manual_seed(3)
    tensor = torch.empty(*shape)
    fill(tensor)
    return tensor


def signal(depth_scheme, activation, width=512, depth=6, gain=1.0):
    """The lecture's figure in small: standard deviation after each of six layers."""
    torch.manual_seed(0)
    x, stds = torch.randn(16, width), []
    for _ in range(depth):
        weight = init_(torch.empty(width, width), parse_scheme(depth_scheme), gain=gain)
        x = activation(x @ weight.T)
        stds.append(x.std().item())
    return stds


@given(n_in=SIZES, n_out=SIZES, groups=SIZES, kernel=st.lists(st.integers(1, 3), min_size=2, max_size=2))
@settings(max_examples=25, deadline=None)
def test_fan_in_is_what_a_convolution_of_ones_sums(n_in, n_out, groups, kernel):
    conv = nn.Conv2d(n_in * groups, n_out * groups, kernel, groups=groups, bias=False)
    turned = nn.ConvTranspose2d(n_in * groups, n_out * groups, kernel, groups=groups, bias=False)
    for layer in (conv, turned):
        nn.init.ones_(layer.weight)
        x = torch.ones(1, n_in * groups, 7, 7, requires_grad=True)
        y = layer(x)
        (grad,) = torch.autograd.grad(y.sum(), x)
        expected = (int(y[0, 0, 3, 3]), int(grad[0, 0, 3, 3]))  # where no edge cuts the kernel
        assert fans(layer.weight.shape, groups=groups, transposed=layer.transposed) == expected


def test_fans_of_torch_are_swapped_for_transposed_convolutions():
    layer = nn.ConvTranspose2d(8, 32, 3)
    assert fans(layer.weight.shape, transposed=True) == (72, 288)
    assert nn.init._calculate_fan_in_and_fan_out(layer.weight) == (288, 72)


@pytest.mark.parametrize(
    ("scheme", "peer"),
    [
        ("kaiming_normal", lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
        ("kaiming_normal(fan_out)", lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu")),
        ("kaiming_uniform", lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu")),
        ("xavier_normal(fan_avg)", nn.init.xavier_normal_),
        ("xavier_uniform(fan_avg)", nn.init.xavier_uniform_),
        ("orthogonal", lambda w: nn.init.orthogonal_(w, gain=2**0.5)),
        ("normal(0.02)", lambda w: nn.init.normal_(w, std=0.02)),
        ("constant(0.5)", lambda w: nn.init.constant_(w, 0.5)),
        ("zeros", nn.init.zeros_),
    ],
)
@pytest.mark.parametrize("shape", [(20, 30), (12, 4, 3, 3)])
def test_same_numbers_as_torch_where_the_rule_is_the_same(scheme, peer, shape):
    ours = drawn(lambda w: init_(w, parse_scheme(scheme), gain=2**0.5), *shape)
    torch.testing.assert_close(ours, drawn(peer, *shape))


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize(("family", "gain"), [("xavier", 1.0), ("kaiming", 1.7)])
def test_std_of_the_lecture(kind, family, gain):
    weight = drawn(lambda w: init_(w, parse_scheme(f"{family}_{kind}"), gain=1.7), 300, 50, 3, 3)
    assert weight.std().item() == pytest.approx(gain / math.sqrt(3 * 3 * 50), rel=0.01)


@given(n_in=SIZES, n_out=SIZES, groups=st.integers(1, 3), transposed=st.booleans())
@settings(max_examples=25, deadline=None)
def test_orthogonal_keeps_lengths_within_each_group(n_in, n_out, groups, transposed):
    shape = (n_in * groups, n_out, 2, 2) if transposed else (n_out * groups, n_in, 2, 2)
    weight = init_(torch.empty(shape), parse_scheme("orthogonal"), gain=2.0, groups=groups, transposed=transposed)
    for block in weight.chunk(groups):
        matrix = (block.transpose(0, 1) if transposed else block).flatten(1)
        assert matrix.shape == (n_out, 4 * n_in)
        small = matrix @ matrix.T if n_out <= 4 * n_in else matrix.T @ matrix
        torch.testing.assert_close(small, 4 * torch.eye(len(small)), atol=1e-5, rtol=0)


def test_orthogonal_in_half_precision():
    weight = init_(torch.empty(8, 8, dtype=torch.bfloat16), parse_scheme("orthogonal"))
    torch.testing.assert_close((weight @ weight.T).float(), torch.eye(8), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"])
def test_gain_is_that_of_torch_where_it_knows_the_name(name):
    assert parse_activation(name).gain == nn.init.calculate_gain(name)


def test_gain_of_a_slope():
    assert parse_activation("leaky_relu(0.3)").gain == pytest.approx(nn.init.calculate_gain("leaky_relu", 0.3))
    assert parse_activation("prelu").gain == pytest.approx(nn.init.calculate_gain("leaky_relu", 0.25), abs=1e-6)
    assert parse_activation("elu(1e-9)").gain == pytest.approx(2**0.5, abs=1e-6)


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"}))
def test_gain_by_quadrature_agrees_with_sampling(name):
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    activation = parse_activation(name)
    assert activation.gain == pytest.approx(activation.fn(z).square().mean().rsqrt().item(), rel=0.01)


@given(st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_gain_undoes_a_scale(scale):
    assert Activation("scale", lambda z: scale * z).gain == pytest.approx(1 / scale, rel=1e-6)


def test_gain_of_a_function_that_gives_nothing():
    with pytest.raises(ValueError, match="positive finite second moment"):
        _ = Activation("nothing", torch.zeros_like).gain


def test_six_layers_of_the_lecture():
    small, large = signal("normal(0.028)", torch.tanh), signal("normal(0.14)", torch.tanh)  # 0.01 and 0.05 at 4096
    assert small[-1] < 0.2 * small[0]
    assert large[-1] > 0.8
    tanh = signal("xavier_normal", torch.tanh)
    assert tanh[-1] > 0.4 * tanh[0]
    collapsed = signal("xavier_normal", torch.relu)
    assert collapsed[-1] < 0.2 * collapsed[0]
    steady = signal("kaiming_normal", torch.relu, gain=parse_activation("relu").gain)
    assert steady[-1] == pytest.approx(steady[0], rel=0.3)


@pytest.mark.parametrize("name", ["gelu", "silu", "elu", "mish"])
def test_the_gain_holds_the_second_moment_of_the_first_layer(name):
    activation = parse_activation(name)
    torch.manual_seed(0)
    x = activation.gain * functional.normalize(torch.randn(64, 256)) * 16  # rows with a mean square of gain^2
    weight = init_(torch.empty(512, 256), parse_scheme("kaiming_normal"))
    assert activation.fn((x / activation.gain) @ weight.T).square().mean().item() == pytest.approx(
        activation.gain**-2, rel=0.05
    )


def test_scheme_reads_and_writes_the_same_text():
    for text in ("kaiming_normal", "kaiming_uniform(fan_out)", "xavier_normal(fan_avg)", "normal(0.01)", "zeros"):
        assert str(parse_scheme(text)) == text
    assert parse_scheme(" constant( 0 ) ") == InitScheme("constant", value=0.0)


@pytest.mark.parametrize(
    "text",
    [
        *("he", "", "normal", "normal(0)", "normal(-1)", "normal(nan)", "normal(x)", "constant", "constant(inf)"),
        *("kaiming", "kaiming_normal(fan_avg)", "kaiming_normal(fan)", "xavier_normal()", "normal(0.01"),
        *("zeros(1)", "orthogonal(2)"),
    ],
)
def test_scheme_that_is_none(text):
    with pytest.raises(ValueError, match=r"`scheme` must be .*, got "):
        parse_scheme(text)


@pytest.mark.parametrize("text", ["rleu", "", "relu(1)", "gelu(x)", "leaky_relu(0.1", "F.relu"])
def test_activation_that_is_none(text):
    with pytest.raises(ValueError, match=r"`nonlinearity` must be .*gelu.*relu"):
        parse_activation(text)


def test_shapes_without_fans():
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        fans((3,))
    with pytest.raises(ValueError, match="must have inputs and outputs"):
        init_(torch.empty(3, 0), parse_scheme("kaiming_normal"))
