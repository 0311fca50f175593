"""All members as one forward: what the loop gives, up to rounding, or an error that says why not."""

import copy

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.averaging.averaged import Averaged, Views
from lightning_trainingkit.nn.averaging.members import Members
from lightning_trainingkit.nn.averaging.random_masks import RandomMasks
from tests.nn.averaging.test_member_weights import Draws
from tests.nn.nets import Recurrent, Tied, explicit, found, images, other, parametrised, seeded, small


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.layer(x[:, 0]).mean(1))


def given(nets, as_modules):
    return copy.deepcopy(nets) if as_modules else [net.state_dict() for net in nets]


@pytest.mark.parametrize("as_modules", [False, True])
@pytest.mark.parametrize("make", [small, Tied, parametrised, Transformer])
@pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented:UserWarning")
def test_one_forward_gives_what_the_loop_gives(make, as_modules):
    nets, module, weights = [seeded(make, seed) for seed in range(4)], seeded(make, 9), [0.4, 0.3, 0.0, 0.3]
    members = given(nets, as_modules)
    before = [found(each) for each in (module, *(members if as_modules else nets))]
    average = Averaged(module, Members(members, weights=weights, vectorize=True))
    for size in (6, 2, 6, 1):
        with torch.inference_mode():
            x = images(size, seed=size)
            assert torch.allclose(average(x).exp(), explicit(nets, x, weights), atol=1e-6, rtol=0)
    assert [found(each) for each in (module, *(members if as_modules else nets))] == before
    assert average.passes_per_sample == 3


@pytest.mark.parametrize("options", [{}, {"vectorize": True}, {"offload": True}])
@pytest.mark.parametrize("as_modules", [False, True])
def test_three_runs_over_batches_of_changing_sizes_are_equal_to_the_last_bit(options, as_modules):
    nets = [seeded(small, seed) for seed in range(3)]
    runs = []
    for _ in range(3):
        average = Averaged(seeded(small, 9), Members(given(nets, as_modules), **options))
        runs.append(torch.cat([average(images(size, seed=size)) for size in (6, 3, 300, 6, 1, 300, 6)]))
        runs.append(torch.cat([average(images(size, seed=size)) for size in (6, 3, 300, 6, 1, 300, 6)]))
    assert all(torch.equal(run, runs[0]) for run in runs)


def test_one_forward_times_views_and_pass_by_pass():
    nets, x = [seeded(small, seed) for seed in range(3)], images()
    source = Members([net.state_dict() for net in nets], vectorize=True)
    average = Averaged(seeded(small, 9), [source, Views("flip")])
    expected = (explicit(nets, x) + explicit(nets, x.flip(-1))) / 2
    for _ in range(2):
        assert torch.allclose(average(x).exp(), expected, atol=1e-6, rtol=0)
    loop = [net(view).log_softmax(1) for net in nets for view in (x, x.flip(-1))]
    assert torch.equal(average.each_pass(x), torch.stack(loop))


def test_members_run_once_for_the_comparison_and_never_one_by_one_after_it():
    nets, calls = [seeded(Counted, seed) for seed in range(4)], Counted.calls
    average, x = Averaged(seeded(small, 9), Members(nets, vectorize=True)), images()
    counts = []
    for _ in range(3):
        average(x)
        counts.append(len(calls))
    assert counts == [5, 6, 7]


class Counted(nn.Sequential):
    calls = []  # noqa: RUF012

    def __init__(self):
        super().__init__(*small())

    def forward(self, x):
        self.calls.append(len(x))
        return super().forward(x)


class Asks(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)) if self.weight.sum().item() < 1e9 else x


class Chooses(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)) if self.weight.sum() < 1e9 else x


class Aliased(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.held = [self.weight]

    def forward(self, x):
        return x.flatten(1) @ self.held[0].T + self.bias


class NotANumber(nn.Linear):
    """NaN where all members run together."""

    def forward(self, x):
        out = super().forward(x.flatten(1))
        return out / 0 * 0 if torch._C._functorch.is_batchedtensor(out) else out


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Asks(64, 3), r"torch.vmap can't run their forward \(RuntimeError: .*\.item\(\)"),
        (lambda: Chooses(64, 3), "torch.vmap can't run their forward .*data-dependent control flow"),
        (Draws, "torch.vmap can't run their forward .*random"),
        (lambda: Aliased(64, 3), "one forward gives other probabilities on the first batch"),
        (Recurrent, r"torch.vmap can't run their forward \(RuntimeError: Batching rule not implemented for aten::lstm"),
        (lambda: NotANumber(64, 3), "one forward gives other probabilities on the first batch"),
        (lambda: nn.Sequential(nn.Flatten(), KeepsAll()), "their forward sets attributes"),
    ],
)
@pytest.mark.parametrize("as_modules", [False, True])
def test_members_that_can_not_run_as_one_forward_are_an_error(make, text, as_modules):
    nets, module = [seeded(make, seed) for seed in range(3)], seeded(make, 9)
    before = found(module)
    average = Averaged(module, Members(given(nets, as_modules), vectorize=True))
    for _ in range(2):  # the second batch is no way round
        with pytest.raises(ValueError, match=r"`vectorize` must be False for these members, got True: .*" + text):
            average(images())
    assert found(module) == before


class KeepsAll(nn.Linear):
    def __init__(self):
        super().__init__(64, 3)

    def forward(self, x):
        self.features = super().forward(x)
        return self.features


def test_a_refusal_leaves_no_tensor_of_all_members_behind():
    module = seeded(KeepsAll, 9)
    average = Averaged(module, Members([seeded(KeepsAll, seed).state_dict() for seed in range(3)], vectorize=True))
    with pytest.raises(ValueError, match="sets attributes"):
        average(images().flatten(1))
    assert module.features.shape == (6, 3)


@pytest.mark.parametrize("as_modules", [False, True])
def test_hooks_are_an_error_since_they_would_see_all_members_at_once(as_modules):
    nets, module, seen = [seeded(small, seed) for seed in range(2)], seeded(small, 9), []
    (nets[0] if as_modules else module)[0].register_forward_hook(lambda _, __, out: seen.append(out.shape))
    members = nets if as_modules else [net.state_dict() for net in nets]
    with pytest.raises(ValueError, match="a part of the module has forward hooks"):
        Averaged(module, Members(members, vectorize=True))(images())
    assert set(seen) == {(6, 4, 6, 6)}  # of the loop


def test_a_hook_that_comes_later_is_an_error_too():
    module = seeded(small, 9)
    average = Averaged(module, Members([seeded(small, seed).state_dict() for seed in range(2)], vectorize=True))
    average(images())
    module[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="a part of the module has forward hooks"):
        average(images())


def test_other_architectures_are_an_error():
    text = r"`vectorize` must be False for these members, got True: "
    for one, reason in ((other, "several architectures"), (lambda: small()[:-1].append(nn.Linear(144, 3, False)), "")):
        nets = [seeded(small, 0), seeded(one, 1)]
        with pytest.raises(ValueError, match=text + ".*" + (reason or "differ in names or shapes")):
            Averaged(small(), Members(nets, vectorize=True))(images())
    with pytest.raises(ValueError, match=r"some members are weights of the target and others are modules of their own"):
        Members([small(), small().state_dict()], vectorize=True)
    Members([small(), small().state_dict(), small()], weights=[0.5, 0.0, 0.5], vectorize=True)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"early_exit": True}, "early_exit"), ({"max_batch": 4}, "max_batch"), ({}, "random masks")],
)
def test_what_needs_members_one_by_one_is_refused(options, text):
    sources = [Members([small() for _ in range(2)], vectorize=True), *([] if options else [RandomMasks(2)])]
    with pytest.raises(
        ValueError, match=rf"`vectorize` must be False beside {text}, got True. .* Leave one of both out"
    ):
        Averaged(small(), sources, **options)
    with pytest.raises(ValueError, match="`vectorize` must be False beside offload, got True"):
        Members([small()], vectorize=True, offload=True)


def test_precision_below_float32_is_no_difference():
    nets, x = [seeded(small, seed) for seed in range(3)], images()
    with torch.autocast("cpu", torch.bfloat16):
        average = Averaged(seeded(small, 9), Members([net.state_dict() for net in nets], vectorize=True))
        assert torch.allclose(average(x).exp(), explicit(nets, x), atol=0.01, rtol=0)
    expected, before = explicit(nets, x), [found(net) for net in nets]
    average = Averaged(seeded(small, 9).double(), Members(nets, vectorize=True))
    for _ in range(2):
        assert torch.allclose(average(x.double()).exp().float(), expected, atol=1e-6, rtol=0)
    assert [found(net) for net in nets[1:]] == before[1:]  # their copies are enough
    average.sources[0].put_back()
    assert [found(net) for net in nets] == before


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


def test_a_target_that_returns_no_logits_is_still_named():
    with pytest.raises(ValueError, match=r"`target` must return logits .* got tuple"):
        Averaged(Pair(8, 4), Members([Pair(8, 4).state_dict() for _ in range(2)], vectorize=True))(torch.rand(2, 8))
