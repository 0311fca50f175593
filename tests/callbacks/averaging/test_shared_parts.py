"""Members whose target runs on features of the tested module must share what computes these features."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import EnsembleAverage
from tests.toy import toy_trainer

N, C = 20, 4
X = torch.randn(N, 1, 3, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % C


def make_net(outputs=C):
    return nn.Sequential(nn.Flatten(), nn.Linear(9, outputs))


def evaluate(module, callback, stage="test"):
    run = getattr(toy_trainer(callback), stage)
    return run(module, DataLoader(TensorDataset(X, LABELS), 5), **({} if stage == "predict" else {"verbose": False}))


class Parts(L.LightningModule):
    """A backbone, a head and another net that no step calls."""

    def __init__(self, seed=0, backbone_seed=0):
        super().__init__()
        torch.manual_seed(backbone_seed)
        self.net = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.BatchNorm1d(6)), nn.ReLU())
        torch.manual_seed(seed)
        self.net.append(nn.Linear(6, C))
        self.teacher = make_net()

    def forward(self, x):
        return self.net(x)

    def test_step(self, batch, batch_idx):
        F.cross_entropy(self(batch[0]), batch[1])

    def predict_step(self, batch):
        return self(batch[0])


def saved(tmp_path, **changes):
    for seed in range(2):
        torch.save({"state_dict": Parts(seed + 1, **changes).state_dict()}, tmp_path / f"{seed}.ckpt")
    return str(tmp_path / "*.ckpt")


@pytest.mark.parametrize("in_memory", [False, True])
def test_members_that_differ_before_the_target_are_refused(tmp_path, in_memory):
    members = [Parts(1, backbone_seed=3), Parts(2, backbone_seed=4)] if in_memory else saved(tmp_path, backbone_seed=3)
    text = r"must hold all layers in which members differ, got 'net.2', .* has another net.0.1.weight, .* target='net'"
    with pytest.raises(ValueError, match=text):
        evaluate(Parts(), EnsembleAverage(members, target="net.2"))
    evaluate(Parts(), EnsembleAverage(members, target="net"))


def test_members_that_share_a_backbone_run_on_its_features(tmp_path):
    module, files = Parts(), saved(tmp_path)
    found = torch.cat(evaluate(module, EnsembleAverage(files, target="net.2"), stage="predict"))
    with torch.no_grad():
        expected = sum(Parts(seed).eval()(X).softmax(1) for seed in (1, 2)) / 2
    torch.testing.assert_close(found.softmax(1), expected)


def test_statistics_before_the_target_count_too(tmp_path):
    member = Parts()
    member.net[0][2].running_mean.add_(1)
    with pytest.raises(ValueError, match=r"member 0 .* has another net\.0\.2\.running_mean"):
        evaluate(Parts(), EnsembleAverage([member], target="net.2"))


def test_nothing_around_both_but_the_module_itself():
    class Apart(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(9, 6), nn.Linear(6, C)

        def forward(self, x):
            return self.head(self.body(x.flatten(1)))

        def test_step(self, batch, batch_idx):
            F.cross_entropy(self(batch[0]), batch[1])

    with pytest.raises(ValueError, match=r"has another body.weight, which is used before it\. Leave `target` out"):
        evaluate(Apart(), EnsembleAverage([Apart()], target="head"))


def test_members_with_other_classes_than_the_tested_module():
    with pytest.raises(ValueError, match=r"the same classes, got 7 from member 0 \(Sequential\) and 4 in the tested"):
        evaluate(Parts(), EnsembleAverage([make_net(7), make_net(7)], target="net"))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
def test_a_scripted_backbone_before_the_target():
    class Scripted(Parts):
        def __init__(self, seed=0, backbone_seed=0):
            super().__init__(seed, backbone_seed)
            self.net[0] = torch.jit.trace(self.net[0].eval(), X[:5])

    with pytest.raises(ValueError, match=r"must hold all layers in which members differ, got 'net\.2'"):
        evaluate(Scripted(), EnsembleAverage([Scripted(1, 3), Scripted(2, 4)], target="net.2"))


def test_in_a_compiled_module_a_difference_outside_of_the_target_is_a_warning():
    module, members = Parts(), [Parts(1), Parts(2)]
    for seed, each in enumerate(members):
        torch.nn.init.constant_(each.teacher[1].weight, seed + 1)
    module.compile(backend="eager")
    with pytest.warns(UserWarning, match=r"has another teacher.1.weight, which may be used before it.*Compiled code"):
        evaluate(module, EnsembleAverage(members, target="net.2"))
