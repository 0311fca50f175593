import copy
import logging
import pickle
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit.callbacks.channels_last import ChannelsLast
from tests.toy import ToyModule, toy_loaders, toy_trainer


def is_last(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def make_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


class Spy(L.LightningModule):
    """Notes whether its batches, weights and buffers are stored channels last."""

    def __init__(self, net: nn.Module | None = None, crash: bool = False) -> None:
        super().__init__()
        self.net = net or make_net()
        self.register_buffer("image", torch.randn(1, 3, 4, 4))
        self.crash = crash
        self.seen: set[str] = set()

    def step(self, batch, stage):
        x = batch["x"][0]
        if is_last(x):
            self.seen.add(f"{stage} batch")
        if is_last(self.image):
            self.seen.add(f"{stage} buffer")
        if any(is_last(weight) for weight in self.net.parameters() if weight.dim() == 4):
            self.seen.add(f"{stage} weight")
        if self.crash:
            raise RuntimeError("crash")
        return self.net(x + self.image).square().mean()

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "validate")

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")

    def predict_step(self, batch, batch_idx):
        return self.step(batch, "predict")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Late(Spy):
    """Makes its layers in configure_model."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 1))

    def configure_model(self):
        if isinstance(self.net, nn.Linear):
            self.net = make_net()


def make_loader() -> DataLoader:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(
        TensorDataset(x, torch.arange(6)),
        batch_size=3,
        collate_fn=lambda rows: {
            "x": (torch.stack([row[0] for row in rows]),),
            "y": torch.stack([row[1] for row in rows]),
        },
    )


def make_trainer(root, *callbacks, **kwargs) -> L.Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"logger": False, "max_epochs": 1, "accelerator": "cpu", **quiet, **kwargs}
    return L.Trainer(default_root_dir=root, callbacks=list(callbacks), **settings)


def stored_as_made(module: nn.Module) -> bool:
    return all(each.is_contiguous() for each in module.state_dict().values())


@pytest.mark.parametrize("make", [Spy, Late])
def test_steps_see_channels_last_and_the_module_gets_its_strides_back(tmp_path, make):
    model = make()
    trainer = make_trainer(tmp_path, ChannelsLast())
    trainer.fit(model, make_loader(), make_loader())
    assert stored_as_made(model)
    trainer.test(model, make_loader(), verbose=False)
    trainer.predict(model, make_loader())
    stages = ("train", "validate", "test", "predict")
    assert model.seen == {f"{stage} {what}" for stage in stages for what in ("batch", "buffer", "weight")}
    assert stored_as_made(model)


def test_values_are_those_without_it(tmp_path):
    ends = []
    start = Spy()
    for callbacks in ([], [ChannelsLast()]):
        model = copy.deepcopy(start)
        make_trainer(tmp_path, *callbacks).fit(model, make_loader(), make_loader())
        ends.append(model.state_dict())
    torch.testing.assert_close(ends[0], ends[1])


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_a_step_that_raises_leaves_the_module_as_found(tmp_path, stage):
    model = Spy(crash=True)
    before = copy.deepcopy(model.state_dict())
    loaders = [make_loader()] * (2 if stage == "fit" else 1)
    run = getattr(make_trainer(tmp_path, ChannelsLast()), stage)
    with pytest.raises(RuntimeError, match="crash"):
        run(model, *loaders)
    assert stored_as_made(model)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert "setup" not in vars(model)
    assert "configure_model" not in vars(model)


def test_weights_that_were_channels_last_stay_so(tmp_path):
    model = Spy(make_net().to(memory_format=torch.channels_last))
    make_trainer(tmp_path, ChannelsLast()).fit(model, make_loader(), make_loader())
    assert is_last(model.net[0].weight)
    assert model.image.is_contiguous()
    assert "train batch" in model.seen


def test_model_without_images_is_left_alone_and_told_so_once(tmp_path, caplog):
    model = Spy(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)))
    model.image = model.image[0]  # broadcasts just as well
    callback = ChannelsLast()
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        trainer = make_trainer(tmp_path, callback)
        trainer.fit(model, make_loader(), make_loader())
        trainer.test(model, make_loader(), verbose=False)
    assert model.seen == set()
    assert caplog.text.count("ChannelsLast does nothing: Spy has no 4-d weight") == 1


def test_tensors_of_the_user_remain_fit_for_training(tmp_path):
    batch = {"x": (torch.randn(3, 3, 4, 4),)}
    make_trainer(tmp_path, ChannelsLast()).validate(Spy(), DataLoader([batch], batch_size=None), verbose=False)
    assert not batch["x"][0].is_inference()


def test_batches_of_any_form_are_converted(tmp_path):
    class Pair(NamedTuple):
        x: torch.Tensor
        y: Any

    def x() -> torch.Tensor:
        return torch.randn(3, 3, 4, 4)

    class Noting(Spy):
        def test_step(self, batch, batch_idx):
            seen.append([is_last(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)])

    seen: list[list[bool]] = []
    batches = [
        x(),
        [x(), x()],
        (x(), "name"),
        Pair(x(), [x()]),
        {"x": x(), "more": {"y": (x(), 1)}},
        [{"x": x()}, [x()]],
    ]
    make_trainer(tmp_path, ChannelsLast()).test(Noting(), DataLoader(batches, batch_size=None), verbose=False)
    assert seen == [[True], [True] * 2, [True], [True] * 2, [True] * 2, [True] * 2]


def test_lazy_layers_are_left_to_their_first_batch(tmp_path):
    lazy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyConv2d(2, 2), nn.Flatten())
    model = Spy(lazy)
    make_trainer(tmp_path, ChannelsLast()).predict(model, make_loader())
    assert model.seen == {"predict batch", "predict buffer", "predict weight"}


def test_pickles_and_copies(tmp_path):
    callback = ChannelsLast()
    make_trainer(tmp_path, callback).fit(Spy(), make_loader(), make_loader())
    pickle.loads(pickle.dumps(callback))
    copy.deepcopy(callback)


def test_images_and_weights_of_one_channel_get_the_strides_too(tmp_path):
    # They lie both ways already, and torch would take them for the slow one: a fit took 1.3 times as long, not 0.7.
    class OneChannel(ToyModule):
        def training_step(self, batch, batch_idx):
            self.seen = batch[0].stride(), self.net[0].weight.stride()
            return super().training_step(batch, batch_idx)

    module = OneChannel()
    before = module.net[0].weight.stride()
    toy_trainer(ChannelsLast(), max_epochs=1).fit(module, *toy_loaders())
    assert module.seen == ((16, 1, 4, 1), (9, 1, 3, 1))
    assert module.net[0].weight.stride() == before
