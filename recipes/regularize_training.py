"""One training of regularize.py: its fit, its scores, and the time of a step."""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from regularize_setups import REGULARISERS, Case, Setup, VanillaDropout, apart_from_inverted, new_model
from torch.utils.data import DataLoader

import lightning_trainingkit as kit
from lightning_trainingkit import experiments

PASSES, FEW_PASSES = 10, 2  # of MonteCarloDropout, and for each view of TestTimeAugmentation
TIMED = 30  # steps of a timed fit


def trained(
    args: argparse.Namespace, folder: Path, data: Any, case: Case, seed: int, strengths: dict[str, float]
) -> dict[str, Any]:
    """Train once with these regularisers, or read the scores from a run that finished this training."""
    own = folder / f"seed-{seed}" / ",".join(f"{name.replace(' ', '_')}={value:g}" for name, value in strengths.items())
    precision = experiments.default_precision(args.data, args.precision, args.accelerator)
    settings = {**asdict(case), "split": args.seed, "precision": precision, "strengths": strengths}
    done = experiments.finished_metrics(own, settings)
    if done is None:
        start = time.perf_counter()
        done = train(
            args, own, data, case, seed, [REGULARISERS[name].build(value, case) for name, value in strengths.items()]
        )
        done["strength"] = next(iter(strengths.values())) if len(strengths) == 1 else None
        experiments.write_results(own, settings, done, [], time.perf_counter() - start)
    return done


def train(
    args: argparse.Namespace, folder: Path, data: Any, case: Case, seed: int, setups: Sequence[Setup]
) -> dict[str, Any]:
    """Train once. Return errors and losses on training, validation and test images."""
    few = experiments.few_images(data, case.images, torch.Generator().manual_seed(seed))
    noise = [each for setup in setups for each in setup.noise]
    model = fit(args, folder, few, case, seed, setups)
    fast = channels_last(args)

    # The last weights, or those that EarlyStopping has restored, without the noise.
    plain = experiments.new_trainer(args, folder, *fast)
    sets = {"train": few.train_set, "val": data.val_set, "test": data.test_set}
    loaders = {part: DataLoader(images, 500) for part, images in sets.items()}
    scores: dict[str, Any] = {}
    for part, loader in loaders.items():
        scores |= tested(plain, model, loader, part)
    views = [kit.TestTimeAugmentation(list(each.views)) for each in setups if each.views]
    passes = FEW_PASSES if views else PASSES
    averages = [*views, *([kit.MonteCarloDropout(passes)] if noise else [])]
    if averages:
        averaging = experiments.new_trainer(args, folder, *fast, *noise, *averages)
        scores |= tested(averaging, model, loaders["test"], "averaged")
    if any(each.vanilla is not None for each in setups):
        scores["apart"] = apart_from_inverted(model.model, next(iter(loaders["test"]))[0])
        for layer in model.modules():
            if isinstance(layer, VanillaDropout):
                layer.forgotten = True
        scores |= tested(plain, model, loaders["test"], "forgotten")
    return scores


def fit(
    args: argparse.Namespace,
    folder: Path,
    few: Any,
    case: Case,
    seed: int,
    setups: Sequence[Setup],
    *callbacks: L.Callback,
    **options: Any,
) -> Any:
    """Train a new model."""
    L.seed_everything(seed, verbose=False)
    model = new_model(case.network, few.image_shape, few.num_classes, setups)
    used = [each for setup in setups for each in (*setup.callbacks, *setup.noise)]
    if penalty := {key: value for each in setups for key, value in each.penalty.items()}:
        used.append(kit.WeightPenalty(**penalty, proximal=True, verbose=False))
    # Only early stopping looks at validation images during the training.
    unseen = {} if any(isinstance(each, kit.EarlyStopping) for each in used) else {"limit_val_batches": 0}
    trainer = experiments.new_trainer(
        args,
        folder,
        *channels_last(args),
        kit.EpochSeed(seed),
        *used,
        *callbacks,
        **{"max_epochs": case.epochs, "num_sanity_val_steps": 0, **unseen, **options},
    )
    trainer.fit(model, few)
    return model


def channels_last(args: argparse.Namespace) -> list[L.Callback]:
    """Make the callback that speeds up convolutions, if images are large enough for it."""
    return [kit.ChannelsLast()] if args.data != "digits" else []


def tested(trainer: L.Trainer, model: L.LightningModule, loader: DataLoader[Any], name: str) -> dict[str, float]:
    """Return the error and the loss."""
    scores = trainer.test(model, loader, verbose=False)[0]
    return {f"{name}/error": 1 - scores["test/acc"], f"{name}/loss": scores["test/loss"]}


def step_times(
    args: argparse.Namespace, folder: Path, data: Any, case: Case, chosen: dict[str, dict[str, float]]
) -> dict[str, list[float]]:
    """Time short fits in turns, since a machine's speed changes. Return milliseconds of a step, one for each round."""
    own = folder / f"{case.network}-{case.images}" / "times"
    settings = {**asdict(case), "chosen": chosen, "rounds": args.seeds}
    file = own / "results.json"
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    done: dict[str, list[float]] | None = earlier["metrics"] if earlier.get("config") == settings else None
    if done is None:
        start = time.perf_counter()
        few = experiments.few_images(data, case.images, torch.Generator().manual_seed(args.seed))
        done = {name: [] for name in chosen}
        for _ in range(args.seeds):
            for name, strengths in chosen.items():
                steps = StepTimes()
                setups = [REGULARISERS[key].build(value, case) for key, value in strengths.items()]
                # A whole epoch, so that early stopping finds a validation
                fit(args, own, few, case, args.seed, setups, steps, max_steps=TIMED, limit_train_batches=TIMED)
                done[name].append(1000 * median(steps.seconds))
        experiments.write_results(own, settings, done, [], time.perf_counter() - start)
    return done


class StepTimes(L.Callback):
    """Measure the time of this process from the start of each step to the start of the next one in its epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End a step and begin one."""
        now = time.process_time()
        if batch_idx:
            self.seconds.append(now - self.begun)
        self.begun = now
