"""Scores and paired gains: against torchmetrics, scipy, and counting by hand."""

import lightning as L
import pytest
import scipy.stats
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import multiclass_accuracy

from lightning_trainingkit.experiments import comparison
from tests.toy import ToyModule, toy_data, toy_trainer


@pytest.fixture
def said():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(5, (300,), generator=generator)
    return torch.randn(3, 300, 5, generator=generator).log_softmax(dim=-1), targets


def test_scores_are_those_of_torch_and_torchmetrics(said):
    members, targets = said
    found = comparison.scores(members[0], targets)
    assert found["test/acc"] == pytest.approx(multiclass_accuracy(members[0], targets, 5, average="micro").item())
    assert found["test/loss"] == pytest.approx(cross_entropy(members[0], targets).item())
    each = [comparison.scores(member, targets) for member in members]
    for name, value in comparison.scores(members, targets).items():
        assert value == pytest.approx(sum(row[name] for row in each) / 3)


def test_a_gain_is_a_paired_t_interval_over_images(said):
    members, targets = said
    found = comparison.gain(members[0], members[1:], targets)
    right = (members.argmax(-1) == targets).double()
    interval = scipy.stats.ttest_rel(right[0], right[1:].mean(0)).confidence_interval()
    assert found["acc gain"] == pytest.approx((interval.low + interval.high) / 2)
    assert found["acc +-"] == pytest.approx((interval.high - interval.low) / 2)
    losses = [cross_entropy(member, targets, reduction="none").double() for member in members]
    interval = scipy.stats.ttest_rel(losses[0], (losses[1] + losses[2]) / 2).confidence_interval()
    assert found["loss gain"] == pytest.approx((interval.low + interval.high) / 2, abs=1e-6)
    assert found["loss +-"] == pytest.approx((interval.high - interval.low) / 2, rel=1e-5)


def test_the_loss_of_a_probability_that_was_rounded_to_zero_is_finite():
    assert comparison.losses(torch.tensor([[0.0, 1.0]]).log(), torch.tensor([0])).item() == pytest.approx(87.3, abs=0.1)


def test_a_verdict_says_better_only_outside_of_the_interval():
    gains = {"acc gain": 0.01, "acc +-": 0.01, "loss gain": -0.2, "loss +-": 0.1}
    assert comparison.verdict(gains) == "accuracy not to be told from equal, loss better"
    assert comparison.verdict(gains | {"acc gain": -0.02, "loss gain": 0.2}) == "accuracy worse, loss worse"


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="`values` must be at least two, got 1"):
        comparison.interval([1.0])


def test_predictions_come_in_the_order_of_the_images(tmp_path):
    class Data(L.LightningDataModule):
        def predict_dataloader(self):
            return DataLoader(TensorDataset(*toy_data(21).tensors), batch_size=4)

    class Module(ToyModule):
        def predict_step(self, batch, batch_idx):
            return super().predict_step(batch, batch_idx).softmax(dim=1)

    module = Module().eval()
    rows, targets = comparison.predictions(toy_trainer(default_root_dir=tmp_path), module, Data())
    x, y = toy_data(21).tensors
    assert torch.equal(targets, y)
    with torch.no_grad():
        assert torch.allclose(rows, module(x).log_softmax(dim=1), atol=1e-5)
