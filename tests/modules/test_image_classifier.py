import copy
import math
import pickle
import sys

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit.functional.losses import multiclass_hinge
from lightning_trainingkit.modules.image_classifier import ImageClassifier
from lightning_trainingkit.nn import replace_head

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")  # steps called without a Trainer
SMALL = {"model": "small_resnet", "num_classes": 3, "model_options": {"width": 2}}


def loader(n=10, batch_size=4, classes=3, channels=1, shuffle=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, 8, 8, generator=generator)
    y = torch.randint(classes, (n,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=shuffle)


def net(classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def trainer(**options):
    return L.Trainer(**{**QUIET, "max_epochs": 1, **options})


# What is logged and returned


@pytest.mark.parametrize(("loss", "formula"), [("cross_entropy", cross_entropy), ("hinge", multiclass_hinge)])
def test_values_are_exact_over_batches_of_unequal_size(loss, formula):
    module = ImageClassifier(net(), 3, loss=loss, lr=0.0, schedule=None)
    fit = trainer()
    fit.fit(module, loader(10), loader(7, seed=1))
    seen = dict(fit.callback_metrics)
    seen |= trainer().test(module, loader(9, seed=2), verbose=False)[0]
    assert set(seen) == {f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "acc")}
    for stage, n, seed in [("train", 10, 0), ("val", 7, 1), ("test", 9, 2)]:
        x, y = loader(n, seed=seed).dataset.tensors
        logits = module(x)
        assert float(seen[f"{stage}/loss"]) == pytest.approx(formula(logits, y).item(), rel=1e-5)
        assert float(seen[f"{stage}/acc"]) == pytest.approx((logits.argmax(1) == y).float().mean().item())


def test_predict_returns_probabilities_of_images_alone_or_of_pairs():
    module = ImageClassifier(net(), 3)
    x = torch.randn(5, 1, 8, 8)
    for data in (TensorDataset(x, torch.full((5,), 99)), x):
        (found,) = trainer().predict(module, DataLoader(data, batch_size=5))
        torch.testing.assert_close(found, module(x).softmax(1).detach())


def test_soft_targets_train_and_are_scored_by_their_argmax():
    module = ImageClassifier(net(), 3)
    x, y = next(iter(loader()))
    hard, soft = module.training_step([x, y], 0), module.training_step([x, one_hot(y, 3).float()], 0)
    torch.testing.assert_close(hard, soft)
    mixed = 0.7 * one_hot(y, 3).float() + 0.1
    torch.testing.assert_close(module.training_step([x, mixed], 0), cross_entropy(module(x), mixed))
    (found,) = trainer().validate(module, DataLoader(TensorDataset(x, mixed), batch_size=2), verbose=False)
    assert found["val/acc"] == (module(x).argmax(1) == y).float().mean()


def test_small_integers_are_labels_too():
    x, y = next(iter(loader()))
    module = ImageClassifier(net(), 3)
    torch.testing.assert_close(module.training_step([x, y.to(torch.int32)], 0), cross_entropy(module(x), y))


def test_every_step_calls_the_forward_that_stands_there():
    module = ImageClassifier(net(), 3)
    calls = []
    found = module.forward
    module.forward = lambda x: calls.append(len(x)) or found(x)
    batch = next(iter(loader()))
    for step in (module.training_step, module.validation_step, module.test_step, module.predict_step):
        step(batch, 0)
        step(batch, 1)
    assert len(calls) == 8


def test_digits_are_learned():
    from lightning_trainingkit.data.digits import DigitsDataModule

    L.seed_everything(0, verbose=False)
    module = ImageClassifier("small_resnet", 10, model_options={"width": 16}, lr=1e-2)
    fit = trainer(max_epochs=6)
    data = DigitsDataModule()
    fit.fit(module, data)
    assert fit.test(module, data, verbose=False)[0]["test/acc"] >= 0.96


# Optimizers and schedules


def test_decay_is_kept_off_norms_and_biases_in_the_optimizer():
    module = ImageClassifier(**SMALL, weight_decay=0.3, schedule=None)
    module.model.stem.requires_grad_(False)
    groups = module.configure_optimizers().param_groups
    convolutions = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {id(p) for p in groups[0]["params"]} == convolutions
    assert len(convolutions) + len(groups[1]["params"]) == len(list(module.parameters()))


def rates(steps=8, **options):
    """The learning rate of each of so many steps, two epochs."""

    class Rates(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    seen = []
    module = ImageClassifier(net(), 3, lr=1.0, optimizer="SGD", **options)
    trainer(max_epochs=2, callbacks=[Rates()]).fit(module, loader(2 * steps), loader())
    return seen


def test_warmup_cosine_by_its_formula():
    expected = [(t + 1) / 3 if t < 2 else 0.1 + 0.9 * (1 + math.cos(math.pi * (t - 2) / 6)) / 2 for t in range(8)]
    assert rates(schedule_options={"warmup": 0.25, "final": 0.1}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "options", "expected"),
    [
        (None, None, [1.0] * 8),
        ("cosine", None, [(1 + math.cos(math.pi * t / 8)) / 2 for t in range(8)]),
        ("cyclic_cosine", {"cycles": 2}, [(1 + math.cos(math.pi * (t % 4) / 4)) / 2 for t in range(8)]),
        ("polynomial", None, [1 - t / 8 for t in range(8)]),
        ("step", {"gamma": 0.5}, [0.5 ** (t // 3) for t in range(8)]),
        ("step", {"step_size": 1}, [1.0] * 4 + [0.1] * 4),
        ("exponential", {"gamma": 0.5, "interval": "step"}, [0.5**t for t in range(8)]),
    ],
)
def test_schedules_last_as_long_as_the_training(schedule, options, expected):
    assert rates(schedule=schedule, schedule_options=options) == pytest.approx(expected)


def test_one_cycle_peaks_at_lr_and_ends_with_the_training():
    seen = rates(schedule="one_cycle", schedule_options={"pct_start": 0.5})
    assert max(seen) == pytest.approx(1.0, rel=0.05)
    assert seen[-1] < 0.1


def test_plateau_follows_the_validation_loss():
    options = {"patience": 0, "factor": 0.5, "threshold": 0.5}  # never better again
    module = ImageClassifier(net(), 3, lr=1e-6, schedule="ReduceLROnPlateau", schedule_options=options)
    fit = trainer(max_epochs=3)
    fit.fit(module, loader(), loader(7, seed=1))
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.25e-6)
    x, y = loader(7, seed=1).dataset.tensors
    assert fit.lr_scheduler_configs[0].scheduler.best == pytest.approx(cross_entropy(module(x), y).item(), rel=1e-3)


def test_plateau_of_a_score_needs_its_mode():
    with pytest.raises(ValueError, match="`mode` must be given for 'val/acc', which by its name is a score"):
        ImageClassifier(net(), 3, schedule="plateau", schedule_options={"monitor": "val/acc"})
    ImageClassifier(net(), 3, schedule="plateau", schedule_options={"monitor": "val/acc", "mode": "max"})


def test_a_resumed_training_ends_where_an_unbroken_one_ends(tmp_path):
    def run(epochs, ckpt=None):
        torch.manual_seed(0)
        module = ImageClassifier(**SMALL, schedule="one_cycle", schedule_options={"total_steps": 12})
        fit = trainer(max_epochs=epochs)
        fit.fit(module, loader(), loader(), ckpt_path=ckpt)
        return fit, module

    fit, _ = run(2)
    fit.save_checkpoint(tmp_path / "half.ckpt")
    resumed, unbroken = run(4, tmp_path / "half.ckpt")[1], run(4)[1]
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_checkpoint_loads_without_arguments_and_with_weights_only(tmp_path):
    module = ImageClassifier(**SMALL, optimizer="SGD", optimizer_options={"momentum": 0.9}, schedule="step")
    fit = trainer()
    fit.fit(module, loader(), loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    found = ImageClassifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(found.eval()(x), module.eval()(x))
    assert found.optimizer_options == {"momentum": 0.9}
    with_net = ImageClassifier(net(), 3)
    fit = trainer()
    fit.fit(with_net, loader(), loader())
    fit.save_checkpoint(tmp_path / "b.ckpt")
    found = ImageClassifier.load_from_checkpoint(tmp_path / "b.ckpt", model=net(), weights_only=True)
    assert torch.equal(found(x), with_net(x))


@pytest.mark.parametrize("classes", [2, 9])
@pytest.mark.parametrize("weights_only", [False, True])
def test_a_replaced_head_is_saved_and_loaded(tmp_path, classes, weights_only):
    module = ImageClassifier(**SMALL)
    replace_head(module, classes)
    fit = trainer()
    fit.fit(module, loader(classes=classes), loader(classes=classes))
    fit.save_checkpoint(tmp_path / "a.ckpt", weights_only=weights_only)
    x = torch.randn(4, 1, 8, 8)
    found = ImageClassifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(found.eval()(x), module.eval()(x))
    assert found.num_classes == classes
    scores = [trainer().test(each, loader(classes=classes), verbose=False) for each in (module, found)]
    assert scores[0] == scores[1]
    fit.save_checkpoint(tmp_path / "again.ckpt", weights_only=weights_only)
    assert ImageClassifier.load_from_checkpoint(tmp_path / "again.ckpt").num_classes == classes


def test_a_replaced_head_of_a_built_model_is_loaded(tmp_path):
    module = ImageClassifier(net(), 3)
    replace_head(module, 5)
    fit = trainer()
    fit.fit(module, loader(classes=5), loader(classes=5))
    fit.save_checkpoint(tmp_path / "a.ckpt")
    for model in (net(3), net(5)):
        found = ImageClassifier.load_from_checkpoint(tmp_path / "a.ckpt", model=model)
        assert found.num_classes == 5
        assert torch.equal(found.model[1].weight, module.model[1].weight)


def test_another_architecture_with_another_head_is_refused(tmp_path):
    fit = trainer()
    fit.fit(ImageClassifier(**SMALL), loader(), loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(RuntimeError, match="size mismatch"):
        ImageClassifier.load_from_checkpoint(tmp_path / "a.ckpt", num_classes=4, model_options={"width": 3})


def test_copies_and_pickles():
    module = ImageClassifier(**SMALL)
    x = torch.randn(2, 1, 8, 8)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin.eval()(x), module.eval()(x))


@pytest.mark.parametrize("in_place", [True, False])
def test_compiled(in_place):
    module = ImageClassifier(net(), 3)
    if in_place:
        module.compile(backend="eager")
    fit = trainer()
    fit.fit(module if in_place else torch.compile(module, backend="eager"), loader(), loader())
    assert fit.global_step == 3


# Models by name


def test_models_of_torchvision_and_timm():
    pytest.importorskip("timm")
    x = torch.rand(2, 3, 32, 32)
    assert ImageClassifier("squeezenet1_1", 5)(x).shape == (2, 5)
    assert ImageClassifier("timm/test_resnet", 5, model_options={"in_chans": 1})(x[:, :1]).shape == (2, 5)


def test_timm_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'lightning-trainingkit\[recipes\]'"):
        ImageClassifier("timm/resnet18", 3)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet81"}, "`model` must be .*got 'resnet81'. Nearest names: resnet18"),
        (
            {"model": "timm/resnt18"},
            "`model` must be a model of timm, got 'timm/resnt18'. Nearest names: timm/resn",
        ),
        ({"optimizer": "adamw"}, "`optimizer` must be .*got 'adamw'. Nearest names: AdamW"),
        ({"optimizer": "LBFGS"}, "with weight decay"),
        ({"schedule": "cosin"}, "`schedule` must be .*got 'cosin'. Nearest names: cosine"),
        ({"loss": "hing"}, "`loss` must be 'cross_entropy' or 'hinge', got 'hing'. Nearest names: hinge"),
        ({"num_classes": 1}, "`num_classes` must be at least 2, got 1"),
        ({"model_options": {"depth": 3}}, "`model_options` must fit SmallResNet.*It may hold"),
        ({"optimizer_options": {"momentum": 0.9}}, "`optimizer_options` must fit AdamW.*It may hold"),
        ({"optimizer_options": {"lr": 0.9}}, "`optimizer_options` must not hold 'lr'"),
        ({"schedule": "multistep"}, "`schedule_options` must fit MultiStepLR.*milestones"),
        ({"schedule_options": {"gamma": 1}}, "`schedule_options` must fit warmup_cosine"),
        ({"schedule": "cyclic_cosine", "schedule_options": {"T_max": 1}}, "It may hold .*cycles"),
        ({"schedule_options": {"interval": "day"}}, "must be 'step' or 'epoch', got 'day'"),
        ({"model": nn.Linear(1, 1), "model_options": {"width": 2}}, "`model_options` must be left out"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ImageClassifier(**{**SMALL, "model_options": None, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": "10"}, "`num_classes` must be an integer, got '10'"),
        ({"lr": "1e-3"}, "`lr` must be a number, got '1e-3'.*1.0e-3"),
        ({"lr": None}, "`lr` must be a number, got None"),
        ({"weight_decay": "0.1"}, "`weight_decay` must be a number, got '0.1'"),
        ({"model": 18}, "`model` must be a module or a name, got 18"),
        ({"model": nn.Linear, "model_options": None}, "`model` must be a module or a name, got <class"),
        ({"loss": cross_entropy}, "`loss` must be a name, got <function"),
        ({"optimizer": torch.optim.SGD}, "`optimizer` must be a name, got <class"),
        ({"schedule": 3}, "`schedule` must be a name, got 3"),
        ({"model_options": "width"}, "`model_options` must be a dict or None, got 'width'"),
        ({"optimizer_options": ["momentum"]}, r"`optimizer_options` must be a dict or None, got \['momentum'\]"),
        ({"schedule_options": 3}, "`schedule_options` must be a dict or None, got 3"),
    ],
)
def test_arguments_of_a_wrong_type(options, message):
    with pytest.raises(TypeError, match=message):
        ImageClassifier(**{**SMALL, **options})


@pytest.mark.parametrize("options", [{"lr": -0.1}, {"lr": math.nan}, {"weight_decay": -1}])
def test_rates_below_zero_and_nan(options):
    with pytest.raises(ValueError, match=r"` must be .*at least 0, got"):
        ImageClassifier(**{**SMALL, **options})


@pytest.mark.parametrize("stage", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.tensor([0, 3]), ValueError, r"`target` must be in 0 .. 2 \(num_classes=3\), got labels from 0 to 3"),
        (torch.tensor([-1, 2]), ValueError, "got labels from -1 to 2"),
        (torch.tensor([0.0, 1.0]), TypeError, "`target` must be integer class indices, got torch.float32"),
        (torch.tensor([[0], [1]]), ValueError, r"must have shape \(N,\), got \(2, 1\)"),
        (torch.rand(2, 4), ValueError, r"probabilities of shape \(N, 3\), got \(2, 4\)"),
        (["cat", "dog"], TypeError, "`target` must be a tensor, got list"),
    ],
)
def test_bad_labels(stage, y, error, message):
    step = {"train": "training_step", "val": "validation_step", "test": "test_step"}[stage]
    with pytest.raises(error, match=message):
        getattr(ImageClassifier(net(), 3), step)([torch.rand(2, 1, 8, 8), y], 0)


@pytest.mark.parametrize(
    ("model", "x", "error", "message"),
    [
        ("small_resnet", torch.rand(2, 3, 8, 8), ValueError, r"shape \(2, 3, 8, 8\).*stem.0.0, expects \(N, 1, H, W\)"),
        (net(), torch.rand(2, 1, 9, 9), ValueError, r"shape \(2, 1, 9, 9\).*1, expects 64 features"),
        (nn.Flatten(), torch.rand(2, 1, 8, 8), ValueError, r"\(N, num_classes\) = \(2, 3\), got \(2, 64\)"),
        (net(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), TypeError, "must be a tensor of floats, got torch.uint8"),
    ],
)
def test_bad_images_and_models(model, x, error, message):
    module = ImageClassifier(model, 3)
    with pytest.raises(error, match=message):
        module.training_step([x, torch.tensor([0, 1])], 0)
    with pytest.raises(error, match=message):
        module.predict_step(x, 0)


def test_a_fault_shows_in_the_sanity_check_before_training():
    module = ImageClassifier(net(), 3)
    fit = trainer()
    with pytest.raises(ValueError, match="got labels from"):
        fit.fit(module, loader(), loader(40, classes=9))
    assert fit.global_step == 0


def test_each_fit_checks_again():
    module = ImageClassifier(net(), 3)
    trainer().fit(module, loader(), loader())
    with pytest.raises(ValueError, match="got labels from"):
        trainer().fit(module, loader(40, batch_size=40, classes=9), loader())


def test_a_batch_that_is_no_pair():
    with pytest.raises(TypeError, match="`batch` must be a pair of images and targets, got dict of 2"):
        ImageClassifier(net(), 3).training_step({"x": 1, "y": 2}, 0)


def test_hinge_wants_class_indices():
    with pytest.raises(ValueError, match="Use loss='cross_entropy'"):
        ImageClassifier(net(), 3, loss="hinge").training_step([torch.rand(2, 1, 8, 8), torch.rand(2, 3)], 0)


@pytest.mark.parametrize("schedule", [None, "warmup_cosine"])
@pytest.mark.filterwarnings("ignore:Total length of .* across ranks is zero")
def test_empty_training_set(schedule):
    with pytest.raises(ValueError, match="`train_dataloader` must give at least one batch, got none"):
        trainer().fit(ImageClassifier(net(), 3, schedule=schedule), loader(0), loader())


def test_more_cycles_than_steps():
    module = ImageClassifier(net(), 3, schedule="cyclic_cosine", schedule_options={"cycles": 9})
    with pytest.raises(ValueError, match="`cycles` must be from 1 to the number of optimizer steps, 3, got 9"):
        trainer().fit(module, loader(), loader())


def test_a_training_without_an_end_needs_a_length():
    with pytest.raises(ValueError, match="`schedule_options` must give 'T_max'"):
        trainer(max_epochs=-1).fit(ImageClassifier(net(), 3, schedule="cosine"), loader(), loader())


def test_built_from_yaml(tmp_path, monkeypatch):
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    config = tmp_path / "config.yaml"
    config.write_text(
        "model:\n"
        "  class_path: lightning_trainingkit.modules.image_classifier.ImageClassifier\n"
        "  init_args: {model: small_resnet, num_classes: 10, model_options: {width: 2}, schedule: step,"
        " schedule_options: {gamma: 0.5}}\n"
        "data:\n"
        "  class_path: lightning_trainingkit.data.digits.DigitsDataModule\n"
        "  init_args: {batch_size: 32}\n"
    )
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", str(config)])
    cli = LightningCLI(
        run=False,
        seed_everything_default=False,
        trainer_defaults={**QUIET, "fast_dev_run": True},
        save_config_callback=None,
    )
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 1


def test_options_that_a_named_model_does_not_take():
    with pytest.raises(ValueError, match=r"`model_options` must be arguments of resnet18, got .'in_channels': 1"):
        ImageClassifier("resnet18", 10, model_options={"in_channels": 1})


def test_classes_counted_by_numpy_leave_checkpoints_that_load_safely():
    module = ImageClassifier("small_resnet", num_classes=np.array([3, 9, 0]).max() + 1)
    assert type(module.hparams["num_classes"]) is int
