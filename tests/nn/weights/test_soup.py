import pathlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_trainingkit.nn.weights import soup
from lightning_trainingkit.nn.weights.checkpoint import write_manifest
from lightning_trainingkit.nn.weights.soup import average_weights, greedy_soup


class RunsCode:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("was_run"),)


def make_net(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net(torch.randn(5, 3))
    net[1].num_batches_tracked.fill_(seed)
    return net


def save(folder, number):
    """Checkpoints of so many nets, as Lightning writes them, and the nets' weights."""
    weights = [make_net(seed).state_dict() for seed in range(number)]
    for k, each in enumerate(weights):
        torch.save({"state_dict": each, "epoch": k, "optimizer_states": [torch.ones(3)]}, folder / f"k={k}.ckpt")
    return weights


def mean(weights, shares=None):
    shares = shares or [1 / len(weights)] * len(weights)
    return {
        name: max(each[name] for each in weights)
        if "num" in name
        else sum(share * each[name].double() for share, each in zip(shares, weights, strict=True)).float()
        for name in weights[0]
    }


def test_equals_the_mean_written_out_and_loads(tmp_path):
    expected = mean(save(tmp_path, 4))
    found = average_weights([tmp_path / f"k={k}.ckpt" for k in range(4)])
    torch.testing.assert_close(found, expected)
    assert list(found) == list(expected)
    assert found["1.num_batches_tracked"] == 3  # the largest
    net = make_net(9)
    net.load_state_dict(found)
    torch.testing.assert_close(dict(net.state_dict()), expected)


@given(raw=st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_given_weights(tmp_path_factory, raw):
    folder = tmp_path_factory.mktemp("files")
    shares = [each / sum(raw) for each in raw]
    members = save(folder, 3)
    torch.testing.assert_close(average_weights(f"{folder}/*.ckpt", weights=shares), mean(members, shares))


def test_equal_members_average_to_themselves_to_the_last_bit(tmp_path):
    (only,) = save(tmp_path, 1)
    torch.testing.assert_close(average_weights([tmp_path / "k=0.ckpt"] * 7), dict(only), rtol=0, atol=0)


def test_half_precision_is_summed_in_double_and_other_kinds_are_kept(tmp_path):
    for k in range(8):
        content = {
            "half": torch.tensor([1.0 + k / 128], dtype=torch.bfloat16),
            "mask": torch.tensor([k == 3, False]),
            "complex": torch.tensor([1j * k]),
            "state": {"k": k},
        }
        torch.save(content, tmp_path / f"{k}.pt")
    found = average_weights(f"{tmp_path}/*.pt")
    halves = torch.tensor([1.0 + k / 128 for k in range(8)], dtype=torch.bfloat16)
    assert found["half"].item() == halves.double().mean().bfloat16().item()
    assert found["mask"].tolist() == [True, False]
    assert found["complex"].item() == 3.5j
    assert found["state"] == {"k": 0}


def test_folder_pattern_and_file_find_the_same(tmp_path, monkeypatch):
    members = save(tmp_path, 12)
    pattern = tmp_path / "*.ckpt"
    torch.testing.assert_close(average_weights(pattern), mean(members))
    monkeypatch.chdir(tmp_path.parent)
    torch.testing.assert_close(average_weights(f"{tmp_path.name}/**/*.ckpt"), mean(members))
    torch.testing.assert_close(average_weights(tmp_path / "k=3.ckpt"), dict(members[3]))
    scores = {str(tmp_path / f"k={k}.ckpt"): torch.tensor(float(k)) for k in (3, 5, 4)}
    write_manifest(str(tmp_path), "val/acc", "max", scores, {path: [0, 0] for path in scores})
    best_first = [members[5], members[4], members[3]]
    torch.testing.assert_close(average_weights(tmp_path, weights=[0.5, 0.3, 0.2]), mean(best_first, [0.5, 0.3, 0.2]))


def test_a_pattern_finds_files_by_their_number(tmp_path):
    for k in (10, 9, 1):
        torch.save({"k": torch.tensor(float(k))}, tmp_path / f"snapshot-{k}.ckpt")
    assert average_weights(tmp_path / "*.ckpt", weights=[0, 0, 1])["k"] == 10


def test_one_file_is_held_at_a_time(tmp_path, monkeypatch):
    save(tmp_path, 5)
    held, most = set(), []

    class Member(dict):
        def __init__(self, content):
            super().__init__(content)
            held.add(id(self))
            most.append(len(held))

        def __del__(self):
            held.discard(id(self))

    load = soup.load_weights
    monkeypatch.setattr(soup, "load_weights", lambda file: Member(load(file)))
    average_weights(tmp_path / "*.ckpt")
    assert most == [1] * 5


# Greedy


def score_of(values):
    """A score that knows each soup by the set of its members' numbers."""
    calls = []

    def score(weights):
        members = frozenset(k for k in range(4) if weights[f"is {k}"] > 0)
        calls.append(members)
        return values[members]

    return score, calls


def test_greedy_soup_keeps_what_does_not_harm(tmp_path):
    for k in range(4):
        content = {f"is {j}": torch.tensor(float(j == k)) for j in range(4)}
        torch.save(content, tmp_path / f"{k}.ckpt")
    sets = {(0,): 0.7, (1,): 0.9, (2,): 0.8, (3,): 0.6, (1, 2): 0.85, (0, 1): 0.9, (0, 1, 3): 0.95}
    score, calls = score_of({frozenset(key): value for key, value in sets.items()})
    soup = greedy_soup(tmp_path / "*.ckpt", score)
    assert [path.name for path in soup.paths] == ["1.ckpt", "0.ckpt", "3.ckpt"]
    assert soup.score == 0.95
    torch.testing.assert_close(soup.weights, average_weights(soup.paths))
    assert [set(each) for each in calls] == [{0}, {1}, {2}, {3}, {1, 2}, {0, 1}, {0, 1, 3}]


@given(seed=st.integers(0, 99))
def test_greedy_soup_is_never_worse_than_the_best_member(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("files")
    members = save(folder, 4)
    goal = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))

    def score(weights):
        return -(weights["0.weight"] - goal).square().sum().item()

    soup = greedy_soup(folder / "*.ckpt", score)
    assert soup.score == score(soup.weights)
    assert soup.score >= max(map(score, members))


def test_greedy_soup_of_one_file_and_of_nan(tmp_path):
    members = save(tmp_path, 2)
    soup = greedy_soup([tmp_path / "k=1.ckpt"], lambda weights: 0.5)
    assert (soup.paths, soup.score) == ([tmp_path / "k=1.ckpt"], 0.5)
    torch.testing.assert_close(soup.weights, dict(members[1]), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"`score` must return a number, got NaN on trying .*k=0.ckpt"):
        greedy_soup(tmp_path / "*.ckpt", lambda weights: float("nan"))


# Bad input


@pytest.mark.parametrize("average", [average_weights, lambda paths: greedy_soup(paths, lambda weights: 0.0)])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            nn.Linear(3, 4),
            r"b.ckpt beside .*a.ckpt: weight is floats of shape \(2, 3\) there and .* \(4, 3\) here, and 1",
        ),
        (nn.Linear(3, 2, bias=False), r"b.ckpt beside .*a.ckpt: bias is in .*a.ckpt alone\. Leave it out"),
        (nn.Sequential(nn.Linear(3, 2)), r"weight is in .*a.ckpt alone, and 3 more differ"),
        (nn.Bilinear(3, 3, 2), r"weight is floats of shape \(2, 3\) there and floats of shape \(2, 3, 3\) here\."),
    ],
)
def test_other_architectures(tmp_path, average, other, message):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "a.ckpt")
    torch.save(other.state_dict(), tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match=rf"`paths` must be of one architecture, got .*{message}"):
        average(tmp_path / "*.ckpt")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5], "must be 2 numbers, one for each file, got 1"),
        ([0.5, 0.6], r"sum to 1, got \[0.5, 0.6\] with sum 1.1. Divide them by 1.1"),
        ([1.5, -0.5], "must be positive or 0"),
        ([float("nan"), 0.5], "sum to 1"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, weights, message):
    save(tmp_path, 2)
    with pytest.raises(ValueError, match=message):
        average_weights(tmp_path / "*.ckpt", weights=weights)


def test_no_file_says_what_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "notes.txt").touch()
    for paths, name in ((tmp_path / "*.ckpt", r"/\*.ckpt"), ([tmp_path / "gone" / "a.ckpt"], "a.ckpt")):
        text = rf"`paths` must match a checkpoint, got .*{name}. In .* there is: notes.txt\."
        with pytest.raises(FileNotFoundError, match=text):
            average_weights(paths)
    with pytest.raises(ValueError, match="`paths` must name at least one file, got none"):
        average_weights([])


def test_a_folder_without_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder with a best.json, .* In .* there is: nothing"):
        average_weights(tmp_path)
    (tmp_path / "below").mkdir()
    save(tmp_path / "below", 2)
    with pytest.raises(FileNotFoundError, match=r"For all checkpoints in it give .*/\*\*/\*\.ckpt"):
        average_weights(tmp_path)
    save(tmp_path, 2)
    with pytest.raises(FileNotFoundError, match=r"For all checkpoints in it give .*/\*\.ckpt"):
        average_weights(tmp_path)


def test_truncated_and_unsafe_files(tmp_path):
    save(tmp_path, 2)
    content = (tmp_path / "k=1.ckpt").read_bytes()
    (tmp_path / "k=1.ckpt").write_bytes(content[:300])
    with pytest.raises(ValueError, match=r"k=1.ckpt` must be .*truncated"):
        average_weights(tmp_path / "*.ckpt")
    torch.save({"state_dict": make_net(0).state_dict(), "extra": RunsCode()}, tmp_path / "k=1.ckpt")
    with pytest.raises(ValueError, match="which would run code"):
        average_weights(tmp_path / "*.ckpt")
    assert not pathlib.Path("was_run").exists()


def test_a_file_of_weight_0_is_not_in_the_soup_and_weights_may_be_a_tensor(tmp_path):
    for name, value in (("a", 1.0), ("b", 3.0), ("c", float("nan"))):
        torch.save({"w": torch.tensor([value])}, tmp_path / f"{name}.ckpt")
    soup = average_weights(tmp_path / "*.ckpt", weights=torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(soup, {"w": torch.tensor([2.0])})


def test_files_of_a_compiled_model_and_of_a_plain_one_are_of_one_architecture(tmp_path):
    plain, other = (make_net(seed).state_dict() for seed in (1, 2))
    torch.save(plain, tmp_path / "1.ckpt")
    torch.save({f"_orig_mod.{name}": value for name, value in other.items()}, tmp_path / "2.ckpt")
    torch.testing.assert_close(average_weights(f"{tmp_path}/*.ckpt"), mean([plain, other]))
    turned = average_weights([tmp_path / "2.ckpt", tmp_path / "1.ckpt"])
    assert list(turned) == [f"_orig_mod.{name}" for name in plain]
    net = make_net(0)
    soup = greedy_soup(f"{tmp_path}/*.ckpt", lambda weights: float(bool(net.load_state_dict(weights))))
    assert soup.weights.keys() == plain.keys()
