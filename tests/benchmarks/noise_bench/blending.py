"""A training step with Mixup, CutMix, Cutout or Blend, against the plain step and timm's Mixup."""

import argparse
import functools
import itertools
import random
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import timm.data
import torch
from measuring import DEVICE
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_trainingkit as kit
from lightning_trainingkit import functional
from lightning_trainingkit._lightning import L
from noise_bench.comparing import Times, measured, overhead, race

CLASSES, BATCH, SIDE = 10, 128, 28
JUDGED = {"Mixup": 1.02, "CutMix": 1.02, "Cutout": 1.02, "Blend": 1.02, "timm's Mixup": None, "control": None}
"""Competitors, and how many times as long a step may take as the plain step."""
Step = Callable[[], Any]


def rows(args: argparse.Namespace, draw: random.Random) -> list[dict]:
    """The rows of this part."""
    cnn = timed(small_cnn(), args.rounds, draw, calls=1)
    found = [overhead(f"{name}: step overhead", cnn, name, "plain", draw, goal) for name, goal in JUDGED.items()]
    # A net that takes almost no time shows fractions of a millisecond.
    tiny = timed(nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, CLASSES)), 5 * args.rounds, draw, calls=4)
    found += [
        more(f"{name}: ms of a step more than with {peer}", tiny, name, peer, draw, goal)
        for name, peer, goal in (
            ("Mixup, soft", "timm's Mixup", 0.1),
            ("CutMix, soft", "timm's CutMix", None),
            ("Mixup", "timm's Mixup", None),
            ("CutMix", "timm's CutMix", None),
            ("control", "plain", None),
        )
    ]
    alone = race(blends(), 5 * args.rounds, draw, calls=20, warm_up=20)
    found += [
        more(f"{name}: ms of a blend alone more than {peer}", alone, name, peer, draw, 0.1)
        for name, peer in (("Mixup", "timm's Mixup"), ("CutMix", "timm's CutMix"))
    ]
    return [*found, agreement()]


def small_cnn() -> nn.Module:
    """Four convolutions with BatchNorm."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise([1, 32, 32, 64, 64]):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if before == after else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def timed(net: nn.Module, rounds: int, draw: random.Random, calls: int) -> Times:
    """Seconds of a whole training step, by callback. The module is the kit's classifier, which logs and measures."""
    times: dict[str, list[float]] = {}

    class Timing(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            times.update(race(competitors(trainer, pl_module), rounds, draw, calls, warm_up=3))
            trainer.should_stop = True

    x, y = torch.randn(BATCH, 1, SIDE, SIDE), torch.randint(CLASSES, (BATCH,))
    module = kit.ImageClassifier(net, CLASSES, optimizer="SGD", lr=0.01, schedule=None)
    trainer = L.Trainer(
        callbacks=[Timing()],
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=0,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(TensorDataset(x, y), BATCH)
    trainer.fit(module, loader, loader)
    return times


def competitors(trainer: L.Trainer, module: L.LightningModule) -> Mapping[str, Step]:
    """A step with each callback: the blend, the module's own step, the gradients, the optimizer."""
    optimizer = trainer.optimizers[0]
    x, y = torch.randn(BATCH, 1, SIDE, SIDE, device=DEVICE), torch.randint(CLASSES, (BATCH,), device=DEVICE)

    def train(step: Callable[[Any], Tensor]) -> None:
        optimizer.zero_grad()
        step([x, y]).backward()
        optimizer.step()

    def plain(batch: Any) -> Tensor:
        return module.training_step(batch, 0)

    def timms(**options: float) -> Callable[[Any], Tensor]:
        blend = timm.data.Mixup(**options, label_smoothing=0.0, num_classes=CLASSES)
        return lambda batch: plain(blend(batch[0].clone(), batch[1]))  # it changes the images in place

    callbacks = {
        "Mixup": kit.Mixup(CLASSES),
        "CutMix": kit.CutMix(CLASSES),
        "Cutout": kit.Cutout(8),
        "Blend": kit.Blend([kit.Mixup(CLASSES), kit.CutMix(CLASSES)]),
        "Mixup, soft": kit.Mixup(CLASSES, targets="soft"),
        "CutMix, soft": kit.CutMix(CLASSES, targets="soft"),
    }
    steps = {name: functools.partial(each.around, trainer, module, plain) for name, each in callbacks.items()}
    steps |= {"plain": plain, "control": plain}
    steps |= {"timm's Mixup": timms(mixup_alpha=0.2), "timm's CutMix": timms(mixup_alpha=0.0, cutmix_alpha=1.0)}
    return {name: functools.partial(train, step) for name, step in steps.items()}


def blends() -> dict[str, Step]:
    """Blends of a batch with their draws, without a step: formulas of the kit, and timm's."""
    x, y = torch.randn(BATCH, 1, SIDE, SIDE, device=DEVICE), torch.randint(CLASSES, (BATCH,), device=DEVICE)
    generator, size = torch.Generator().manual_seed(0), (SIDE, SIDE)
    timms = {
        "timm's Mixup": timm.data.Mixup(mixup_alpha=0.2, label_smoothing=0.0, num_classes=CLASSES),
        "timm's CutMix": timm.data.Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=CLASSES),
    }

    def mixup() -> tuple[Tensor, Tensor]:
        partner = functional.random_partners(BATCH, generator)
        weight = float(functional.beta_weights(1, 0.2, generator))
        return functional.mixup(x, partner, weight), functional.blend_targets(y, partner, weight, CLASSES)

    def cutmix() -> tuple[Tensor, Tensor]:
        partner = functional.random_partners(BATCH, generator)
        boxes = functional.cutmix_boxes(functional.beta_weights(1, 1.0, generator), size, generator)
        weight = float(functional.kept_share(boxes, size))
        return functional.cutmix(x, partner, boxes), functional.blend_targets(y, partner, weight, CLASSES)

    steps = {name: functools.partial(lambda blend: blend(x.clone(), y), blend) for name, blend in timms.items()}
    return {"Mixup": mixup, "CutMix": cutmix, **steps}


def more(name: str, times: Times, ours: str, peer: str, draw: random.Random, goal: float | None) -> dict:
    """Milliseconds that a step takes longer."""
    pairs = list(zip(times[ours], times[peer], strict=True))

    def difference(pairs: list[tuple[float, float]]) -> float:
        return 1e3 * statistics.median(a - b for a, b in pairs)

    found = sorted(difference(draw.choices(pairs, k=len(pairs))) for _ in range(1000))
    medians = [1e3 * statistics.median(times[each]) for each in (ours, peer)]
    return measured(name, *medians, difference(pairs), goal, most=True, low=found[25], high=found[-26])


def agreement() -> dict:
    """Largest difference of images and targets to timm's, from timm's own draws."""
    largest = 0.0
    for options in ({"mixup_alpha": 1.0}, {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}):
        theirs = timm.data.Mixup(**options, label_smoothing=0.0, num_classes=CLASSES)
        for _ in range(20):
            x, y = torch.rand(8, 1, SIDE, SIDE), torch.randint(CLASSES, (8,))
            partner = torch.arange(8).flip(0)
            mixed, soft = theirs(x.clone(), y)
            box = torch.nonzero(((mixed != x) | (x == x.flip(0))).all(0)[0])
            weight = float(weight_in(soft, y))
            if "cutmix_alpha" in options:
                low, high = (box.amin(0), box.amax(0) + 1) if len(box) else (torch.zeros(2).long(),) * 2
                ours = functional.cutmix(x, partner, torch.cat([low.flip(0), high.flip(0)])[None])
            else:
                ours = functional.mixup(x, partner, weight)
            targets = functional.blend_targets(y, partner, weight, CLASSES)
            largest = max(largest, (ours - mixed).abs().max().item(), (targets - soft).abs().max().item())
    return measured("largest difference to timm from the same draws", largest, 0.0, largest, 1e-5, most=True)


def weight_in(soft: Tensor, y: Tensor) -> Tensor:
    """The weight that timm drew, read from its targets."""
    own = soft.gather(1, y[:, None])[:, 0]
    differ = y != y.flip(0)
    return own[differ].mean() if differ.any() else torch.tensor(1.0)
