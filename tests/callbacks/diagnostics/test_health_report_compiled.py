"""HealthReport beside torch.compile: one graph more for the looks, no graph break, the same weights."""

import pytest
import torch
from torch.nn import functional as F

from lightning_trainingkit import HealthReport
from lightning_trainingkit._lightning import L
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer


class Counting:
    """A backend of ``torch.compile`` that counts graphs. It splits forward and backward, as real ones do."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)


class NoDraws(ToyModule):
    """Without dropout, whose draws differ between eager and compiled code, and without `log`, which breaks graphs."""

    def __init__(self):
        super().__init__()
        del self.net[4]

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])


def in_place(module, **options):
    module.net.compile(**options)
    return module


def part(module, **options):
    module.net = torch.compile(module.net, **options)
    return module


def method(module, **options):
    module.run = torch.compile(module.net.forward, **options)
    module.forward = module.run
    return module


def whole(module, **options):
    return torch.compile(module, **options)


@pytest.mark.parametrize(
    ("how", "warm"),
    [
        pytest.param(how, warm, marks=[] if (how, warm) == (in_place, True) else pytest.mark.slow)
        for how, warm in [
            (in_place, False),
            (in_place, True),
            (part, False),
            (method, True),
            (whole, False),
            (whole, True),
        ]
    ],
)
def test_weights_are_the_same_with_one_more_graph_for_the_looks(how, warm):
    found = []
    for watched in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        module, backend = NoDraws(), Counting()
        module.example_input_array = None
        given = how(module, backend=backend, fullgraph=True)
        if warm:
            F.cross_entropy(given(torch.zeros(8, 1, 4, 4)), torch.zeros(8, dtype=torch.long)).backward()
            module.zero_grad()
            for layer in module.modules():
                if hasattr(layer, "reset_running_stats"):
                    layer.reset_running_stats()
        before = backend.graphs
        report = HealthReport(every_n_steps=3, verbose=False)
        trainer = toy_trainer(*([report] if watched else []), max_epochs=3)
        trainer.fit(given, *toy_loaders())
        graphs = backend.graphs - before
        assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())
        found.append((graphs, {name: value.clone() for name, value in module.state_dict().items()}))
    assert difference(found[0][1], found[1][1]) < 1e-6
    assert report.observation.looks[-1].step == 9
    assert all(any("2" in name for name in look.activations) for look in report.observation.looks)
    assert [note for note in report.notes if how is not method] == []
    again = 1 if warm else 0  # a graph from before the hooks cannot see them
    assert found[1][0] <= found[0][0] + 1 + again
    torch._dynamo.reset()


def test_compiled_layers_are_not_compiled_again_at_each_look():
    torch._dynamo.reset()
    backend = Counting()
    module = in_place(NoDraws(), backend=backend, fullgraph=True)
    counts = []

    class Count(L.Callback):
        def on_train_batch_end(self, *args):
            counts.append(backend.graphs)

    toy_trainer(Count(), HealthReport(every_n_steps=1, verbose=False), max_epochs=4, limit_val_batches=0).fit(
        module, *toy_loaders()
    )
    assert counts[-1] <= counts[0] + 1  # one graph for steps with a look, one for steps without
    torch._dynamo.reset()
