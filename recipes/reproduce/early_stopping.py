"""Early stopping: the lecture's picture of a net that overfits, and the gain on test by stopping.

A wide perceptron memorizes 200 images, a fifth of them with shuffled labels. Each seed has its own split, images and
weights, and two fits: one to the end, and one with `EarlyStopping`, which restores the best weights.

The settings were chosen on validation, but test scores were seen meanwhile. Stop and best are judged by val/loss.

Expected: best minus last on test, digits, 5 seeds, 95 % intervals: accuracy +8.9 +- 4.0 points, loss -0.41 +- 0.23.
          With `--shuffled 0` val/acc hardly falls: accuracy -0.2 +- 1.0 points, loss -0.030 +- 0.020.
Cost:     40 s on 2 CPU cores, nothing to download
Command:  python recipes/reproduce/early_stopping.py
"""

import argparse
import json
import math
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, wandb_runs

CURVES = ("train/loss", "val/loss", "train/acc", "val/acc")


def main() -> None:
    """Train each seed with and without early stopping, compare them on test, and draw the curves."""
    parser = experiments.argument_parser("early_stopping", __doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from --seed on (%(default)s)")
    parser.add_argument("--images", type=at_least(1), default=200, help="to train on (%(default)s)")
    parser.add_argument("--shuffled", type=float, default=0.2, help="share of them with shuffled labels (%(default)s)")
    parser.add_argument("--epochs", type=int, default=100, help="of the training that does not stop (%(default)s)")
    parser.add_argument("--patience", type=int, default=10, help="of EarlyStopping, in epochs (%(default)s)")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds must be at least 2, got {args.seeds}: one seed has no interval.")
    if not 0 <= args.shuffled <= 1:
        parser.error(f"--shuffled must be a share from 0 to 1, got {args.shuffled}.")
    try:
        from matplotlib.figure import Figure
        from scipy.stats import t  # comes with scikit-learn
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    experiments.quiet()
    folder = experiments.open_folder("early_stopping", args.output, resume=args.resume)

    # 1. Two fits for each seed. With --resume, a finished seed is read from its file.
    numbers = range(args.seed, args.seed + args.seeds)
    seeds = [finished(args, folder, seed) or train_twice(args, folder, seed) for seed in numbers]

    # 2. The gain by stopping. Both fits of a seed are equal until the stop, so the differences are paired.
    apart = max(each["metrics"].pop("apart") for each in seeds)
    rows = [each["metrics"] for each in seeds]
    mean = {name: fmean(row[name] for row in rows) for name in rows[0]}
    metrics = {name: value for name, value in mean.items() if name.startswith("test/")}
    notes, t_quantile = [], float(t.ppf(0.975, args.seeds - 1))
    for name in ("test/loss", "test/acc"):
        differences = [row[name] - row[f"{name}_last"] for row in rows]
        middle, half = fmean(differences), t_quantile * stdev(differences) / math.sqrt(args.seeds)
        metrics |= {f"{name}_difference": middle, f"{name}_low": middle - half, f"{name}_high": middle + half}
        notes.append(f"{name}, restored best minus last: {middle:+.4f} +- {half:.4f}")
    rows.append({**mean, "seed": "mean"})

    # 3. The lecture's picture.
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    draw(figure, seeds)
    rank_zero_only(figure.savefig)(folder / "early_stopping.png", dpi=150)

    seconds = time.perf_counter() - start
    kept = {**metrics, "difference_before_stop": apart}
    experiments.write_results(folder, vars(args), kept, rows, seconds, [judge(parser, args, metrics)])
    experiments.print_table(
        f"{args.images} images of {args.data}, {args.shuffled:.0%} of labels shuffled: {seconds:.0f} s",
        rows,
        *notes,
        f"+-: 95 % interval by Student's t over {args.seeds} differences, one for each seed",
        "best, stop: epochs until the lowest val/loss, whose weights are restored, and until the fit stopped",
        f"_last: the seed's other fit, which never stops, after {args.epochs} epochs",
        f"Largest difference of the two fits' curves before the stop: {apart:g}",
        f"Files: {folder}/early_stopping.png, {folder}/results.json, {folder}/seed-*/results.json (curves)",
        "Next:  python recipes/reproduce/early_stopping.py --shuffled 0    (all labels right: little to stop for)",
        *wandb_runs.center(args, folder),
    )


def train_twice(args: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """Train to the end and with early stopping from the same start, and write the seed's file."""
    start = time.perf_counter()
    to_the_end, last = train(args, folder, seed)
    until_stop, best = train(args, folder, seed, kit.EarlyStopping("val/loss", patience=args.patience))
    losses = [row["val/loss"] for row in until_stop]
    pairs = zip(to_the_end, until_stop, strict=False)
    metrics = {
        "seed": seed,
        "best": 1 + losses.index(min(losses)),
        "stop": len(until_stop),
        **best,
        **{f"{name}_last": value for name, value in last.items()},
        "apart": max(abs(one[name] - other[name]) for one, other in pairs for name in CURVES),
    }
    experiments.write_results(folder / f"seed-{seed}", settings(args), metrics, to_the_end, time.perf_counter() - start)
    return {"metrics": metrics, "rows": to_the_end}


def train(args: argparse.Namespace, folder: Path, seed: int, *stopping: L.Callback) -> tuple[list[Any], dict[str, Any]]:
    """Train once; return the curves, and the test scores of the weights after the fit."""
    data = noisy_images(args, seed)
    L.seed_everything(seed, verbose=False)
    layers = [nn.Linear(math.prod(data.image_shape), 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
    net = nn.Sequential(nn.Flatten(), *layers, nn.Linear(512, data.num_classes))
    model = kit.ImageClassifier(net, data.num_classes, lr=1e-3, weight_decay=0.0, schedule=None)
    curves = Curves()
    # EarlyStopping keeps the best weights itself, without checkpoints.
    with wandb_runs.recorded(args, folder, f"seed={seed}, {'until the stop' if stopping else 'to the end'}") as center:
        callbacks = [curves, kit.EpochSeed(seed), *stopping, *center]
        trainer = experiments.new_trainer(args, folder, *callbacks, max_epochs=args.epochs, log_every_n_steps=1)
        trainer.fit(model, data)
        return curves.rows, dict(trainer.test(model, data, verbose=False)[0])


class Curves(L.Callback):
    """Record the losses and accuracies of each epoch. Training values are means over the epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add a row; validation has come before."""
        row = {name: float(trainer.callback_metrics[name]) for name in CURVES}
        self.rows.append({"epoch": trainer.current_epoch + 1, **row})


def noisy_images(args: argparse.Namespace, seed: int) -> Any:
    """Load the data with a small training set, and shuffle some of its labels among themselves if asked."""
    generator = torch.Generator().manual_seed(seed)
    whole = experiments.data_module(args.data, args.data_dir, batch_size=32, seed=seed)
    data: Any = experiments.few_images(whole, args.images, generator)
    _, labels = data.train_set.tensors
    shuffled = torch.randperm(round(args.shuffled * len(labels)), generator=generator)
    labels[: len(shuffled)] = labels[shuffled]
    return data


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Select the options that change the numbers of a seed."""
    others = ("output", "resume", "seed", "seeds", "wandb")
    return {key: value for key, value in vars(args).items() if key not in others}


def finished(args: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any] | None:
    """Load the results of this seed from an earlier run with the same settings, or None."""
    file = folder / f"seed-{seed}" / "results.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found if found.get("config") == settings(args) else None


def judge(parser: argparse.ArgumentParser, args: argparse.Namespace, metrics: dict[str, float]) -> dict[str, Any]:
    """Judge the lecture's claim: the restored best must be better than the last by more than the interval."""

    def difference(name: str) -> tuple[float, float]:
        middle = metrics[f"{name}_difference"]
        return middle, metrics[f"{name}_high"] - middle

    acc, acc_half = difference("test/acc")
    loss, loss_half = difference("test/loss")

    return experiments.claim(
        parser,
        args,
        6,
        f"Early stopping: always do this ({args.images} images, {args.shuffled:.0%} of labels shuffled)",
        f"restored best minus last on test: accuracy {100 * acc:+.1f} +- {100 * acc_half:.1f} points, "
        f"loss {loss:+.3f} +- {loss_half:.3f}",
        metrics["test/acc_low"] > 0,
        metrics["test/loss_high"] < 0,
    )


def draw(figure: Any, seeds: list[dict[str, Any]]) -> None:
    """Draw the curves of each seed thin and their means thick, and mark the best epochs and the stops."""
    panels = figure.subplots(1, 2)
    for axes, kind, label in zip(panels, ("loss", "acc"), ("cross-entropy", "accuracy"), strict=True):
        for part, colour in (("train", "tab:blue"), ("val", "tab:orange")):
            curves = torch.tensor([[row[f"{part}/{kind}"] for row in each["rows"]] for each in seeds])
            epochs = range(1, 1 + curves.shape[1])
            axes.plot(epochs, curves.T, color=colour, linewidth=0.8, alpha=0.5)
            axes.plot(epochs, curves.mean(0), color=colour, linewidth=2.5, label=f"{part}: each seed, and their mean")
        for name, marker in (("best", "o"), ("stop", "X")):
            at = torch.tensor([each["metrics"][name] for each in seeds])
            values = curves[torch.arange(len(seeds)), at - 1]
            axes.plot(at, values, marker, color="black", markersize=5, label=name)
        after_best = curves[:, min(each["metrics"]["best"] for each in seeds) - 1 :]
        limits = (0, 1.5 * after_best.max()) if kind == "loss" else (1.5 * after_best.min() - 0.5, 1.005)
        axes.set(xlabel="epoch", ylabel=label, xlim=(0, len(epochs)), ylim=limits)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)


if __name__ == "__main__":
    main()
