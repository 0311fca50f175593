import weakref
from itertools import permutations

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as pixels

from lightning_trainingkit.functional.averaging import average_passes
from lightning_trainingkit.functional.views import View, make_views
from lightning_trainingkit.nn.averaging.averaged import Averaged, Views
from lightning_trainingkit.nn.averaging.members import Members


def make_net(classes=5, channels=3):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes)
    )


@pytest.fixture
def net():
    torch.manual_seed(0)
    return make_net().eval().requires_grad_(False)


@pytest.fixture
def x():
    return 2 * torch.randn(7, 3, 12, 12, generator=torch.Generator().manual_seed(1))


class Spy(nn.Module):
    """Notes what it is called with."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.net(x)


class Sharp(nn.Module):
    """Sure of its class for most images, and less so for the others: an early exit has something to do."""

    def __init__(self, net, sharpness=20.0):
        super().__init__()
        self.net, self.sharpness = net, sharpness

    def forward(self, x):
        return self.sharpness * self.net(x)


class Others:
    """Other modules as a source of passes."""

    kind = "members"

    def __init__(self, *modules, weights=None, kind="members"):
        self.modules, self.kind = modules, kind
        self.names = [f"{kind} {index}" for index in range(len(modules))]
        self.weights = weights or [1 / len(modules)] * len(modules)

    def around(self, index, call):
        return lambda module, arguments: call(self.modules[index], arguments)


class Shifts:
    """Adds numbers to the logits, as a source of passes between members and views."""

    kind = "masks"

    def __init__(self, *shifts):
        self.shifts = shifts
        self.names = [f"mask {index}" for index in range(len(shifts))]
        self.weights = [1 / len(shifts)] * len(shifts)

    def around(self, index, call):
        def shifted(module, arguments):
            out = call(module, arguments)
            return out + self.shifts[index] * torch.arange(out.shape[1])

        return shifted


class AtOnce(Others):
    """Makes the passes of all members that count in one call."""

    vectorize, asked = False, 0

    def together(self, call):
        self.asked += 1
        counted = [each for each, weight in zip(self.modules, self.weights, strict=True) if weight]
        return lambda module, arguments: torch.stack([call(each, arguments) for each in counted])


def by_hand(net, x, views, average="probabilities"):
    views = make_views(views)
    weights = torch.tensor([view.weight for view in views])
    return average_passes(torch.stack([net(view(x)) for view in views]), weights, average)


@pytest.mark.parametrize("average", ["probabilities", "logits", "geometric", "votes"])
@pytest.mark.parametrize("views", ["flip", "ten_crop(8)", "airbench", ["scales(14, 16)", "five_crop(12)"]])
def test_is_the_average_over_views(net, x, views, average):
    found = Averaged(net, Views(views), average=average)(x)
    torch.testing.assert_close(found, by_hand(net, x, views, average), rtol=0, atol=1e-6)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 14, 30, 1000])
def test_chunks_change_nothing_and_no_call_gets_more(net, x, limit):
    spy = Spy(net)
    views = ["scales(12, 15)", "five_crop(10)"]
    averaged = Averaged(spy, Views(views), max_batch=limit)
    torch.testing.assert_close(averaged(x), by_hand(net, x, views), rtol=0, atol=1e-6)
    assert max(spy.sizes) <= limit
    assert sum(spy.sizes) == 70
    assert len(spy.sizes) <= {1: 70, 2: 40, 3: 30, 7: 10, 8: 10, 14: 5, 30: 3, 1000: 1}[limit]


def test_views_of_different_sizes_go_through_apart(net, x):
    spy = Spy(net)
    found = Averaged(spy, Views("scales(12, 14, 16)"), max_batch=1000)(x)
    assert spy.sizes == [7, 7, 7]
    torch.testing.assert_close(found, by_hand(net, x, "scales(12, 14, 16)"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("average", ["probabilities", "votes"])
@pytest.mark.parametrize("limit", [None, 3, 16, 64])
def test_early_exit_keeps_each_argmax_with_fewer_passes(net, average, limit):
    x = 2 * torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    spy = Spy(Sharp(net))
    full = by_hand(Sharp(net), x, "ten_crop(10)", average)
    averaged = Averaged(spy, Views("ten_crop(10)"), average=average, early_exit=True, max_batch=limit)
    found = averaged(x)
    assert torch.equal(found.argmax(1), full.argmax(1))
    torch.testing.assert_close(found.exp().sum(1), torch.ones(40))
    assert sum(spy.sizes) == averaged.passes_per_sample * 40
    assert averaged.passes_per_sample < 9.5
    assert limit is None or max(spy.sizes) <= limit
    torch.testing.assert_close(full.exp(), slow_exit(Sharp(net), x, average, exits=False).exp(), atol=1e-6, rtol=0)
    if limit is None:  # with a limit views are made together that need not all have been
        torch.testing.assert_close(found.exp(), slow_exit(Sharp(net), x, average).exp(), atol=1e-6, rtol=0)


def slow_exit(net, x, average, exits=True):
    """Sample by sample: stop as soon as the lead is larger than the weight of the views that are left."""
    rows = []
    for each in x.split(1):
        passes = torch.cat([net(view(each)) for view in make_views("ten_crop(10)")]).log_softmax(1)
        for made in range(1, 11):
            p = passes[:made].exp()
            if average == "votes":
                p = nn.functional.one_hot(p.argmax(1), 5).float()
            first, second = p.sum(0).topk(2).values
            if (exits and first - second > 10 - made + 1e-4) or made == 10:
                rows.append(average_passes(passes[:made].unsqueeze(1), average=average))
                break
    return torch.cat(rows)


def test_early_exit_when_all_stop_at_once_makes_no_further_call(net, x):
    constant = nn.Sequential(net, Constant())
    spy = Spy(constant)
    averaged = Averaged(spy, Views("ten_crop(10)"), early_exit=True)
    assert averaged(x).argmax(1).tolist() == [2] * 7
    assert len(spy.sizes) == 6
    assert averaged.passes_per_sample == 6


class Constant(nn.Module):
    def forward(self, out):
        return torch.tensor([0.0, 0, 30, 0, 0]).expand_as(out)


def test_early_exit_never_leaves_out_nan(net, x):
    x[3] = torch.nan
    averaged = Averaged(Sharp(net, 100), Views("ten_crop(10)"), early_exit=True)
    found = averaged(x)
    assert found[3].isnan().all()
    assert not found[[0, 1, 2, 4, 5, 6]].isnan().any()


def test_early_exit_can_be_differentiated(net, x):
    net.requires_grad_(True)
    averaged = Averaged(Sharp(net), Views("ten_crop(10)"), early_exit=True)
    averaged(x).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert averaged.passes_per_sample < 10


def test_sources_multiply_in_any_order(net, x):
    torch.manual_seed(3)
    others = [make_net().eval().requires_grad_(False) for _ in range(2)]
    sources = [Others(*others, weights=[0.3, 0.7]), Shifts(0.0, 0.1, 0.3), Views("airbench")]
    passes, weights = [], []
    for module, share in zip(others, (0.3, 0.7), strict=True):
        for shift in (0.0, 0.1, 0.3):
            for view in make_views("airbench"):
                passes.append(module(view(x)) + shift * torch.arange(5))
                weights.append(share / 3 * view.weight)
    expected = average_passes(torch.stack(passes), torch.tensor(weights))
    results = []
    for order in permutations(sources):
        averaged = Averaged(net, order)
        results.append(averaged(x))
        assert averaged.names[1] == "members 0 x mask 0 x hflip"
        assert averaged.weights == pytest.approx(weights)
        torch.testing.assert_close(averaged.each_pass(x), torch.stack(passes).log_softmax(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(results[0], expected, rtol=0, atol=1e-6)
    assert all(torch.equal(each, results[0]) for each in results)


@pytest.mark.parametrize("limit", [None, 3, 20])
def test_members_that_run_at_once_give_the_same(net, x, limit):
    torch.manual_seed(3)
    others = [make_net().eval().requires_grad_(False) for _ in range(3)]
    sources = [[kind(*others, weights=[0.5, 0.0, 0.5]), Views("flip")] for kind in (Others, AtOnce)]
    sources[1][0].vectorize = limit is None
    apart, at_once = [Averaged(net, each, max_batch=limit) for each in sources]
    for _ in range(2):
        torch.testing.assert_close(apart(x), at_once(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(apart.each_pass(x), at_once.each_pass(x), rtol=0, atol=1e-6)
    assert apart.passes_per_sample == at_once.passes_per_sample == 4
    assert sources[1][0].asked == (2 if limit is None else 0)  # all at once would be more than the limit
    assert at_once.names == ["members 0 x identity", "members 0 x hflip", "members 2 x identity", "members 2 x hflip"]


def test_a_loop_over_members_is_one_call_after_the_first_batch_to_the_last_bit(net, x):
    torch.manual_seed(3)
    others = [make_net().eval().requires_grad_(False) for _ in range(3)]
    apart, at_once = Averaged(net, Others(*others)), Averaged(net, source := AtOnce(*others))
    results = [at_once(x) for _ in range(3)]
    torch.testing.assert_close(results[0], apart(x), rtol=0, atol=1e-6)
    assert all(torch.equal(result, results[0]) for result in results)
    assert source.asked == 3


def test_members_are_passed_through_once_for_a_batch_that_is_cut(net, x):
    calls = []

    class Noted(Others):
        def around(self, index, call):
            def noted(module, arguments):
                calls.append(index)
                return super(Noted, self).around(index, call)(module, arguments)

            return noted

    Averaged(net, [Noted(net, net)], max_batch=3)(x)
    assert calls == [0, 0, 0, 1, 1, 1]


def test_member_of_no_weight_is_not_called(net, x):
    class Fails(nn.Module):
        def forward(self, x):
            raise AssertionError

    averaged = Averaged(net, Others(net, Fails(), weights=[1.0, 0.0]))
    torch.testing.assert_close(averaged(x), net(x).log_softmax(1))
    assert averaged.names == ["members 0"]


def test_each_pass_is_one_by_one_and_keeps_to_the_limit(net, x):
    spy = Spy(net)
    passes = Averaged(spy, Views("flip"), max_batch=3).each_pass(x)
    torch.testing.assert_close(passes, torch.stack([net(x), net(x.flip(-1))]).log_softmax(2), rtol=0, atol=1e-6)
    assert spy.sizes == [3, 3, 1] * 2


class Reader(nn.Module):
    """Takes a dict, a tuple and arguments by name."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, batch, extra, *, scale, names):
        assert len(batch["image"]) == len(extra[0]) == len(names)
        assert len(extra[1]) == 3
        assert [int(name) for name in names] == extra[0].tolist()
        return self.net(batch["image"]) * scale + extra[0].unsqueeze(1)


@pytest.mark.parametrize("limit", [None, 3, 20])
@pytest.mark.parametrize("early_exit", [False, True])
def test_arguments_of_any_form(net, x, limit, early_exit):
    given = {"scale": torch.tensor(30.0), "names": [str(index) for index in range(7)]}
    batch, extra = {"image": x, "id": list(range(7))}, (torch.arange(7), torch.eye(3))
    reader = Reader(net)
    averaged = Averaged(reader, Views("ten_crop(10)"), max_batch=limit, early_exit=early_exit)
    found = averaged(batch, extra, **given)
    passes = [reader({**batch, "image": view(x)}, extra, **given) for view in make_views("ten_crop(10)")]
    expected = average_passes(torch.stack(passes))
    if early_exit:
        assert torch.equal(found.argmax(1), expected.argmax(1))
        assert averaged.passes_per_sample < 10
    else:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_without_sources_or_images_it_is_the_module(net, x):
    torch.testing.assert_close(Averaged(net, [])(x), net(x).log_softmax(1))
    linear = nn.Linear(4, 3)
    torch.testing.assert_close(
        Averaged(linear, Others(linear))(torch.ones(2, 4)), linear(torch.ones(2, 4)).log_softmax(1)
    )
    with pytest.raises(ValueError, match="`target` must be called with images"):
        Averaged(linear, Views("flip"))(torch.ones(2, 4))


def test_half_precision_is_averaged_in_single(x):
    net = make_net().eval().bfloat16()
    found = Averaged(net, Views("flip"))(x.bfloat16())
    assert found.dtype == torch.float32
    passes = torch.stack([net(x.bfloat16()), net(x.bfloat16().flip(-1))])
    torch.testing.assert_close(found, average_passes(passes.float()), rtol=0, atol=1e-6)
    double = make_net().eval().double()
    assert Averaged(double, Views("flip"))(x.double()).dtype == torch.float64


def test_empty_batch(net, x):
    for options in ({}, {"max_batch": 4}, {"early_exit": True}):
        assert Averaged(net, Views("ten_crop(8)"), **options)(x[:0]).shape == (0, 5)


def test_outputs_of_past_passes_are_let_go(net, x):
    alive, most = [], []

    class Watched(nn.Module):
        def forward(self, x):
            alive[:] = [each for each in alive if each() is not None]
            most.append(len(alive))
            out = net(x)
            alive.append(weakref.ref(out))
            alive.append(weakref.ref(x))
            return out

    with torch.inference_mode():
        for limit in (None, 14):
            Averaged(Watched(), Views(["scales(12, 13, 14, 15, 16)", "ten_crop(10)"]), max_batch=limit)(x)
    assert len(most) == 50 + 25
    assert max(most) <= 2  # what the pass before was given and returned


def test_works_in_inference_mode_and_after_a_copy(net, x):
    import copy
    import pickle

    averaged = Averaged(net, Views("ten_crop(8)"), early_exit=True)
    with torch.inference_mode():
        expected = averaged(x)
    for each in (copy.deepcopy(averaged), pickle.loads(pickle.dumps(averaged))):
        torch.testing.assert_close(each(x), expected, rtol=0, atol=0)
    assert set(averaged.state_dict()) == {f"module.{name}" for name in net.state_dict()}


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (nn.Softmax(dim=1), "must return logits or log-probabilities, got probabilities"),
        (nn.Unflatten(1, (5, 1)), r"must return logits of shape \(N, C\) = \(7, number of classes\).* got \(7, 5, 1\)"),
        (nn.Flatten(0), r"got \(35,\) of torch.float32"),
        (nn.Linear(5, 1), r"at least two classes, got \(7, 1\)"),
        (nn.LSTM(5, 3), "got tuple"),
    ],
)
def test_refuses_what_are_not_logits(net, x, after, message):
    averaged = Averaged(nn.Sequential(net, after), Views("flip"))
    for _ in range(2):  # and not only the first time
        with pytest.raises(ValueError, match=message):
            averaged(x)


def test_refuses_classes_found_in_place_of_logits(net, x):
    class Classes(nn.Module):
        def forward(self, x):
            return net(x).argmax(1, keepdim=True).expand(-1, 2)

    with pytest.raises(ValueError, match=r"got .* of torch\.int64"):
        Averaged(Classes(), Views("flip"))(x)


def test_refuses_probabilities_of_any_member_and_in_half_precision(net, x):
    torch.manual_seed(0)
    bad = nn.Sequential(make_net(), nn.Softmax(1)).eval()
    with pytest.raises(ValueError, match="got probabilities"):
        Averaged(net, Others(net, bad))(x)
    with pytest.raises(ValueError, match="got probabilities"):
        Averaged(bad.bfloat16(), [])(x.bfloat16())


def test_accepts_log_probabilities_and_logits_that_are_all_equal(net, x):
    Averaged(nn.Sequential(net, nn.LogSoftmax(1)), Views("flip"))(x)
    Averaged(nn.Sequential(net, Zeros()), Views("flip"))(x)


class Zeros(nn.Module):
    def forward(self, out):
        return out * 0


def test_refuses_members_with_other_classes(net, x):
    with pytest.raises(ValueError, match="`members` must have the same classes, got 6 from members 1 and 5 from"):
        Averaged(net, Others(net, make_net(classes=6)))(x)


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([Views("flip"), Views("airbench")], {}, "`sources` must hold one of each kind, got .* Put all views into one"),
        ([Shifts(0.0)], {"early_exit": True}, "`early_exit` must be False with random masks"),
        ([Views("flip")], {"early_exit": True, "average": "logits"}, "must be False with average='logits'"),
        ([Views("flip")], {"early_exit": True, "average": "geometric"}, "must be False with average='geometric'"),
        (
            [Views("flip")],
            {"average": "median"},
            "`average` must be one of 'probabilities', 'logits', 'geometric', 'votes'",
        ),
        ([Views("flip")], {"max_batch": 0}, "`max_batch` must be at least 1, got 0"),
        ([Others(nn.Identity(), weights=[0.5])], {}, "`weights` must be positive or 0 and sum to 1"),
    ],
)
def test_refuses_what_does_not_fit(net, sources, options, message):
    with pytest.raises(ValueError, match=message):
        Averaged(net, sources, **options)


def test_weights_of_views_count(net, x):
    views = [View("as it is", 0.9, nn.Identity()), View("dark", 0.1, torch.zeros_like)]
    expected = 0.9 * net(x).softmax(1) + 0.1 * net(0 * x).softmax(1)
    torch.testing.assert_close(Averaged(net, Views(views))(x).exp(), expected)


class Writing(nn.Module):
    """Normalises what it is given in place, as some models do."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.sub_(0.5).div_(0.2))


def test_a_module_and_a_view_that_write_into_their_input_see_the_same_images_in_each_pass(net, x):
    before = x.clone()

    def dim(images):
        return images.mul_(0.5)

    views = [x, x.flip(3), x * 0.5]
    explicit = average_passes(torch.stack([net((view - 0.5) / 0.2) for view in views]))
    averaged = Averaged(Writing(net), Views([["identity", "hflip", dim]]))
    others = Averaged(Writing(net), Members([Writing(net), Writing(net)]))
    for _ in range(2):
        torch.testing.assert_close(averaged(x), explicit, rtol=0, atol=1e-5)
        torch.testing.assert_close(others(x), net((before - 0.5) / 0.2).log_softmax(1), rtol=0, atol=1e-5)
    assert torch.equal(x, before)


@pytest.mark.parametrize("limit", [None, 3])
def test_what_views_begin_with_is_made_once_for_each_part_of_a_batch(net, x, limit, monkeypatch):
    calls = []
    resize = pixels.resize
    monkeypatch.setattr(pixels, "resize", lambda x, *args, **named: calls.append(len(x)) or resize(x, *args, **named))
    views = ["scales(14)", "flip", "five_crop(8)"]
    found = Averaged(net, Views(views), max_batch=limit)(x)
    assert sum(calls) == len(x)
    torch.testing.assert_close(found, by_hand(net, x, views), rtol=0, atol=1e-6)


def test_a_function_of_the_users_which_may_be_random_is_called_for_each_view(net, x):
    seen = []

    def noise(images):
        seen.append(torch.randn_like(images))
        return images + seen[-1]

    for views in ([View(f"noise {k}", 0.25, noise) for k in range(4)], [[noise], "flip", "flip"]):
        seen.clear()
        Averaged(net, Views(views))(x)
        assert len(seen) == 4


def test_many_crops_of_a_scale_resize_once(net, x, monkeypatch):
    calls = []
    resize = pixels.resize
    monkeypatch.setattr(pixels, "resize", lambda *args, **options: calls.append(1) or resize(*args, **options))
    Averaged(nn.Sequential(nn.AdaptiveAvgPool2d(14), net), Views("resnet_multi_scale"))(x[:1])
    assert len(calls) == 5


def test_an_argument_that_is_cut_by_chance_is_an_error_and_no_other_shape(x):
    class Prototypes(nn.Module):
        def forward(self, images, prototypes):
            return images.mean((2, 3)) @ prototypes.T

    averaged = Averaged(Prototypes(), Views("flip"), max_batch=2)
    prototypes = torch.randn(len(x), 3)
    assert averaged(x[:3], prototypes).shape == (3, len(x))
    with pytest.raises(ValueError, match="the same number of classes in each call, got 7 and 2"):
        averaged(x, prototypes)


def test_views_come_in_one_piece_and_in_the_format_of_the_images():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.formats = nn.Linear(48, 3), []

        def forward(self, x):
            self.formats.append(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())
            return self.last(x.reshape(x.size(0), -1) if self.formats[-1] else x.view(x.size(0), -1))

    net = Flat().eval()
    for views, size in (("five_crop(4)", 6), ("rotations", 4), ("shifts(1)", 4)):
        Averaged(net, Views(views))(torch.rand(2, 3, size, size))
    assert not any(net.formats)
    Averaged(net, Views("five_crop(4)"))(torch.rand(2, 3, 6, 6).to(memory_format=torch.channels_last))
    assert all(net.formats[-5:])


def test_an_empty_first_batch_shows_nothing():
    averaged = Averaged(nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), [])
    averaged(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="got probabilities"):
        averaged(torch.rand(5, 4))


@pytest.mark.parametrize("size", [1, 31, 63, 95, 250])
def test_batches_of_an_early_exit_come_in_few_sizes(size):
    class Sizes(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = set()

        def forward(self, x):
            self.seen.add(len(x))
            return x.flatten(1)[:, :2]

    net = Sizes()
    lead = torch.linspace(0, 12, size)
    x = torch.stack([lead, torch.zeros(size)], 1)[:, :, None, None]
    views = [View(str(k), 1 / 200, torch.clone) for k in range(200)]
    averaged = Averaged(net, Views([views]), early_exit=True)
    full = Averaged(net, Views([views]))(x)
    assert torch.equal(averaged(x).argmax(1), full.argmax(1))
    assert 2 <= len(net.seen - {size}) <= 32 or size == 1
