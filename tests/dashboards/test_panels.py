from fnmatch import fnmatchcase

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_trainingkit as kit
from lightning_trainingkit.dashboards.panels import (
    Checks,
    Curves,
    Dots,
    Gap,
    Importance,
    Parallel,
    Scores,
    Searches,
    Table,
    command_center,
)


class Names(Logger):
    """Keeps which metrics were logged."""

    name, version = "names", 0

    def __init__(self):
        super().__init__()
        self.found = set()

    def log_metrics(self, metrics, step=None):
        self.found |= metrics.keys()

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def logged():
    logger = Names()
    draw = torch.Generator().manual_seed(0)
    images = TensorDataset(torch.rand(24, 1, 8, 8, generator=draw), torch.arange(24) % 3)
    loader = DataLoader(images, 8)
    options = {"accelerator": "cpu", "logger": logger, "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"log_every_n_steps": 1, "enable_checkpointing": False}
    callbacks = [LearningRateMonitor(), kit.TransferLearning([{"train": "head"}, {"train": "all", "start": 1}])]
    trainer = L.Trainer(max_epochs=2, callbacks=callbacks, **options)
    trainer.fit(kit.ImageClassifier(net(), 3), loader, loader)
    trainer.test(kit.ImageClassifier(net(), 3), loader, verbose=False)
    L.Trainer(callbacks=[kit.MonteCarloDropout(2)], **options).test(
        kit.ImageClassifier(net(), 3), loader, verbose=False
    )
    L.Trainer(**options).test(kit.EnsembleClassifier([net(), net()], 3), loader, verbose=False)
    return logger.found


def metrics():
    for section in command_center():
        for panel in section.panels:
            if isinstance(panel, Gap):
                yield from (panel.one, panel.other)
            elif isinstance(panel, Scores):
                yield from panel.metrics
            elif not isinstance(panel, Checks | Searches):
                assert isinstance(panel, Curves | Parallel | Importance | Dots | Table)
                yield panel.metric


@pytest.mark.parametrize("metric", sorted(set(metrics())))
def test_every_metric_of_a_panel_is_logged_by_the_kit(logged, metric):
    assert [name for name in logged if fnmatchcase(name, metric)]


def test_what_the_kit_logs_has_a_panel_or_is_named_here(logged):
    shown = set(metrics())
    rest = {name for name in logged if not any(fnmatchcase(name, metric) for metric in shown)}
    # What few runs have is among the page's other metrics; what has no counterpart in a plain run is not compared.
    assert rest == {
        *("epoch", "transfer/phase", "transfer/parameters"),
        *("test/disagreement", "test/entropy", "test/mutual_information"),
    }


def found_in(names):
    """Per section the metrics of its panels; a gap and runs beside each other are a tuple."""
    kinds = {
        Curves: lambda p: p.metric,
        Gap: lambda p: (p.title, p.one, p.other),
        Scores: lambda p: (p.title, *p.metrics),
    }
    return {
        section.title: [kinds[type(panel)](panel) for panel in section.panels if type(panel) in kinds]
        for section in command_center("val_loss", names)
    }


def test_metrics_find_their_panel_by_the_words_in_their_names():
    names = ["val_loss", "train_loss_epoch", "train_loss_step", "val_acc", "train_acc_step", "train_acc_epoch"]
    names += [
        "valid/f1",
        "train/f1",
        "lr-SGD/pg1",
        "test_acc",
        "test_acc_member",
        "test_f1",
        "grad_norm",
        "lr-SGD-momentum",
    ]
    assert found_in(names) == {
        "Loss": ["train_loss_epoch", "train_loss_step", "val_loss"],
        "Accuracy and other scores": [
            *("train_acc_epoch", "train_acc_step", "val_acc"),
            ("Training above validation", "train_acc_epoch", "val_acc"),
            *("train/f1", "valid/f1"),
            ("Training above validation: f1", "train/f1", "valid/f1"),
        ],
        "Learning rate": ["lr-SGD/pg1"],
        "Checks": [],
        "Hyperparameters": [],
        "Averaging": [("Test accuracy", "test_acc", "test_acc_member"), ("Test f1", "test_f1")],
        "Runs": [],
    }


def test_scores_without_an_accuracy_are_called_scores_at_the_same_address():
    sections = [command_center("val_loss", names)[1] for names in ((), ["val_f1"], ["val_acc"], ["val_f1", "val_acc"])]
    assert [section.title for section in sections] == ["Accuracy", "Scores", "Accuracy", "Accuracy and other scores"]
    assert {section.id for section in sections} == {"accuracy"}


def test_a_gap_is_never_drawn_between_what_is_not_known_to_be_the_same():
    assert found_in(["acc", "val_acc", "train_f1", "val_f1_macro"])["Accuracy and other scores"] == [
        *("val_acc", "acc", "train_f1", "val_f1_macro")
    ]


def test_the_kits_own_names_make_the_center_without_names():
    kit_names = set(metrics()) - {"lr-*"} | {"lr-AdamW"}
    assert [section.title for section in command_center("val/loss", kit_names)] == [
        section.title for section in command_center()
    ]
    assert found_in(kit_names)["Accuracy"] == found_in(None)["Accuracy"]
    assert found_in(kit_names)["Averaging"] == found_in(None)["Averaging"]
