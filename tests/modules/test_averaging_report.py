import itertools
import pickle

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import nll_loss
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from lightning_trainingkit import experiments
from lightning_trainingkit.functional.averaging import average_passes
from lightning_trainingkit.modules.averaging_report import AveragingReport

WEIGHTS = [0.43, 0.0, 0.37, 0.2]  # no sum of them is an edge of a bin: votes would fall on either side


def some_passes(passes=4, n=300, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (n,), generator=generator)
    logits = 1.5 * torch.randn(passes, n, classes, generator=generator)
    logits[:, torch.arange(n), target] += 1
    return logits.log_softmax(2), target


def peers(log_p, target):
    classes = log_p.shape[1]
    acc, ece = MulticlassAccuracy(classes, average="micro"), MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    p = log_p.exp()
    return {"acc": acc(p, target), "nll": nll_loss(log_p, target), "ece": ece(p, target)}


def assert_equals_peers(report, log_p, target):
    found = report.compute()
    for k in range(report.passes):
        weights = torch.tensor(report.weights[: k + 1])
        average = average_passes(log_p[: k + 1], weights / weights.sum(), report.average)
        for name, expected in peers(average, target).items():
            assert found[name][k].item() == pytest.approx(expected.item(), abs=1e-6, rel=1e-6), (name, k)
        for name, expected in peers(log_p[k], target).items():
            assert found[f"{name}_single"][k].item() == pytest.approx(expected.item(), abs=1e-6, rel=1e-6), (name, k)


@pytest.mark.parametrize("average", ["probabilities", "logits", "geometric", "votes"])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_equals_torchmetrics_on_all_data_at_once(average, weights):
    log_p, target = some_passes(passes=4 if weights else 2)
    report = AveragingReport(5, len(log_p), average=average, weights=weights)
    for part in torch.arange(300).split(70):
        report.update(log_p[:, part], target[part])
    assert_equals_peers(report, log_p, target)


@given(passes=st.integers(1, 4), n=st.integers(1, 30), classes=st.integers(2, 6), seed=st.integers(0, 9999))
def test_disagreement_equals_the_mean_over_pairs(passes, n, classes, seed):
    log_p, target = some_passes(passes, n, classes, seed)
    report = AveragingReport(classes, passes)
    report.update(log_p, target)
    found = report.compute()["disagreement"].item()
    leaders = log_p.argmax(2)
    pairs = [(one != other).float().mean().item() for one, other in itertools.combinations(leaders, 2)]
    expected = sum(pairs) / len(pairs) if pairs else float("nan")
    assert found == pytest.approx(expected, nan_ok=True)


@given(cut=st.integers(1, 59), seed=st.integers(0, 999))
def test_two_updates_equal_one(cut, seed):
    log_p, target = some_passes(3, 60, 4, seed)
    once, twice = AveragingReport(4, 3), AveragingReport(4, 3)
    once.update(log_p, target)
    twice.update(log_p[:, :cut], target[:cut])
    twice.update(log_p[:, cut:], target[cut:])
    for name, value in once.compute().items():
        torch.testing.assert_close(twice.compute()[name], value)


def test_ranks_are_summed_up_and_nothing_grows():
    log_p, target = some_passes()
    whole, ranks = AveragingReport(5, 4), [AveragingReport(5, 4), AveragingReport(5, 4)]
    whole.update(log_p, target)
    before = {name: state.shape for name, state in whole.metric_state.items()}
    for rank, report in enumerate(ranks):
        report.update(log_p[:, rank::2], target[rank::2])
    for name, reduce in whole._reductions.items():  # what torchmetrics does to the states of all ranks
        torch.testing.assert_close(reduce(torch.stack([getattr(each, name) for each in ranks])), getattr(whole, name))
    whole.update(log_p, target)
    assert {name: state.shape for name, state in whole.metric_state.items()} == before


def test_forward_reset_and_pickle():
    log_p, target = some_passes()
    report = AveragingReport(5, 4)
    of_batch = report(log_p[:, :100], target[:100])
    torch.testing.assert_close(of_batch, report.compute())
    report(log_p[:, 100:], target[100:])
    assert_equals_peers(pickle.loads(pickle.dumps(report)), log_p, target)
    report.reset()
    report.update(log_p[:, :100], target[:100])
    torch.testing.assert_close(of_batch, report.compute())


def test_unnormalised_and_half_precision_passes():
    log_p, target = some_passes()
    report, half = AveragingReport(5, 4), AveragingReport(5, 4)
    report.update(log_p + 3, target)
    assert_equals_peers(report, log_p, target)
    half.update(log_p.bfloat16(), target.int())
    assert_equals_peers(half, log_p.bfloat16().float().log_softmax(2), target)


def test_certain_passes():
    report = AveragingReport(3, 2)
    log_p = torch.eye(3).log()[torch.tensor([[0, 1, 2], [0, 1, 0]])]
    report.update(log_p, torch.tensor([0, 1, 2]))
    assert_equals_peers(report, log_p, torch.tensor([0, 1, 2]))
    assert report.compute()["nll_single"].tolist() == [0, torch.inf]


def test_a_pass_of_nan_is_seen():
    log_p, target = some_passes()
    log_p[1] = torch.nan
    report = AveragingReport(5, 4)
    report.update(log_p, target)
    assert report.compute()["nll"].isnan().tolist() == [False, True, True, True]
    assert report.compute()["ece_single"].isnan().tolist() == [False, True, False, False]


@pytest.mark.gpu
def test_an_update_on_a_gpu_does_not_wait_for_it():
    log_p, target = (each.cuda() for each in some_passes())
    report = AveragingReport(5, 4, weights=WEIGHTS).cuda()
    report.update(log_p, target)
    torch.cuda.set_sync_debug_mode("error")
    try:
        report.update(log_p, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    report.to("cpu")
    assert_equals_peers(report, log_p.cpu(), target.cpu())


def test_rows_can_be_printed(capsys):
    log_p, target = some_passes()
    report = AveragingReport(5, 4)
    report.update(log_p, target)
    rows = report.rows()
    assert [row["passes"] for row in rows] == [1, 2, 3, 4]
    assert list(rows[0]) == ["passes", "acc", "nll", "ece", "acc_single", "nll_single", "ece_single"]
    assert rows[2]["acc"] == report.compute()["acc"][2].item()
    assert rows[0]["acc"] == rows[0]["acc_single"]
    experiments.print_table("averaged", rows)
    assert "ece_single" in capsys.readouterr().out


def test_as_a_child_of_a_module_it_is_reset_and_saved_as_torchmetrics_own():
    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.report = AveragingReport(5, 4)

    module = Module()
    module.report.update(*some_passes())
    assert module.state_dict() == {}
    module.half()
    assert module.report.bin_confidence.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be at least 2, got 1"),
        ({"passes": 0}, "`passes` must be at least 1, got 0"),
        ({"average": "mean"}, "`average` must be one of 'probabilities', 'logits', 'geometric', 'votes', got 'mean'"),
        ({"weights": [1.0]}, "`weights` must be 3 numbers"),
        ({"weights": [0.5, 0.5, 0.5]}, "`weights` must be positive or 0 and sum to 1"),
        ({"weights": [0, 0.5, 0.5]}, "`weights` must start with a positive one"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        AveragingReport(**{"num_classes": 4, "passes": 3, **options})


@pytest.mark.parametrize("shape", [(2, 6, 4), (3, 5, 4), (3, 6, 3), (6, 4)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=r"Shapes must be \(K, N, C\) = \(3, 6, 4\) and \(N,\), got "):
        AveragingReport(4, 3).update(torch.zeros(shape), torch.zeros(6, dtype=torch.long))
