import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_trainingkit.functional.gradient_statistics import combine
from lightning_trainingkit.nn.diagnostics.gradient_statistics import GradientRecorder

X = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 4


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 10, 3), nn.ReLU(), nn.Flatten(), nn.Linear(160, 4))


def slow(gradient, before, after):
    """The statistics of one parameter and one step, by loops."""
    g, w, u = ([float(x) for x in each.flatten()] for each in (gradient, before, after - before))

    def length(numbers):
        return math.sqrt(math.fsum(x * x for x in numbers))

    units = [[float(x) for x in row.flatten()] for row in gradient]
    means = [abs(sum((x > 0) - (x < 0) for x in row) / len(row)) for row in units]
    return {
        "gradient_norm": length(g),
        "weight_norm": length(w),
        "update_norm": length(u),
        "update_ratio": length(u) / length(w),
        "zeros": sum(x == 0 for x in g) / len(g),
        "sign_agreement": sum(means) / len(means) if gradient.dim() > 1 else None,
        "descent": -math.fsum(a * b for a, b in zip(u, g, strict=True)) / (length(u) * length(g)),
    }


def assert_equal(summary, expected, rel=2e-4):
    found = {name: getattr(summary, name) for name in expected}
    assert found == {
        name: value if value is None else pytest.approx(value, rel=rel) for name, value in expected.items()
    }


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    "adamw, foreach": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, foreach=True),
    "adamw, fused": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, fused=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_is_as_a_loop_finds_it(optimizer, memory_format):
    net = small_net().to(memory_format=memory_format)
    step = OPTIMIZERS[optimizer](net.parameters())
    recorder = GradientRecorder(dict(net.named_parameters()))
    for _ in range(2):
        recorder.reset()
        step.zero_grad()
        cross_entropy(net(X), Y).backward()
        before = {name: value.detach().clone() for name, value in net.named_parameters()}
        gradients = {name: value.grad.clone() for name, value in net.named_parameters()}
        recorder.record_gradients()
        step.step()
        recorder.record_update()
    for name, summary in recorder.summaries().items():
        assert_equal(summary, slow(gradients[name], before[name], net.get_parameter(name).detach()))
        assert summary.finite


def test_a_window_of_steps_has_root_mean_square_norms_and_mean_shares():
    net, expected = small_net(), []
    recorder = GradientRecorder(dict(net.named_parameters()))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for number in range(3):
        optimizer.zero_grad()
        cross_entropy(net(X * (number + 1)), Y).backward()
        recorder.record_gradients()
        before, gradient = net[3].weight.detach().clone(), net[3].weight.grad.clone()
        optimizer.step()
        recorder.record_update()
        expected.append(slow(gradient, before, net[3].weight.detach()))
    found = recorder.summaries()["3.weight"]
    assert found.steps == 3
    for name in ("gradient_norm", "weight_norm", "update_norm"):
        assert getattr(found, name) == pytest.approx(math.sqrt(sum(each[name] ** 2 for each in expected) / 3), rel=1e-4)
    for name in ("zeros", "sign_agreement", "descent"):
        assert getattr(found, name) == pytest.approx(sum(each[name] for each in expected) / 3, rel=1e-4)
    assert recorder.summaries()["3.weight"] == found  # reading changes nothing
    recorder.reset()
    assert recorder.summaries()["3.weight"].steps == 0


def test_clipping_changes_the_clipped_norm_alone():
    net = small_net()
    recorder = GradientRecorder(dict(net.named_parameters()))
    cross_entropy(net(10 * X), Y).backward()
    whole = math.sqrt(sum(float(each.grad.square().sum()) for each in net.parameters()))
    recorder.record_gradients()
    nn.utils.clip_grad_norm_(net.parameters(), whole / 4)
    recorder.record_gradients(clipped=True)
    found = combine(recorder.summaries().values())
    assert found.gradient_norm == pytest.approx(whole, rel=1e-5)
    assert found.clipped_norm == pytest.approx(whole / 4, rel=1e-4)
    assert found.update_ratio is None


def test_inputs_of_one_sign_give_each_unit_gradients_of_one_sign():
    """The lecture's zig-zag: the gradient of a unit's weights has the sign of the unit's error times the inputs."""
    torch.manual_seed(0)
    agreement = {}
    for name, x in {"positive": torch.rand(1, 50), "centred": torch.randn(1, 50)}.items():
        layer = nn.Linear(50, 8)
        recorder = GradientRecorder(dict(layer.named_parameters()))
        layer(x).square().sum().backward()
        recorder.record_gradients()
        agreement[name] = recorder.summaries()["weight"].sign_agreement
    assert agreement["positive"] == 1
    assert agreement["centred"] < 0.3


def test_a_sample_of_a_large_weight_is_near_the_whole():
    torch.manual_seed(0)
    net = nn.Linear(512, 1024)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recorders = {size: GradientRecorder(dict(net.named_parameters()), sample=size) for size in (10**4, 10**7)}
    net(torch.randn(64, 512)).relu().square().mean().backward()
    for recorder in recorders.values():
        recorder.record_gradients()
    optimizer.step()
    for recorder in recorders.values():
        recorder.record_update()
    sampled, whole = (recorder.summaries()["weight"] for recorder in recorders.values())
    assert sampled.gradient_norm == whole.gradient_norm
    for name in ("weight_norm", "update_norm", "update_ratio", "descent"):
        assert getattr(sampled, name) == pytest.approx(getattr(whole, name), rel=0.1)
    assert sampled.update_norm != whole.update_norm


def test_parameters_without_a_gradient_and_shared_parameters():
    net = small_net()
    net[0].requires_grad_(False)
    named = {**dict(net.named_parameters()), "tied": net[3].weight}
    recorder = GradientRecorder(named)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        cross_entropy(net(X), Y).backward()
        recorder.record_gradients()
        optimizer.step()
        recorder.record_update()

    step()
    assert {name: each.steps for name, each in recorder.summaries().items()} == {
        "0.weight": 0,
        "0.bias": 0,
        "3.weight": 1,
        "3.bias": 1,
    }
    frozen = recorder.summaries()["0.weight"]
    assert math.isnan(frozen.gradient_norm)
    assert frozen.finite
    net[0].requires_grad_(True)  # unfrozen in the middle of the training
    step()
    found = recorder.summaries()
    assert (found["0.weight"].steps, found["3.weight"].steps) == (1, 2)
    assert found["0.weight"].gradient_norm == pytest.approx(net[0].weight.grad.norm().item(), rel=1e-5)


def test_a_step_without_any_gradient():
    net = small_net()
    recorder = GradientRecorder(dict(net.named_parameters()))
    recorder.record_gradients()
    recorder.record_update()
    assert all(each.steps == 0 and each.update_ratio is None for each in recorder.summaries().values())


def test_bad_gradients_are_not_finite_and_a_discarded_step_is_forgotten():
    net = nn.Linear(3, 2)
    recorder = GradientRecorder(dict(net.named_parameters()))
    net(torch.ones(1, 3)).sum().backward()
    recorder.record_gradients()
    recorder.record_update()
    net.weight.grad[0, 0] = math.inf
    recorder.record_gradients()
    recorder.discard()
    assert recorder.summaries()["weight"].finite
    recorder.record_gradients()
    found = recorder.summaries()
    assert not found["weight"].finite
    assert found["bias"].finite


def test_an_update_without_gradients_is_an_error():
    recorder = GradientRecorder(dict(nn.Linear(3, 2).named_parameters()))
    with pytest.raises(RuntimeError, match="must follow `record_gradients`"):
        recorder.record_update()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64, torch.complex64])
def test_other_kinds_of_numbers(kind):
    weight = nn.Parameter(torch.linspace(1, 2, 6).reshape(2, 3).to(kind))
    recorder = GradientRecorder({"weight": weight})
    weight.grad = torch.full((2, 3), 3.0).to(kind) * (1 + 1j if kind.is_complex else 1)
    before = torch.linalg.vector_norm(weight.detach()).real.item()
    recorder.record_gradients()
    torch.optim.SGD([weight], lr=0.5).step()
    recorder.record_update()
    found = recorder.summaries()["weight"]
    length = 3 * math.sqrt(12 if kind.is_complex else 6)
    assert found.gradient_norm == pytest.approx(length, rel=1e-5)
    assert found.update_norm == pytest.approx(length / 2, rel=1e-2)
    assert found.weight_norm == pytest.approx(before, rel=1e-2)
    assert found.descent == pytest.approx(1, rel=1e-3)


def test_a_sparse_gradient_counts_its_missing_rows_as_zeros():
    layer = nn.Embedding(10, 4, sparse=True)
    recorder = GradientRecorder(dict(layer.named_parameters()), units=[])
    layer(torch.tensor([1, 1, 2])).sum().backward()
    recorder.record_gradients()
    torch.optim.SparseAdam(layer.parameters(), lr=0.1).step()
    recorder.record_update()
    found = recorder.summaries()["weight"]
    assert found.gradient_norm == pytest.approx(math.sqrt(4 * (2**2 + 1)))
    assert found.zeros == pytest.approx(0.8)
    assert found.sign_agreement is None
    assert found.update_norm == pytest.approx(0.1 * math.sqrt(8), rel=1e-4)


def test_gradients_that_still_hold_a_scale():
    net = nn.Linear(3, 2)
    (net(torch.ones(1, 3)).sum() * 1024).backward()
    recorder = GradientRecorder(dict(net.named_parameters()))
    recorder.record_gradients(scale=1024.0)
    assert recorder.summaries()["weight"].gradient_norm == pytest.approx(math.sqrt(6))


def test_refused_parameters():
    with pytest.raises(ValueError, match="must hold a parameter with elements, got none"):
        GradientRecorder({"empty": nn.Parameter(torch.ones(0, 3))})
    with pytest.raises(ValueError, match="must have a shape, got the lazy parameter 'weight'"):
        GradientRecorder(dict(nn.LazyLinear(3).named_parameters()))
    with pytest.raises(ValueError, match="`sample` must be at least 1, got 0"):
        GradientRecorder(dict(nn.Linear(3, 2).named_parameters()), sample=0)


def test_gradients_and_parameters_are_sampled_at_the_same_elements():
    """A step of SGD goes down the gradient exactly, in whatever order the memory holds the weight."""
    torch.manual_seed(0)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(torch.randn(64, 5, 3, 3).to(memory_format=memory_format))
        weight.grad = torch.randn(64, 5, 3, 3)  # of another order than a channels-last weight
        recorder = GradientRecorder({"weight": weight}, sample=500)
        recorder.record_gradients()
        torch.optim.SGD([weight], lr=0.1).step()
        recorder.record_update()
        found = recorder.summaries()["weight"]
        assert found.descent == pytest.approx(1, rel=1e-4)
        assert found.update_norm == pytest.approx(0.1 * found.gradient_norm, rel=0.1)


def test_parameters_of_several_types_and_sizes_together():
    kinds = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
    named = {name: nn.Parameter(torch.full((2, 2), 2.0, dtype=kind)) for name, kind in kinds.items()}
    named |= {"number": nn.Parameter(torch.tensor(4.0)), "empty": nn.Parameter(torch.ones(0, 3))}
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    recorder = GradientRecorder(named)
    recorder.record_gradients()
    torch.optim.SGD(named.values(), lr=0.5).step()
    recorder.record_update()
    found = recorder.summaries()
    assert {name: (each.gradient_norm, each.weight_norm, each.update_norm) for name, each in found.items()} == {
        **dict.fromkeys(kinds, (2.0, 4.0, 1.0)),
        "number": (1.0, 4.0, 0.5),
    }
    assert combine(found.values()).finite
