"""Regularisers, each alone and all together: what each gains on test images, and what it costs.

- **The base**: a small residual network with max pooling and without BatchNorm, on which all regularisers have a
  place, and AdamW without weight decay. BatchNorm's strength is the number of residual blocks with norms.
- **Fair**: the split is fixed. A seed has the same training images, first weights and order for all, so that gains are
  paired. Of three strengths the first three seeds choose, by validation error. Test images serve in no choice. The
  learning rate and the epochs suit the base on validation; a regulariser might like others.
- **Both sides**: `gain` is of a test without noise, and `averaged` of a test that averages over it: masks, branches and
  regions by `MonteCarloDropout`, flips and shifts by `TestTimeAugmentation`. BatchNorm's statistics are an average.
- **All together**: each with its own strength. An elastic net is L1 and L2, and mixup stands for CutMix, too.
- **Beside the table**: dropout in a perceptron, and cutout and mixup for a second number of images, with as many steps.

Intervals are over seeds: they hold for these test images. After the first run on digits, penalties became weaker, since
validation had taken the weakest, and early stopping looked at accuracy. Test scores had been seen by then.

Expected: digits, 200 images, 10 seeds, error 8.1 % without a regulariser. Gains in points, with 95 % intervals: CutMix
          2.8 +- 0.9, cutout 2.6 +- 1.0, mixup 2.5 +- 0.6, label smoothing 2.1 +- 0.8, DropConnect 1.1 +- 0.7. Gains
          with averaging at test time: flips and shifts 2.9 +- 1.0, fractional pooling 1.5 +- 0.8. Not to be told from
          none: BatchNorm (1.2 +- 1.3), dropout, stochastic depth, L1, L2, elastic net. Worse: early stopping (-1.1 +-
          1.0), and all together (-24 +- 5), which underfits.
Cost:     22 min on a busy machine with 2 cores, one thread, nothing to download. Fashion-MNIST:
          about 95 min on one core with bf16. Its table is in lightning_trainingkit/callbacks/noise/README.md
Command:  python recipes/regularize.py
          python recipes/regularize.py --data fashion-mnist --share 0.1
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from regularize_setups import ALL, REGULARISERS, TOGETHER, Case, combined
from regularize_table import claims, draw, row, shown, verdict
from regularize_training import step_times, trained

from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, wandb_runs

SEEDS = {"digits": 10, "fashion-mnist": 5}
EPOCHS = {"digits": 80, "fashion-mnist": 20}
BATCH = {"digits": 32, "fashion-mnist": 64}
CHOOSING = 3  # seeds whose validation error chooses a strength


def main() -> None:
    """Train each regulariser with each strength, choose on validation, compare on test, and draw."""
    parser = experiments.argument_parser("regularize", __doc__)
    parser.add_argument("--seeds", type=at_least(2), help=f"how many, from --seed on (default: {listed(SEEDS)})")
    parser.add_argument("--images", type=at_least(10), default=200, help="to train on (%(default)s)")
    parser.add_argument("--share", type=float, help="of the training set to train on, instead of --images")
    parser.add_argument("--epochs", type=at_least(1), help=f"of each training (default: {listed(EPOCHS)})")
    only = f"these alone, beside none: {', '.join(ALL)}"
    parser.add_argument("--only", nargs="+", choices=ALL, metavar="NAME", help=only)
    args = parser.parse_args()
    if args.data not in EPOCHS:
        parser.error(f"--data must be {' or '.join(EPOCHS)}, got {args.data}.")
    if args.share is not None and not 0 < args.share <= 1:
        parser.error(f"--share must be above 0 and at most 1, got {args.share}.")
    parser.set_defaults(epochs=EPOCHS[args.data], seeds=SEEDS[args.data])
    args.epochs, args.seeds = args.epochs or EPOCHS[args.data], args.seeds or SEEDS[args.data]
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    experiments.quiet()
    if args.data == "digits":
        torch.set_num_threads(1)  # more are slower for images as small as these
    folder = experiments.open_folder("regularize", args.output, resume=args.resume)
    data = experiments.data_module(args.data, args.data_dir, batch_size=BATCH[args.data], seed=args.seed)
    data.prepare_data()
    data.setup()

    # 1. Each case: all strengths of each regulariser, then all together, each with its own best strength.
    found, times = {}, {}
    for label, (case, names) in cases(args, len(data.train_set)).items():
        found[label], chosen = compare(args, folder, data, case, names)
        times[label] = step_times(args, folder, data, case, chosen)

    # 2. Differences to the training without a regulariser, paired by seed.
    rows = [row(label, name, each, times[label]) for label, each in found.items() for name in each]
    for each in rows:
        if each["regulariser"] != "none":
            print(f"{each['case']}, {each['regulariser']}: {verdict(each)}")
    judged = claims(parser, args, found)
    for each in judged:
        print(f"{each['claim']}: {each['verdict']}. {each['measured']}")

    # 3. The forest plot.
    figure = Figure(figsize=(8, 0.3 * len(rows) + 1.2), layout="constrained")
    draw(figure, rows)
    rank_zero_only(figure.savefig)(folder / "regularize.png", dpi=150)

    seconds = time.perf_counter() - start
    experiments.write_results(folder, vars(args), {"trainings": found, "step ms": times}, rows, seconds, judged)
    if args.wandb != "disabled":
        for each in rows:
            wandb_runs.record(args, folder, "eval", f"{each['regulariser']}, {each['case']}", each)
    for label in found:
        experiments.print_table(f"{args.data}, {label}", [shown(each) for each in rows if each["case"] == label])
    notes = (
        f"{seconds:.0f} s in this process. Percent, means of {args.seeds} seeds, +-: 95 % interval, paired by seed",
        "gain: test error of none less test error. averaged: the same after averaging over the noise at test time",
        "gap: test less train error. gap less: how much smaller it is than for none",
        "time: of a training step, as a multiple of none's. strength: the choice of validation",
        f"Files: {folder}/regularize.png, {folder}/results.json",
        *wandb_runs.center(args, folder),
    )
    print(*notes, sep="\n")


def listed(numbers: Mapping[str, int]) -> str:
    """Say the default for each data set."""
    return ", ".join(f"{number} for {data}" for data, number in numbers.items())


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
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, float]]]:
    """Choose each regulariser's strength on the first seeds, and train it with all seeds.

    Returns:
        The scores of each seed, and the chosen strengths. Both by row of the table.
    """
    seeds = range(args.seed, args.seed + args.seeds)
    own = folder / f"{case.network}-{case.images}"
    chosen: dict[str, dict[str, float]] = {}
    found = {}
    for name in ("none", *names):
        if name == TOGETHER:
            chosen[name] = combined({key: value for each in chosen.values() for key, value in each.items()})
        else:
            tried = {
                value: [trained(args, own, data, case, seed, {name: value}) for seed in seeds[:CHOOSING]]
                for value in REGULARISERS[name].strengths
            }
            chosen[name] = {name: min(tried, key=lambda value: on_validation(tried[value]))}
        found[name] = [trained(args, own, data, case, seed, chosen[name]) for seed in seeds]
        values = ", ".join(f"{value:g}" for value in chosen[name].values())
        print(f"{case.network}, {case.images} images, {name}: {values}", flush=True)
    return found, chosen


def on_validation(runs: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Average the validation error, and the loss, which decides between equal errors. NaN is the worst."""
    losses = [run["val/loss"] for run in runs]
    lost = any(loss is None or math.isnan(loss) for loss in losses)
    return fmean(run["val/error"] for run in runs), math.inf if lost else fmean(losses)


if __name__ == "__main__":
    main()
