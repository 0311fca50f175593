"""Seven steps: choose the quickstart's rate, decay and augmentation as the lecture does, from a check to the loop.

Steps 1 to 3 check the module, 4 and 5 search, 6 looks at curves, and 7 goes to step 5 until nothing is gained. Then
the best configuration and the quickstart's default are trained with the quickstart's schedule, on the same fresh
seeds.

Trials have a constant rate, as the lecture has it, and validate averaged weights: a rate that suits a decay is noisy
without one, and the average takes the noise away. Without it, rates are chosen too low.

Expected: EXPECTED
Cost:     COST, nothing to download
Command:  python recipes/seven_steps.py
          python recipes/seven_steps.py --data fashion-mnist
"""

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EMAWeightAveraging

import lightning_trainingkit as kit
from lightning_trainingkit import experiments, tuning
from lightning_trainingkit.experiments import at_least, comparison, wandb_runs

DEFAULT = {"lr": 3e-3, "weight_decay": 0.01}  # the quickstart's
SPACE = {
    "lr": {"low": 3e-4, "high": 3e-2, "log": True},
    "weight_decay": {"low": 1e-4, "high": 1.0, "log": True},
    "data.augment": ["none", "geometric"],
}


class AveragedWeights(EMAWeightAveraging):
    """Validates the average of the weights over about 20 steps. Each trial makes its own: Lightning's is not picklable."""

    def __init__(self) -> None:
        super().__init__(decay=0.95)

    def __reduce__(self) -> Any:
        return AveragedWeights, ()


def main() -> None:
    """Run all steps, print their verdicts, and compare the best configuration with the default."""
    parser = experiments.argument_parser("seven_steps", __doc__)
    parser.add_argument("--trials", type=at_least(8), default=40, help="of all searches together (%(default)s)")
    parser.add_argument("--jobs", type=at_least(1), default=2, help="trials at once (%(default)s)")
    parser.add_argument("--epochs", type=at_least(1), default=20, help="of the final trainings (%(default)s)")
    parser.add_argument("--seeds", type=at_least(2), default=3, help="of the final trainings (%(default)s)")
    args = parser.parse_args()
    start = time.perf_counter()
    experiments.quiet()
    try:
        data = data_of(args)
        data.prepare_data()
        data.setup()  # says here if the data set is absent
        folder = experiments.open_folder("seven_steps", args.output, resume=args.resume)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    # 1. The module: its constructor's arguments are what can be searched.
    module = build(data)

    # 2. All steps. With --resume, they go on where they were interrupted.
    short = {} if args.data == "digits" else {"coarse_epochs": 1, "round_epochs": 3}
    found = tuning.seven_steps(
        module,
        data,
        space=SPACE,
        callbacks=[AveragedWeights()],
        max_trials=args.trials,
        jobs=args.jobs,
        output=folder,
        seed=args.seed,
        accelerator=args.accelerator,
        trainer_options={"precision": experiments.default_precision(args.data, args.precision, args.accelerator)},
        wandb=args.wandb,
        **short,
    )
    if not found.best:
        parser.exit(1, f"{found.line}\n")
    searched = time.perf_counter() - start

    # 3. The best configuration against the default: the same schedule, epochs and seeds, which no trial has seen.
    compared = {"found": dict(found.best), "quickstart": DEFAULT}
    rows = [
        {"configuration": name, **{key: each.get(key, "none") for key in SPACE}, **score}
        for name, each in compared.items()
        for score in [mean(train(args, folder, name, each, seed) for seed in seeds(args))]
    ]
    gain = rows[1]["val/loss"] - rows[0]["val/loss"]
    seconds = time.perf_counter() - start
    metrics = {**{name: each for name, each in rows[0].items() if "/" in name}, "val/loss gain": gain}
    metrics |= {"trials": sum(len(each.trials) for each in found.searches), "epochs": found.epochs}
    experiments.write_results(folder, vars(args), metrics, rows, seconds)
    experiments.print_table(
        f"{args.data}: {metrics['trials']} trials in {searched:.0f} s, {args.seeds} seeds of {args.epochs} epochs each",
        rows,
        f"val/loss gain over the quickstart's default: {gain:+.4f}",
        f"Files: {folder}/report.md, {folder}/best.yaml, {folder}/search.png, {folder}/dashboard.html",
        f"Next:  {found.command}    (train it to the end)",
        *wandb_runs.center(args, folder),
    )


def data_of(args: argparse.Namespace, augment: str = "none") -> Any:
    """Make the data."""
    data = experiments.data_module(args.data, args.data_dir, batch_size=32 if args.data == "digits" else 128)
    return type(data)(**{**data.hparams, "augment": augment})


def build(data: Any, **options: Any) -> kit.ImageClassifier:
    """Build the quickstart's module."""
    settings = {"optimizer": "AdamW", "schedule": "warmup_cosine", **DEFAULT, **options}
    model_options = {"in_channels": data.image_shape[0]}
    return kit.ImageClassifier("small_resnet", data.num_classes, model_options=model_options, **settings)


def seeds(args: argparse.Namespace) -> range:
    """Seeds that no trial has used."""
    return range(args.seed + 100, args.seed + 100 + args.seeds)


def train(args: argparse.Namespace, folder: Path, name: str, options: dict[str, Any], seed: int) -> dict[str, float]:
    """Train one configuration once, and return the scores of its best epoch."""
    home = folder / "final" / f"{name}-{seed}"
    settings = {"seed": seed, "epochs": args.epochs, **options}
    done = experiments.finished_metrics(home, settings)
    if done is not None:
        return done
    start = time.perf_counter()
    L.seed_everything(seed, verbose=False)
    data = data_of(args, options.get("data.augment", "none"))
    module = build(data, **{key: options[key] for key in DEFAULT})
    best = kit.BestCheckpoint("val/loss", "min", dirpath=str(home / "checkpoints"))
    with wandb_runs.recorded(args, folder, f"{name}, seed={seed}") as center:
        trainer = experiments.new_trainer(
            args, home, best, kit.EpochSeed(seed), *center, max_epochs=args.epochs, enable_checkpointing=True
        )
        trainer.fit(module, data)
        kit.load_best(module, home / "checkpoints")
        scores = {**trainer.validate(module, data, verbose=False)[0], **trainer.test(module, data, verbose=False)[0]}
    experiments.write_results(home, settings, scores, [], time.perf_counter() - start)
    return dict(scores)


def mean(scores: Any) -> dict[str, Any]:
    """The mean of each score over the seeds, with the half width of the loss's 95 % interval."""
    found = list(scores)
    middle = {name: fmean(each[name] for each in found) for name in found[0]}
    return {**middle, "val/loss +-": comparison.interval([each["val/loss"] for each in found])[1]}


if __name__ == "__main__":
    main()
