"""What HealthReport's rehearsal of the first batches leaves as it was, for modules of all kinds."""

import gc
import random
import weakref

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_trainingkit import HealthReport
from lightning_trainingkit._lightning import L, isolate_rng
from lightning_trainingkit.callbacks.diagnostics._lightning import Rehearsal
from tests.callbacks.diagnostics.rehearsed_modules import COPIED, NOT_COPIED, Registered, Stateful, UsesTrainer
from tests.toy import ToyModule, toy_loaders, toy_trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*training_step. returned .None.", "ignore:.*lr_scheduler.step", "ignore:.*spectral_norm.*"
)


class Images:
    def __init__(self):
        self.lines = []

    def add_image(self, *args):
        self.lines.append("image")


class Memory(L.loggers.Logger):
    """A logger that keeps all that it is told."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.experiment = Images()

    def log_metrics(self, metrics, step=None):
        self.experiment.lines.append((step, {name: float(value) for name, value in metrics.items()}))

    def log_hyperparams(self, *args, **kwargs):
        pass


def outcome(kind, folder, report, **options):
    """All that can be seen of a fit."""
    L.seed_everything(0, verbose=False)
    module, logger = kind(), Memory()
    reports = [report] if report else []
    trainer = toy_trainer(*reports, max_epochs=3, default_root_dir=folder, logger=logger, **options)
    trainer.fit(module, *toy_loaders())
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for number, optimizer in enumerate(trainer.optimizers):
        for index, held in enumerate(optimizer.state.values()):
            state |= {f"{number} {index} {name}": torch.as_tensor(value) for name, value in held.items()}
    legacy = float(np.random.rand())  # noqa: NPY002 - the generator that modules draw from
    seen = {
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "logged": logger.experiment.lines,
        "counts": [len(getattr(module, name, [])) for name in ("batches", "features")] + [getattr(module, "count", 0)],
        "rates": [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups],
        "files": sorted(path.name for path in folder.rglob("*.ckpt")),
        "steps": trainer.global_step,
        "draws": [random.random(), legacy, float(torch.rand(1))],
    }
    return state, seen


def assert_same_outcome(kind, folder, monkeypatch, **options):
    found = []
    for name, report in (("without", None), ("with", HealthReport(every_n_steps=4, verbose=False))):
        (folder / name).mkdir()
        monkeypatch.chdir(folder / name)
        found.append(outcome(kind, folder / name, report, **options))
    (state, seen), (other_state, other_seen) = found
    assert state.keys() == other_state.keys()
    assert [name for name in state if not torch.equal(state[name], other_state[name])] == []
    assert seen == other_seen
    return report


@pytest.mark.parametrize("kind", COPIED)
def test_a_fit_ends_the_same_with_and_without(kind, tmp_path, monkeypatch):
    report = assert_same_outcome(kind, tmp_path, monkeypatch)
    assert report.notes == []
    assert report.observation.losses.count > 0
    assert report.observation.looks[0].activations


@pytest.mark.parametrize("kind", NOT_COPIED)
def test_a_module_that_cannot_be_copied_is_left_alone_and_named(kind, tmp_path, monkeypatch):
    report = assert_same_outcome(kind, tmp_path, monkeypatch)
    assert len(report.notes) == 2  # training and validation
    assert all("could not run on a copy" in note for note in report.notes)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16-mixed"},
        {"accumulate_grad_batches": 3},
        {"gradient_clip_val": 0.1, "val_check_interval": 2},
        {"num_sanity_val_steps": 0, "inference_mode": False},
        {"limit_val_batches": 0},
        {"max_steps": 5},
        {"fast_dev_run": True},
    ],
    ids=str,
)
def test_options_of_the_trainer(options, tmp_path, monkeypatch):
    kind = Stateful
    if "fast_dev_run" in options:
        report = HealthReport(verbose=False)
        outcome(kind, tmp_path, report, fast_dev_run=True)
    else:
        report = assert_same_outcome(kind, tmp_path, monkeypatch, **options)
    assert report.notes == []
    assert [finding for finding in report.findings if finding.level != "advice"] == []


def test_the_trainer_sees_no_logger_and_no_file_of_the_rehearsal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module, logger = UsesTrainer(), Memory()
    seen = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            with isolate_rng(), Rehearsal(trainer, pl_module) as rehearsal:
                rehearsal.module.trainer.should_stop = True
                rehearsal.step("training_step", batch)
                assert len(rehearsal.losses) == 1
            seen.append((list(logger.experiment.lines), trainer.should_stop, [*tmp_path.glob("*.ckpt")]))
            raise KeyError("done")

    with pytest.raises(KeyError, match="done"):
        toy_trainer(Look(), logger=logger).fit(module, *toy_loaders())
    assert seen == [([], False, [])]


def test_no_class_is_made_of_the_users_class(tmp_path, monkeypatch):
    before = list(Registered.names)
    assert_same_outcome(Registered, tmp_path, monkeypatch)
    assert Registered.names == before


def test_the_copy_is_gone_before_the_first_step(tmp_path):
    sizes = []

    class Cyclic(ToyModule):
        """A cycle of references, as method hooks make them."""

        def __init__(self):
            super().__init__()
            self.net[0].register_forward_hook(self.keep)
            self.weight = torch.nn.Parameter(torch.zeros(12_345))

        def keep(self, layer, args, output):
            pass

        def training_step(self, batch, batch_idx):
            sizes.append(sum(each.numel() == 12_345 for each in gc.get_objects() if type(each) is torch.nn.Parameter))
            return super().training_step(batch, batch_idx) + self.weight.sum()

    gc.collect()
    gc.disable()
    try:
        report = HealthReport(verbose=False)
        toy_trainer(report, max_epochs=1, limit_train_batches=3).fit(Cyclic(), *toy_loaders())
    finally:
        gc.enable()
    assert report.notes == []
    assert sizes[0] == 2  # in the rehearsal
    assert set(sizes[-3:]) == {1}


def test_the_graph_of_the_rehearsal_is_gone():
    graphs = []

    class Graph(ToyModule):
        def training_step(self, batch, batch_idx):
            loss = F.cross_entropy(self(batch[0]), batch[1])
            graphs.append(weakref.ref(loss))
            return loss

    gc.disable()
    try:
        toy_trainer(HealthReport(verbose=False), max_epochs=1, limit_train_batches=2).fit(Graph(), *toy_loaders())
    finally:
        gc.enable()
    assert [each() for each in graphs] == [None] * len(graphs)
