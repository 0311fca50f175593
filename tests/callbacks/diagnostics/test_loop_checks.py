"""Loop checks on two ranks, in compiled modules, and at what cost to the module."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_trainingkit._lightning import L
from tests import process
from tests.callbacks.diagnostics.checked_fit import Net, fit, kinds
from tests.toy import toy_data, toy_trainer


def fit_alone(module, epochs):
    torch.manual_seed(0)
    toy_trainer(max_epochs=epochs).fit(module, DataLoader(toy_data(), 4, shuffle=True), DataLoader(toy_data(), 16))


@pytest.mark.slow
def test_two_ranks_report_the_same(tmp_path):
    process.run_ranks(Path(__file__).with_name("loop_checks_on_two_ranks.py"), tmp_path, folder=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(each["equal"] for each in found.values())
    assert {name: each["final"] for name, each in found.items()} == {
        "Net": [],
        "Detached": [["parameters_not_trained", "body, middle"]],
        "TrainInValidation": [["evaluation_in_training_mode", "body.1, body.4"]],
        "UsedOnRankOne": [],
    }


class Counting:
    """A backend of `torch.compile` that counts graphs. It splits forward and backward, as real ones do."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)


@pytest.mark.parametrize("warm", [False, True], ids=["first call in the fit", "first call before the fit"])
def test_a_compiled_module_has_the_same_graphs_and_findings(warm):
    graphs = {}
    for checked in (False, True):
        torch._dynamo.reset()
        module, backend = Net(), Counting()
        module.net = torch.nn.Sequential(module.body, module.middle, module.head)
        module.net.compile(backend=backend, fullgraph=True)
        module.forward = module.net.__call__
        if warm:
            module(torch.randn(4, 1, 4, 4)).sum().backward()
            module.zero_grad()
        if checked:
            assert fit(module, epochs=2).final == []
        else:
            fit_alone(module, epochs=2)
        graphs[checked] = backend.graphs
    assert graphs[True] == graphs[False]


def test_faults_of_a_compiled_module_are_found():
    torch._dynamo.reset()

    class Wrong(Net):
        def __init__(self):
            super().__init__()
            self.body[1].momentum = 0.0
            self.middle.compile(backend="aot_eager")
            self.body.compile(backend="aot_eager")

        def forward(self, x):
            return self.head(self.middle(self.body(x).detach()))

        def validation_step(self, batch, batch_idx):
            self.train()
            super().validation_step(batch, batch_idx)

    assert kinds(Wrong()) == ["parameters_not_trained", "evaluation_in_training_mode", "normalisation_off"]


def test_a_copy_made_in_a_step_takes_no_checks_along():
    """As a module does that adapts a copy of its net to each task."""

    class Copying(Net):
        def training_step(self, batch, batch_idx):
            self.inner = [copy.deepcopy(self.middle)]
            pickle.dumps(self.inner[0].state_dict())
            inner = self.inner[0]
            inner(torch.randn(4, 16)).sum().backward()
            return self.loss(batch)

    assert kinds(Copying()) == []


def test_a_step_that_raises_leaves_hooks_only_until_remove():
    class Raising(Net):
        def training_step(self, batch, batch_idx):
            raise KeyError

    class Tidy(L.Callback):
        def on_exception(self, trainer, pl_module, exception):
            checks = trainer.callbacks[0].checks
            checks.remove()
            checks.remove()

    module = Raising()
    with pytest.raises(KeyError):
        fit(module, callbacks=[Tidy()])
    assert not any(each._forward_pre_hooks for each in module.modules())
    assert not any(each._post_accumulate_grad_hooks or each._backward_hooks for each in module.parameters())


def test_random_numbers_and_weights_are_those_of_a_fit_without_checks():
    torch.manual_seed(1)
    start = Net()
    weights = []
    for checked in (False, True):
        module = copy.deepcopy(start)
        if checked:
            fit(module)
        else:
            fit_alone(module, epochs=3)
        weights.append(torch.cat([value.double().flatten() for value in module.state_dict().values()]))
    assert torch.equal(*weights)
