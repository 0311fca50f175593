"""Regularisers, each alone and all together: what each gains on test images, and what it costs.

Each regulariser has three strengths. For each seed, validation loss chooses the strength, and test images are looked at
with that strength alone. A seed has one split, one choice of images and the same first weights for all regularisers, so
that gains are paired. Training adds noise, testing averages it out: `averaged` is the error with that average.

Expected: not measured yet
Cost:     not measured yet
Command:  python recipes/regularize.py
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, TensorDataset, default_collate

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, comparison, wandb_runs

VIEWS = {"digits": ["shifts(1)"], "fashion-mnist": ["flip", "shifts(1)"]}  # a flipped digit is no digit
EPOCHS = {"digits": 40, "fashion-mnist": 20}


@dataclass(frozen=True)
class Setup:
    """What a regulariser adds to a training: callbacks, and callbacks of the test that average over its noise."""

    callbacks: Sequence[L.Callback] = ()
    testing: Sequence[L.Callback] = ()
    weight_decay: float = 0.0
    smoothing: float = 0.0


@dataclass(frozen=True)
class Regulariser:
    """Strengths to choose from, and a function that makes the setup from a strength and the recipe's options."""

    strengths: Sequence[float]
    build: Callable[[Any, argparse.Namespace], Setup]


def flips_and_shifts(pixels: int, args: argparse.Namespace) -> Setup:
    """Crop from a padded image. Photos are flipped too."""
    policy = {"padding": pixels, "horizontal_flip": 0.5 if "flip" in VIEWS[args.data] else 0.0}
    return Setup([kit.BatchAugmentation(policy)], [kit.TestTimeAugmentation(VIEWS[args.data])])


def cutout(share: float, args: argparse.Namespace) -> Setup:
    """Fill a square. Its side is a share of the image's."""
    return Setup([kit.Cutout(round(share * (8 if args.data == "digits" else 28)))])


def early_stopping(share: float, args: argparse.Namespace) -> Setup:
    """Stop after a share of the epochs without a better validation loss, and restore the best weights."""
    return Setup([kit.EarlyStopping("val/loss", patience=max(1, round(share * args.epochs)))])


REGULARISERS = {
    "none": Regulariser([0], lambda s, args: Setup()),
    "L2": Regulariser([0.01, 0.1, 1.0], lambda s, args: Setup(weight_decay=s)),
    "L1": Regulariser([1e-5, 1e-4, 1e-3], lambda s, args: Setup([kit.WeightPenalty(l1=s, verbose=False)])),
    "elastic net": Regulariser(
        [1e-5, 1e-4, 1e-3], lambda s, args: Setup([kit.WeightPenalty(l1=s, l2=s, verbose=False)])
    ),
    "flips and shifts": Regulariser([1, 2, 3], flips_and_shifts),
    "cutout": Regulariser([0.25, 0.4, 0.5], cutout),
    "mixup": Regulariser([0.1, 0.4, 1.0], lambda s, args: Setup([kit.Mixup(alpha=s)])),
    "CutMix": Regulariser([0.25, 0.5, 1.0], lambda s, args: Setup([kit.CutMix(probability=s)])),
    "label smoothing": Regulariser([0.05, 0.1, 0.2], lambda s, args: Setup(smoothing=s)),
    "early stopping": Regulariser([0.1, 0.2, 0.4], early_stopping),
}
TOGETHER = "all together"
LEFT_OUT = ("none", "CutMix", "elastic net")  # Mixup and CutMix exclude each other; an elastic net is L1 beside L2


def main() -> None:
    """Train each regulariser with each strength, choose on validation, compare on test, and draw."""
    parser = experiments.argument_parser("regularize", __doc__)
    parser.add_argument("--seeds", type=at_least(2), default=10, help="how many, from --seed on (%(default)s)")
    parser.add_argument("--images", type=at_least(10), default=200, help="to train on (%(default)s)")
    parser.add_argument("--share", type=float, help="of the training set to train on, instead of --images")
    parser.add_argument("--epochs", type=at_least(1), help=f"of each training (default: {EPOCHS})")
    parser.add_argument("--only", nargs="+", choices=list(REGULARISERS)[1:], help="these alone, beside none")
    args = parser.parse_args()
    if args.data not in EPOCHS:
        parser.error(f"--data must be {' or '.join(EPOCHS)}, got {args.data}.")
    if args.share is not None and not 0 < args.share <= 1:
        parser.error(f"--share must be above 0 and at most 1, got {args.share}.")
    args.epochs = args.epochs or EPOCHS[args.data]
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    experiments.quiet()
    folder = experiments.open_folder("regularize", args.output, resume=args.resume)
    chosen = ["none", *(args.only or list(REGULARISERS)[1:])]

    # 1. For each seed: all strengths of each regulariser, then all together, each with its own best strength.
    seeds = range(args.seed, args.seed + args.seeds)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*chosen, TOGETHER)}
    for seed in seeds:
        best = {}
        for name in chosen:
            runs = [trained(args, folder, seed, {name: strength}) for strength in REGULARISERS[name].strengths]
            best[name] = min(runs, key=lambda run: run["val/loss"])
            found[name].append(best[name])
        combined = {name: best[name]["strength"] for name in chosen if name not in LEFT_OUT}
        found[TOGETHER].append(trained(args, folder, seed, combined))

    # 2. Differences to the training without a regulariser, paired by seed.
    rows = [row(name, runs, found["none"]) for name, runs in found.items()]
    for each in rows[1:]:
        print(f"{each['regulariser']}: {verdict(each)}")

    # 3. The forest plot.
    figure = Figure(figsize=(7, 0.5 * len(rows) + 1), layout="constrained")
    draw(figure, rows[1:])
    rank_zero_only(figure.savefig)(folder / "regularize.png", dpi=150)

    seconds = time.perf_counter() - start
    experiments.write_results(folder, vars(args), {"trainings": found}, rows, seconds)
    experiments.print_table(
        f"{f'{args.share:.0%} of' if args.share else f'{args.images} images of'} {args.data}: {seconds:.0f} s",
        [shown(each) for each in rows],
        f"Percent, means of {args.seeds} seeds; gain: error without less error with, and its paired 95 % interval",
        "averaged: the test error after averaging over the noise, where there is some. gap: test less train error",
        "ms: of a training step, the median. strength: the most frequent choice of validation",
        f"Files: {folder}/regularize.png, {folder}/results.json",
        *wandb_runs.center(args, folder),
    )


def trained(args: argparse.Namespace, folder: Path, seed: int, strengths: Mapping[str, float]) -> dict[str, Any]:
    """Train once with these regularisers, or read the scores from a run that finished this training."""
    name = ",".join(f"{key.replace(' ', '_')}={value:g}" for key, value in strengths.items())
    own = folder / f"seed-{seed}" / name
    settings = {key: getattr(args, key) for key in ("data", "images", "share", "epochs")} | {"strengths": strengths}
    done = experiments.finished_metrics(own, settings)
    if done is None:
        start = time.perf_counter()
        done = train(args, own, seed, [REGULARISERS[key].build(value, args) for key, value in strengths.items()], name)
        done["strength"] = next(iter(strengths.values())) if len(strengths) == 1 else None
        experiments.write_results(own, settings, done, [], time.perf_counter() - start)
    return done


def train(args: argparse.Namespace, folder: Path, seed: int, setups: Sequence[Setup], name: str) -> dict[str, Any]:
    """Train once. Return the scores on validation, test and training images, and the time of a step."""
    data = few_images(args, seed)
    L.seed_everything(seed, verbose=False)
    model = Smoothed("small_resnet", data.num_classes, weight_decay=max(each.weight_decay for each in setups))
    model.smoothing = max(each.smoothing for each in setups)
    steps = StepTimes()
    with wandb_runs.recorded(args, folder.parents[1], f"seed={seed},{name}") as center:
        callbacks = [kit.EpochSeed(seed), *(each for setup in setups for each in setup.callbacks), *center, steps]
        trainer = experiments.new_trainer(args, folder, *callbacks, max_epochs=args.epochs, log_every_n_steps=1)
        trainer.fit(model, data)
    # The last weights, or those that EarlyStopping has restored, without the noise.
    plain = experiments.new_trainer(args, folder)
    scores = {"val/loss": plain.validate(model, data, verbose=False)[0]["val/loss"]}
    scores["test"] = 1 - plain.test(model, data, verbose=False)[0]["test/acc"]
    averages = [each for setup in setups for each in setup.testing]
    averaged = experiments.new_trainer(args, folder, *averages)
    scores["averaged"] = 1 - averaged.test(model, data, verbose=False)[0]["test/acc"] if averages else None
    loader = DataLoader(data.train_set, 256)
    scores["train"] = 1 - plain.test(model, loader, verbose=False)[0]["test/acc"]
    return {**scores, "ms": 1000 * median(steps.seconds)}


class Smoothed(kit.ImageClassifier):
    """The kit's classifier. In training, a share of each label is spread over all classes."""

    smoothing = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Smooth the labels."""
        x, y = batch
        if self.smoothing:
            y = (1 - self.smoothing) * one_hot(y, self.num_classes) + self.smoothing / self.num_classes
        return super().training_step([x, y], batch_idx)


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


def few_images(args: argparse.Namespace, seed: int) -> Any:
    """Load the data with a small training set."""
    data = experiments.data_module(args.data, args.data_dir, batch_size=32, seed=seed)
    data.prepare_data()
    data.setup()
    size = len(data.train_set)  # type: ignore[arg-type]
    count = args.images if args.share is None else round(args.share * size)
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]
    data.train_set = TensorDataset(*default_collate([data.train_set[index] for index in chosen.tolist()]))
    return data


def row(name: str, runs: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise a regulariser over seeds, in percent."""
    pairs = list(zip(runs, plain, strict=True))
    strengths = [run["strength"] for run in runs]
    means = {key: 100 * fmean(run[key] for run in runs) for key in ("test", "train")}
    found = {"regulariser": name, "strength": max(set(strengths), key=strengths.count), "test error": means["test"]}
    found["gain"], found["gain +-"] = comparison.interval([100 * (one["test"] - run["test"]) for run, one in pairs])
    noisy = all(run["averaged"] is not None for run in runs)
    found["averaged"] = 100 * fmean(run["averaged"] for run in runs) if noisy else None
    further = [100 * (run["test"] - run["averaged"]) for run in runs] if noisy else []
    found["further gain"], found["further +-"] = comparison.interval(further) if noisy else (None, None)
    return {**found, "gap": means["test"] - means["train"], "ms": fmean(run["ms"] for run in runs)}


def shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """Join each gain and its interval in one cell."""
    joined = {
        name: None if found[name] is None else f"{found[name]:+.2f} +- {found[name.split()[0] + ' +-']:.2f}"
        for name in ("gain", "further gain")
    }
    return {key: value for key, value in found.items() if not key.endswith("+-")} | joined


def verdict(found: Mapping[str, Any]) -> str:
    """Say whether the test error without averaging is better than without a regulariser."""
    if abs(found["gain"]) <= found["gain +-"]:
        return "not to be told from none"
    return "better than none" if found["gain"] > 0 else "worse than none"


def draw(figure: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw each gain with its interval, the best at the top."""
    axes = figure.subplots()
    ordered = sorted(rows, key=lambda each: each["gain"])
    names, gains, halves = zip(*((each["regulariser"], each["gain"], each["gain +-"]) for each in ordered), strict=True)
    axes.errorbar(gains, names, xerr=halves, fmt="o", capsize=3)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("gain in test error over none, points (95 % interval, paired by seed)")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
