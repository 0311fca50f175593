"""Regularisers, each alone and all together: what each gains on test images, and what it costs.

- **The base**: a small residual network with max pooling and without BatchNorm, on which all regularisers have a
  place, and AdamW without weight decay. BatchNorm's strength is the number of residual blocks with norms.
- **Fair**: the split is fixed. A seed has the same training images, first weights and order for all, so that gains are
  paired. Of three strengths the first three seeds choose, by validation error. Test images serve in no choice. The
  learning rate and the epochs suit the base on validation; a regulariser might like others.
- **Both sides**: `gain` is of a test without noise, and `averaging gains` is what its average adds: masks, branches and
  regions by `MonteCarloDropout`, flips and shifts by `TestTimeAugmentation`. BatchNorm's statistics are an average.
- **All together**: each with its own strength. An elastic net is L1 and L2, and mixup stands for CutMix, too.
- **Beside the table**: dropout in a perceptron, and cutout and mixup for a second number of images, with as many steps.

Intervals are over seeds: they hold for these test images.

Expected: not measured yet
Cost:     not measured yet
Command:  python recipes/regularize.py
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from regularize_setups import (
    ALL,
    REGULARISERS,
    TOGETHER,
    Case,
    Setup,
    VanillaDropout,
    apart_from_inverted,
    combined,
    new_model,
)
from regularize_table import claims, draw, row, shown, verdict
from torch.utils.data import DataLoader

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, wandb_runs

SEEDS = {"digits": 10, "fashion-mnist": 5}
EPOCHS = {"digits": 80, "fashion-mnist": 20}
BATCH = {"digits": 32, "fashion-mnist": 64}
CHOOSING = 3  # seeds whose validation error chooses a strength
PASSES, FEW_PASSES = 10, 2  # of MonteCarloDropout, and for each view of TestTimeAugmentation


def main() -> None:
    """Train each regulariser with each strength, choose on validation, compare on test, and draw."""
    parser = experiments.argument_parser("regularize", __doc__)
    parser.add_argument("--seeds", type=at_least(2), help=f"how many, from --seed on (default: {SEEDS})")
    parser.add_argument("--images", type=at_least(10), default=200, help="to train on (%(default)s)")
    parser.add_argument("--share", type=float, help="of the training set to train on, instead of --images")
    parser.add_argument("--epochs", type=at_least(1), help=f"of each training (default: {EPOCHS})")
    parser.add_argument("--only", nargs="+", choices=ALL, help="these alone, beside none")
    args = parser.parse_args()
    if args.data not in EPOCHS:
        parser.error(f"--data must be {' or '.join(EPOCHS)}, got {args.data}.")
    if args.share is not None and not 0 < args.share <= 1:
        parser.error(f"--share must be above 0 and at most 1, got {args.share}.")
    args.epochs, args.seeds = args.epochs or EPOCHS[args.data], args.seeds or SEEDS[args.data]
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    experiments.quiet()
    folder = experiments.open_folder("regularize", args.output, resume=args.resume)
    data = experiments.data_module(args.data, args.data_dir, batch_size=BATCH[args.data], seed=args.seed)
    data.prepare_data()
    data.setup()

    # 1. Each case: all strengths of each regulariser, then all together, each with its own best strength.
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for label, (case, names) in cases(args, len(data.train_set)).items():
        found[label] = compare(args, folder, data, case, names)

    # 2. Differences to the training without a regulariser, paired by seed.
    rows = [row(label, name, runs, each["none"]) for label, each in found.items() for name, runs in each.items()]
    for each in rows:
        if each["regulariser"] != "none":
            print(f"{each['regulariser']}, {each['case']}: {verdict(each)}")
    judged = claims(parser, args, found)
    for each in judged:
        print(f"{each['claim']}: {each['verdict']}. {each['measured']}")

    # 3. The forest plot.
    figure = Figure(figsize=(8, 0.3 * len(rows) + 1.2), layout="constrained")
    draw(figure, rows)
    rank_zero_only(figure.savefig)(folder / "regularize.png", dpi=150)

    seconds = time.perf_counter() - start
    experiments.write_results(folder, vars(args), {"trainings": found}, rows, seconds, judged)
    if args.wandb != "disabled":
        for each in rows:
            wandb_runs.record(args, folder, "eval", f"{each['regulariser']}, {each['case']}", each)
    for label in found:
        experiments.print_table(f"{args.data}, {label}", [shown(each) for each in rows if each["case"] == label])
    notes = (
        f"{seconds:.0f} s. Percent, means of {args.seeds} seeds, +-: 95 % interval, paired by seed",
        "gain: test error of none less test error. averaging gains: by averaging over the noise at test time",
        "gap: test less train error. gap less: how much smaller it is than for none",
        "time: of a training step, as a multiple of none's. strength: the choice of validation",
        f"Files: {folder}/regularize.png, {folder}/results.json",
        *wandb_runs.center(args, folder),
    )
    print(*notes, sep="\n")


def cases(args: argparse.Namespace, size: int) -> dict[str, tuple[Case, list[str]]]:
    """Make the cases with their regularisers: the table, the MLP for dropout, another size for cutout and mixup."""
    count = min(args.images, size) if args.share is None else round(args.share * size)
    other = args.images if args.share else min(5 * args.images, size)
    names = args.only or ALL
    found = {f"CNN, {count} images": (Case(args.data, "CNN", count, args.epochs), [*names, TOGETHER])}
    if "dropout" in names:
        mlp = Case(args.data, "MLP", count, args.epochs)
        found[f"MLP, {count} images"] = mlp, ["dropout", "vanilla dropout"]
    blends = [name for name in ("cutout", "mixup") if name in names]
    if blends and other != count:
        epochs = max(1, round(args.epochs * count / other))  # as many steps as in the table
        found[f"CNN, {other} images"] = Case(args.data, "CNN", other, epochs), blends
    return found


def compare(
    args: argparse.Namespace, folder: Path, data: Any, case: Case, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Choose each regulariser's strength on the first seeds, and train it with all seeds."""
    seeds = range(args.seed, args.seed + args.seeds)
    own = folder / f"{case.network}-{case.images}"
    chosen: dict[str, float] = {}
    found = {}
    for name in ("none", *names):
        if name == TOGETHER:
            strengths = combined(chosen)
        else:
            tried = {
                value: [trained(args, own, data, case, seed, {name: value}) for seed in seeds[:CHOOSING]]
                for value in REGULARISERS[name].strengths
            }
            chosen[name] = min(tried, key=lambda value: on_validation(tried[value]))
            strengths = {name: chosen[name]}
        found[name] = [trained(args, own, data, case, seed, strengths) for seed in seeds]
        print(
            f"{case.network}, {case.images} images, {name}: {', '.join(f'{x:g}' for x in strengths.values())}",
            flush=True,
        )
    return found


def on_validation(runs: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Average the validation error, and the loss, which decides between equal errors. NaN is the worst."""
    losses = [run["val/loss"] for run in runs]
    lost = any(loss is None or math.isnan(loss) for loss in losses)
    return fmean(run["val/error"] for run in runs), math.inf if lost else fmean(losses)


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
    """Train once. Return the loss on validation, the errors on test and training images, and the time of a step."""
    few = experiments.few_images(data, case.images, torch.Generator().manual_seed(seed))
    L.seed_everything(seed, verbose=False)
    model = new_model(case.network, data.image_shape, data.num_classes, setups)
    penalty = {key: value for each in setups for key, value in each.penalty.items()}
    noise = [each for setup in setups for each in setup.noise]
    fast = [kit.ChannelsLast()] if args.data != "digits" else []
    steps = StepTimes()
    callbacks = [*fast, kit.EpochSeed(seed), *(each for setup in setups for each in setup.callbacks), *noise, steps]
    if penalty:
        callbacks.append(kit.WeightPenalty(**penalty, proximal=True, verbose=False))
    # Only early stopping looks at validation images during the training.
    unseen = {} if any(isinstance(each, kit.EarlyStopping) for each in callbacks) else {"limit_val_batches": 0}
    options = {"max_epochs": case.epochs, "num_sanity_val_steps": 0, **unseen}
    experiments.new_trainer(args, folder, *callbacks, **options).fit(model, few)

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
    return {**scores, "ms": 1000 * median(steps.seconds)}


def tested(trainer: L.Trainer, model: L.LightningModule, loader: DataLoader[Any], name: str) -> dict[str, float]:
    """Return the error and the loss."""
    scores = trainer.test(model, loader, verbose=False)[0]
    return {f"{name}/error": 1 - scores["test/acc"], f"{name}/loss": scores["test/loss"]}


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


if __name__ == "__main__":
    main()
