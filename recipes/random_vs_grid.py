"""Random against grid: the lecture's picture of random search and grid search, by numbers.

A perceptron on digits has one important hyperparameter, the learning rate, and an unimportant one, the weight decay.
Each repeat trains nine configurations of a grid, three rates by three decays at a random place, nine random ones, and
nine quasi-random ones. The best of nine on validation is chosen. Repeats share nothing: data split, weights and points
are new.

Expected: the rate explains 93 % of the ranks of all trainings. Best of nine minus the grid's, 40 repeats: quasi-random
          points have val/loss -0.105 +- 0.040 and val/acc +1.7 +- 1.0 points. Random points are not told apart from
          the grid, val/loss -0.03 +- 0.08: they have more rates, but nine draws can all miss the good ones.
Cost:     2 to 5 min, nothing to download
Command:  python recipes/random_vs_grid.py
"""

import argparse
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import track
from torch import nn

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, claim, comparison, wandb_runs
from lightning_trainingkit.tuning import Range, Space
from lightning_trainingkit.tuning.searches.space_points import quasi_random_points, random_points

SPACE = Space({"lr": Range(1e-4, 10.0, log=True), "weight_decay": Range(1e-7, 1e-4, log=True)})
SIDE = 3  # of the grid
WAYS = ("grid", "random", "quasi-random")


def main() -> None:
    """Train all points of all repeats, compare the best of nine, and draw the lecture's picture."""
    parser = experiments.argument_parser("random_vs_grid", __doc__)
    parser.add_argument("--repeats", type=at_least(2), default=40, help="of nine points each (%(default)s)")
    parser.add_argument("--epochs", type=at_least(1), default=3, help="of each training (%(default)s)")
    args = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    experiments.quiet()
    try:
        folder = experiments.open_folder("random_vs_grid", args.output, resume=args.resume)
        experiments.data_module(args.data, args.data_dir, batch_size=128, seed=args.seed).setup()
        done = {each: experiments.finished_metrics(folder / f"repeat-{each}", settings(args)) for each in numbers(args)}
    except (OSError, ValueError) as error:
        parser.error(str(error))

    # 1. 27 trainings a repeat. With --resume, finished repeats are read from their files.
    tables = [done[each] or train_repeat(args, folder, each) for each in track(numbers(args), "Training")]

    # 2. The best of nine on validation, and its score on test.
    chosen = {way: [min(table[way], key=lambda row: row["val/loss"]) for table in tables] for way in WAYS}
    rows, gains = [], {}
    for way in WAYS:
        row: dict[str, Any] = {"points": way, "rates tried": float(np.mean([distinct(table[way]) for table in tables]))}
        for name in ("val/loss", "val/acc", "test/loss", "test/acc"):
            values = [each[name] for each in chosen[way]]
            row[name] = float(np.mean(values))
            if way != "grid":
                differences = np.subtract(values, [each[name] for each in chosen["grid"]]).tolist()
                gains[way, name] = comparison.interval(differences)
        rows.append(row)
        wandb_runs.record(args, folder, "search", way, {name: each for name, each in row.items() if "/" in name})
    share = float(np.mean([importance(table) for table in tables]))

    # 3. The lecture's picture: points, and what the important hyperparameter alone does.
    figure = Figure(figsize=(12, 5), layout="constrained")
    draw(figure, tables)
    rank_zero_only(figure.savefig)(folder / "random_vs_grid.png", dpi=120)

    middle, half = gains["random", "val/loss"]
    points, points_half = (100 * each for each in gains["random", "val/acc"])
    measured = (
        f"best of {SIDE**2}, random minus grid, {args.repeats} repeats: val/loss {middle:+.3f} +- {half:.3f}, accuracy "
        f"{points:+.1f} +- {points_half:.1f} points; the rate explains {share:.0%} of the ranks"
    )
    text = "Important and unimportant parameter: random layout finds a better value of the important one than a grid"
    figures = [claim(parser, args, 7, text, measured, middle + half < 0, points - points_half > 0)]
    seconds = time.perf_counter() - start
    metrics = {f"{way} minus grid, {name}": list(each) for (way, name), each in gains.items()}
    experiments.write_results(folder, vars(args), {**metrics, "importance of lr": share}, rows, seconds, figures)
    experiments.print_table(
        f"{args.data}: the best of {SIDE**2} trainings, mean over {args.repeats} repeats, {seconds:.0f} s",
        rows,
        *(f"{way} minus grid, {name}: {each[0]:+.4f} +- {each[1]:.4f}" for (way, name), each in gains.items()),
        "+-: 95 % interval by Student's t over repeats, which share nothing",
        f"The learning rate explains {share:.0%} of the trainings' ranks, the weight decay {1 - share:.0%} (fANOVA).",
        f"Files: {folder}/random_vs_grid.png, {folder}/results.json, {folder}/*/results.json (all trainings)",
        "Next:  python recipes/seven_steps.py    (coarse and refined search)",
        *wandb_runs.center(args, folder),
    )


def numbers(args: argparse.Namespace) -> range:
    """The numbers of the repeats."""
    return range(args.seed, args.seed + args.repeats)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Select what changes the numbers of a repeat."""
    return {name: getattr(args, name) for name in ("data", "epochs", "accelerator", "devices", "precision")}


def points_of(way: str, seed: int) -> list[dict[str, float]]:
    """Nine points. The grid is moved to a random place, so that no place of it is lucky."""
    if way != "grid":
        return (random_points if way == "random" else quasi_random_points)(SPACE, SIDE**2, seed)
    places = np.random.default_rng([seed, 2]).random(len(SPACE))
    axes = [
        np.exp(np.log(each.low) + (np.arange(SIDE) + place) / SIDE * np.log(each.high / each.low))
        for each, place in zip(SPACE.values(), places, strict=True)
    ]
    return [{"lr": float(rate), "weight_decay": float(decay)} for rate in axes[0] for decay in axes[1]]


def train_repeat(args: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """Train all points of one repeat, on its own split and from its own weights."""
    start = time.perf_counter()
    data = experiments.data_module(args.data, args.data_dir, batch_size=128, seed=seed)
    data.prepare_data()
    data.setup()
    found = {way: [train(args, folder, data, point, seed) for point in points_of(way, seed)] for way in WAYS}
    (folder / f"repeat-{seed}").mkdir(exist_ok=True)
    experiments.write_results(folder / f"repeat-{seed}", settings(args), found, [], time.perf_counter() - start)
    return found


def train(args: argparse.Namespace, folder: Path, data: Any, point: dict[str, float], seed: int) -> dict[str, Any]:
    """Train one configuration, and return its point and its scores. A loss that is not finite is a large one."""
    L.seed_everything(seed, verbose=False)
    inputs = int(np.prod(data.image_shape))
    net = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, data.num_classes))
    module = kit.ImageClassifier(
        net, data.num_classes, optimizer="SGD", optimizer_options={"momentum": 0.9}, schedule=None, **point
    )
    trainer = experiments.new_trainer(args, folder, max_epochs=args.epochs, num_sanity_val_steps=0, limit_val_batches=0)
    trainer.fit(module, data)
    trainer.limit_val_batches = 1.0
    scores = {**trainer.validate(module, data, verbose=False)[0], **trainer.test(module, data, verbose=False)[0]}
    return {**point, **{name: finite(value) for name, value in scores.items()}}


def finite(value: float) -> float:
    """Replace NaN and infinity, which JSON does not have."""
    return float(torch.nan_to_num(torch.tensor(value), nan=1e6, posinf=1e6))


def distinct(rows: list[dict[str, float]]) -> int:
    """How many learning rates were tried."""
    return len({row["lr"] for row in rows})


def importance(table: dict[str, Any]) -> float:
    """The share of the learning rate in what both hyperparameters explain of the ranks of all trainings."""
    from lightning_trainingkit.tuning.searches.importance import importances
    from lightning_trainingkit.tuning.trials.result import Result

    results = [
        Result(number, "completed", {name: row[name] for name in SPACE}, row["val/loss"], {}, 1, {}, "", number)
        for number, row in enumerate(row for way in WAYS for row in table[way])
    ]
    return importances(SPACE, results, "min")["lr"]


def draw(figure: Any, tables: list[dict[str, Any]]) -> None:
    """Draw the points of the first repeat, and above them the accuracy of all trainings by their rate."""
    panels = figure.subplots(2, 2, sharex=True, height_ratios=(1, 2))
    everything = [row for table in tables for way in WAYS for row in table[way]]
    for column, way in enumerate(("grid", "random")):
        top, below = panels[0][column], panels[1][column]
        rows = tables[0][way]
        top.scatter([row["lr"] for row in everything], [row["val/acc"] for row in everything], s=4, color="0.8")
        top.scatter([row["lr"] for row in rows], [row["val/acc"] for row in rows], s=25, color="C2")
        best = max(row["val/acc"] for row in rows)
        top.axhline(best, color="C2", linewidth=0.8)
        top.set(ylabel="val/acc", title=f"{way.capitalize()} layout: best of nine {best:.3f}, {distinct(rows)} rates")
        below.scatter([row["lr"] for row in rows], [row["weight_decay"] for row in rows], s=60, color="C2")
        for row in rows:
            below.axvline(row["lr"], color="C2", linewidth=0.5)
        below.set(xscale="log", yscale="log", xlabel="learning rate: important", ylabel="weight decay: unimportant")
        below.set_xlim(SPACE["lr"].low, SPACE["lr"].high)
        below.set_ylim(SPACE["weight_decay"].low, SPACE["weight_decay"].high)


if __name__ == "__main__":
    main()
