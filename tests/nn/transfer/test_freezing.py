import torch
import torchvision
from torch import nn

from lightning_trainingkit.nn.transfer.freezing import ParameterFreezer


def names(model, found):
    return {name for name, module in model.named_modules() if found(module)}


def test_what_follows_dropout_decides_its_mode():
    model = torchvision.models.alexnet()
    freezer = ParameterFreezer(model)
    freezer.train_only(set(model.classifier[4:].parameters()))
    freezer.hold_eval_mode()
    dropouts = names(model, lambda m: isinstance(m, nn.Dropout))
    assert dropouts == {"classifier.0", "classifier.3"}
    assert names(model, lambda m: not m.training) >= {"features", "features.0", "classifier.0", "classifier.1"}
    assert names(model, lambda m: m.training) == {
        "", "classifier", "classifier.2", "classifier.3", "classifier.4", "classifier.5", "classifier.6"
    }  # fmt: skip
    freezer.train_only(set(model.parameters()))
    freezer.hold_eval_mode()
    assert all(m.training for m in model.modules())


def test_statistics_without_a_scale_follow_what_is_before():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False), nn.Dropout(), nn.Linear(2, 2))
    freezer = ParameterFreezer(model)
    freezer.train_only(set(model[3].parameters()))
    freezer.hold_eval_mode()
    assert [m.training for m in model] == [False, False, True, True]
    model(torch.rand(4, 2))
    assert model[1].num_batches_tracked == 0


def test_only_what_was_open_is_opened_and_only_what_trained_trains_again():
    model = nn.Sequential(
        nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Linear(2, 1)
    )
    model[0].requires_grad_(False)
    model[1].eval()
    model[2][1].eval()
    freezer = ParameterFreezer(model)
    model(torch.rand(4, 2)).sum().backward()
    freezer.train_only(set(model[3].parameters()))
    freezer.hold_eval_mode()
    assert not model[0].training  # closed by its user
    assert not model[2].training
    assert model[2][0].weight.grad is None
    assert model[3].weight.grad is not None
    model.train()
    freezer.hold_eval_mode()
    assert [model[1].training, model[2][0].training] == [False, False]
    model[1].eval()
    freezer.undo()
    assert not model[0].weight.requires_grad
    assert all(p.requires_grad for p in model[1:].parameters())
    assert [m.training for m in model[2].modules()] == [True, True, True]  # `train()` came in between


def test_parts_of_a_layer():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    freezer = ParameterFreezer(model)
    freezer.train_only({model[1].bias, model[2].weight})
    freezer.hold_eval_mode()
    assert [p.requires_grad for p in model.parameters()] == [False, False, False, True, True, False]
    assert [m.training for m in model] == [False, True, True]
