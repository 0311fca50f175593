import pytest
import torch
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassPrecision

from tests.callbacks.noise.fixed_blends import WEIGHT, FixedMixup, Spy, fit
from tests.callbacks.noise.test_mixup import blended_accuracy


def fitted(update, **held):
    """Fit with a step that updates metrics, and return the module, the Trainer and the blended accuracy."""
    torch.manual_seed(1)
    logits = []

    def step(module, batch):
        logits.append(module(batch[0]).detach())
        update(module, logits[-1], batch[1])
        return cross_entropy(module(batch[0]), batch[1])

    module = Spy(step)
    for name, value in held.items():
        setattr(module, name, value)
    trainer = fit(module, FixedMixup(3))
    return module, trainer, blended_accuracy(logits[::2], WEIGHT)


def test_metrics_of_a_collection_that_are_logged_one_by_one():
    def update(module, logits, y):
        module.scores.update(logits, y)
        for name, metric in module.scores.items():  # copies the states of the first of a group to the second
            module.log(name, metric, on_step=False, on_epoch=True)

    kinds = {"accuracy": MulticlassAccuracy, "precision": MulticlassPrecision}
    scores = MetricCollection({name: kind(3, average="micro") for name, kind in kinds.items()})
    _, trainer, wanted = fitted(update, scores=scores)
    assert trainer.callback_metrics["accuracy"].item() == pytest.approx(wanted, rel=1e-5)
    assert trainer.callback_metrics["precision"].item() == pytest.approx(wanted, rel=1e-5)


def test_metrics_in_nested_containers_are_found():
    def update(module, logits, y):
        module.scores["train"][0].update(logits, y)

    module, _, wanted = fitted(update, scores={"train": [MulticlassAccuracy(3, average="micro")]})
    assert module.scores["train"][0].compute().item() == pytest.approx(wanted, rel=1e-5)
