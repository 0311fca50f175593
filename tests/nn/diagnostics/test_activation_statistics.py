"""What ActivationRecorder says, against numpy on outputs that a plain hook collects."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from lightning_trainingkit.nn import ActivationRecorder


def record(net, *inputs, patterns=None, **options):
    recorder = ActivationRecorder(net, patterns, **options)
    recorder.attach()
    recorder.recording = True
    for x in inputs:
        net(x)
    recorder.remove()
    return recorder


def outputs(net, name, *inputs):
    """What a layer puts out, float64."""
    found = []
    handle = net.get_submodule(name).register_forward_hook(
        lambda layer, args, y: found.append(y.detach().double().numpy())
    )
    for x in inputs:
        net(x)
    handle.remove()
    return np.concatenate(found)


def conv_net(activation=nn.ReLU):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), activation(), nn.Flatten(), nn.Linear(6 * 16, 5), nn.Sigmoid())
    with torch.no_grad():
        net[0].bias[:2] = -100  # two units of ReLU are dead
        net[3].weight.mul_(20)  # the sigmoid saturates
    return net


BATCHES = [torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(n)) for n in (32, 32, 7)]


@pytest.mark.parametrize("name", ["1", "4"])
def test_statistics_of_a_window_are_those_of_all_outputs(name):
    net = conv_net()
    summary = record(net, *BATCHES, sample=10**4).summaries()[name]
    y = outputs(net, name, *BATCHES)
    assert (summary.calls, summary.images, summary.finite) == (3, 71, True)
    flat = y.reshape(len(y), -1)
    expected = {
        "mean": y.mean(),
        "std": y.std(),
        "min": y.min(),
        "max": y.max(),
        "positive": (y > 0).mean(),
        "dead": (y == 0).all((0, 2, 3)).mean() if y.ndim == 4 else 0,
        "between_images": np.sqrt((flat.std(0) ** 2).mean()),
    }
    assert {key: getattr(summary, key) for key in expected} == pytest.approx(expected, rel=1e-5)
    if name == "1":
        assert summary.saturated is None
        assert summary.dead == pytest.approx(1 / 3)
    else:
        assert summary.saturated == pytest.approx((y * (1 - y) < 0.0125).mean())
        assert 0.2 < summary.saturated < 1
    assert sum(summary.counts) == y.size
    assert (summary.edges[0], summary.edges[-1]) == (y.min(), y.max())


def test_large_outputs_are_sampled_evenly_without_a_random_number():
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
    x = torch.randn(128, 3, 32, 32)
    state = torch.get_rng_state()
    summary = record(net, x).summaries()["1"]
    assert torch.equal(state, torch.get_rng_state())
    y = outputs(net, "1", x)
    assert sum(summary.counts) == 4096
    assert summary.positive == pytest.approx((y > 0).mean(), abs=0.04)
    assert summary.between_images == pytest.approx(np.sqrt((y.std(0) ** 2).mean()), rel=0.1)
    assert record(net, x).summaries()["1"] == summary


@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 1e-4), (torch.float16, 1e-4), (torch.float64, 1e-9)])
def test_any_float_is_summed_in_at_least_float32(dtype, close):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh()).to(dtype)
    x = torch.randn(64, 3, 20, 20).to(dtype)
    summary, y = record(net, x).summaries()["1"], outputs(net, "1", x)
    assert (summary.mean, summary.std) == pytest.approx((y.mean(), y.std()), rel=close)


def test_a_spread_far_below_the_mean_is_not_lost():
    net = nn.Sequential(nn.Linear(8, 64), nn.Softplus())
    nn.init.constant_(net[0].bias, 1e5)
    x = torch.randn(64, 8)
    assert record(net, x).summaries()["1"].std == pytest.approx(outputs(net, "1", x).std(), rel=0.02)


@pytest.mark.parametrize(("value", "low"), [(float("nan"), None), (float("inf"), 0)])
def test_values_that_are_not_finite_are_said(value, low):
    x = torch.rand(4, 3)
    x[1, 2] = value
    summary = record(nn.Sequential(nn.ReLU()), x, x).summaries()["0"]
    assert not summary.finite
    assert sum(summary.counts) == (24 if low == 0 else 22)
    assert len(summary.edges) == 65
    assert np.isfinite(summary.edges).all()


def test_squares_that_overflow_leave_the_spread_finite():
    summary = record(nn.Sequential(nn.ReLU()), torch.rand(8, 4) * 1e30).summaries()["0"]
    assert summary.finite
    assert summary.std > 1e28


def test_a_dead_unit_is_zero_on_every_image_of_the_window():
    net = nn.Sequential(nn.ReLU())
    left, right = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 0]])
    recorder = record(net, left, right, windows=2)
    assert recorder.summaries()["0"].dead == pytest.approx(1 / 3)
    recorder.attach()
    shares = []
    for _ in range(3):
        recorder.reset()
        net(left)
        shares.append(recorder.summaries()["0"].dead)
    assert shares == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_a_histogram_has_the_range_of_the_window_before():
    net, x = nn.Sequential(nn.Tanh()), torch.linspace(-1, 1, 64)[:, None]
    recorder = record(net, x / 9, x, bins=4)
    recorder.attach()
    recorder.reset()
    net(10 * x)
    summary = recorder.summaries()["0"]
    tanh1 = np.tanh(1)
    assert summary.edges == pytest.approx([-np.tanh(10), -tanh1 / 2, 0, tanh1 / 2, np.tanh(10)])
    y = np.tanh(10 * x.double().numpy())
    assert summary.counts == np.histogram(y, summary.edges)[0].tolist()


class SharedReLU(nn.Module):
    """One ReLU behind two layers. The units of the first are dead, those of the second alive."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(3, 4), nn.Linear(4, width), nn.ReLU()
        nn.init.constant_(self.first.bias, -100)
        nn.init.constant_(self.second.bias, 1)

    def forward(self, x):
        return self.relu(self.second(self.relu(self.first(x))))


@pytest.mark.parametrize("width", [4, 12])
def test_calls_of_a_shared_layer_have_units_of_their_own(width):
    net = nn.ModuleDict({"block": SharedReLU(width)})
    net.forward = net["block"].__call__
    summary = record(net, torch.randn(5, 3), torch.randn(5, 3)).summaries()["block.relu"]
    assert (summary.calls, summary.images, summary.dead) == (4, 20, 4 / (4 + width))


def test_a_call_outside_of_the_parent_counts_as_the_first_one():
    net = SharedReLU(4)
    recorder = ActivationRecorder(net)
    recorder.attach()
    recorder.recording = True
    net(torch.randn(5, 3))
    net.relu(torch.ones(1, 4))  # keeps the units of the first call alive
    assert recorder.summaries()["relu"].dead == 0


class Layouts(nn.Module):
    def __init__(self):
        super().__init__()
        self.sequence = nn.Linear(3, 4)
        self.relu = nn.ReLU()
        self.rnn = nn.LSTM(4, 5)
        self.unused = nn.Linear(1, 1)

    def forward(self, x):  # (N, T, 3)
        y = self.relu(self.sequence(x))
        return self.rnn(y.transpose(0, 1))  # a tuple, (T, N, 5) first


def test_units_and_images_of_sequences():
    net = Layouts()
    nn.init.constant_(net.sequence.bias, 0)
    nn.init.constant_(net.sequence.weight[0], 0)
    summaries = record(net, torch.randn(6, 7, 3), patterns=["sequence", "relu", "rnn", "unused"]).summaries()
    assert summaries.keys() == {"sequence", "relu", "rnn"}  # the caller knows what was never called
    assert [each.images for each in summaries.values()] == [6, 6, 6]
    assert summaries["relu"].dead == 1 / 4
    y, _ = net(torch.randn(6, 7, 3))
    assert y.shape == (7, 6, 5)


def test_transformer_with_the_sequence_first():
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False)
    summaries = record(net, torch.randn(5, 3, 8)).summaries()
    assert {name: each.images for name, each in summaries.items()} == {"layers.0.linear1": 3, "layers.1.linear1": 3}
    assert all(each.min == 0 for each in summaries.values())  # after its relu


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


@pytest.mark.parametrize(
    ("value", "images"),
    [
        ((torch.ones(2, dtype=torch.uint8), {"y": torch.ones(3, 2)}), 3),
        (torch.ones(5), 5),
        (torch.tensor(1.0), 1),
        (torch.ones(2, 2, dtype=torch.long), None),
        (torch.ones(0, 2), None),
        (None, None),
        (torch.ones(2, 2, device="meta"), None),
    ],
)
def test_the_first_floating_tensor_counts(value, images):
    summaries = record(nn.Sequential(Returns(value)), None, patterns="0").summaries()
    assert {name: each.images for name, each in summaries.items()} == ({} if images is None else {"0": images})


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc, self.last = (
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.Linear(4, 3),
            nn.Linear(3, 2),
        )

    def forward(self, x):
        self.first = F.relu(self.norm(self.conv(x)), inplace=True)
        self.second = torch.tanh(self.fc(self.first.mean((2, 3))))
        return self.last(self.second)


def test_activation_functions_are_applied_to_the_layer_before_them():
    net, x = Functional(), torch.randn(8, 1, 6, 6)
    summaries = record(net, x).summaries()
    assert summaries.keys() == {"norm", "fc"}
    for name, y in (("norm", net.first), ("fc", net.second)):
        assert (summaries[name].mean, summaries[name].max) == pytest.approx((y.mean().item(), y.max().item()), rel=1e-5)
    assert summaries["fc"].saturated is not None


def test_without_activations_linear_and_convolutional_layers_count():
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(12, 3))
    assert ActivationRecorder(net).layers == ["0", "3"]
    assert record(net, torch.randn(3, 2, 5)).summaries()["0"].images == 3


def test_lazy_layers_have_buffers_from_their_first_call():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2), nn.Sigmoid())
    summaries = record(net, torch.randn(3, 1, 5, 5), patterns="*").summaries()
    assert summaries.keys() == {"0", "1", "2", "3", "4"}


def test_images_of_other_sizes():
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU())
    sizes = [(2, 1, 4, 4), (5, 1, 9, 3), (1, 1, 50, 50)]
    xs = [torch.randn(size) for size in sizes]
    summary = record(net, *xs).summaries()["1"]
    everything = np.concatenate([outputs(net, "1", x).ravel() for x in xs])
    assert (summary.images, summary.mean, summary.std) == pytest.approx(
        (8, everything.mean(), everything.std()), rel=1e-5
    )


def test_the_backward_pass_of_activation_checkpointing_is_not_counted():
    inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU())
    recorder = ActivationRecorder(inner)
    recorder.attach()
    recorder.recording = True
    checkpoint(inner, torch.randn(4, 3, requires_grad=True), use_reentrant=False).sum().backward()
    assert recorder.summaries()["1"].calls == 1


class NoSync(TorchDispatchMode):
    """Fails where a value leaves the device: on a GPU, the host would wait there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._schema.name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"), func
        return func(*args, **kwargs or {})


def test_recording_never_waits_for_the_device():
    recorder = record(net := conv_net(), *BATCHES)
    recorder.attach()
    with NoSync():
        recorder.reset()
        for x in BATCHES:
            net(x)
    assert recorder.summaries()["1"].calls == 3


@pytest.mark.gpu
def test_on_a_gpu_only_the_summary_waits():
    net, x = conv_net().cuda(), BATCHES[0].cuda()
    recorder = record(net, x)
    recorder.attach()
    recorder.reset()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            net(x)
        recorder.reset()
        net(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found, expected = recorder.summaries()["1"], record(net.cpu(), x.cpu()).summaries()["1"]
    assert (found.mean, found.std, found.dead) == pytest.approx((expected.mean, expected.std, expected.dead), rel=1e-3)


def test_the_model_has_its_hooks_back_and_a_copy_does_not_record():
    net = conv_net()
    recorder = ActivationRecorder(net)
    recorder.attach()
    recorder.attach()
    recorder.recording = True
    copy.deepcopy(net)[0](BATCHES[0])
    net[:2](BATCHES[0])
    assert recorder.summaries()["1"].calls == 1
    recorder.remove()
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in net.modules())


@pytest.mark.parametrize(
    ("patterns", "options", "error", "text"),
    [
        ("net.relu", {}, ValueError, r"must match a layer, got 'net.relu', which matches none. Nearest names: .*\b1\b"),
        ("", {}, ValueError, "at least one pattern and no empty one, got"),
        ([], {}, ValueError, "at least one pattern and no empty one, got"),
        ([3], {}, TypeError, "must hold names or patterns, got 3"),
        (None, {"bins": 0}, ValueError, "`bins` must be at least 1, got 0"),
        (None, {"sample": 0}, ValueError, "`sample` must be at least 1, got 0"),
        (None, {"windows": 0}, ValueError, "`windows` must be at least 1, got 0"),
    ],
)
def test_bad_input(patterns, options, error, text):
    with pytest.raises(error, match=text):
        ActivationRecorder(conv_net(), patterns, **options)


def test_a_model_without_layers_names_its_submodules():
    with pytest.raises(ValueError, match=r"has no activation, linear or convolutional layer.*Submodules: 0"):
        ActivationRecorder(nn.Sequential(nn.Flatten()))


def test_quantised_layers_are_refused():
    net = nn.Sequential(nn.Linear(2, 2), torch.ao.nn.quantized.ReLU6())
    with pytest.raises(TypeError, match="got '1', a quantised ReLU6"):
        ActivationRecorder(net, "*")


def test_a_compiled_part_without_a_length():
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    compiled = torch.compile(Outer(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), backend="eager")
    assert ActivationRecorder(Outer(compiled)).layers == ["inner.inner.1"]


class OneReluForAll(nn.Module):
    """Its ReLU is registered last, and follows a convolution and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.relu = nn.Conv2d(3, 10, 3, padding=1), nn.Linear(640, 6), nn.ReLU()
        nn.init.constant_(self.conv.bias[:5], -100)

    def forward(self, x):
        return self.relu(self.fc(self.relu(self.conv(x)).flatten(1)))


def test_one_relu_after_all_layers_counts_the_channels_of_convolutions():
    torch.manual_seed(0)
    net = OneReluForAll()
    nn.init.ones_(net.fc.bias)
    recorder = ActivationRecorder(net)
    recorder.attach()
    recorder.recording = True
    net(torch.randn(64, 3, 8, 8))
    assert recorder.summaries()["relu"].dead == pytest.approx(5 / 16)  # of 10 channels and 6 features


def test_attention_has_the_images_second():
    net = nn.MultiheadAttention(8, 2)
    recorder = ActivationRecorder(nn.Sequential(net), "0")
    recorder.attach()
    recorder.recording = True
    x = torch.randn(5, 16, 8)
    net(x, x, x)
    assert recorder.summaries()["0"].images == 16
