"""Ensemble: train members that differ only in their seed, and average their probabilities at test time.

The lecture: train several independent models, average their predicted distributions, choose the argmax. The members
learn from few images, so that an ensemble can gain. With all digits a single net already reaches 98 to 99 %.

Expected: gain of 5 members over their mean, 1,168 test digits, 95 % interval: accuracy +1.8 +- 0.6 points (96.2 to
          98.0), loss -0.028 +- 0.007. The average is less confident: the calibration error rises from 0.015 to 0.034.
Cost:     55 to 95 s on 2 CPU cores, nothing to download
Command:  python recipes/ensemble.py --members 5
"""

import argparse
import time
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import Subset

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, comparison, wandb_runs
from lightning_trainingkit.functional import AVERAGES, average_passes
from lightning_trainingkit.tuning import train_members


def main() -> None:
    """Train the missing members, then test each member and the averages of 1 to all members."""
    parser = experiments.argument_parser("ensemble", __doc__)
    parser.add_argument(
        "--members", type=at_least(2), default=5, help="how many, with seeds from --seed on (%(default)s)"
    )
    parser.add_argument("--images", type=int, help="to train on (default: 400 of the digits, else all)")
    parser.add_argument("--epochs", type=at_least(1), default=30, help="at most (%(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="of all ranks together, where --devices is a number (%(default)s)"
    )
    parser.add_argument("--average", choices=AVERAGES, default="probabilities", help="(%(default)s)")
    args = parser.parse_args()
    devices = max(1, int(args.devices)) if args.devices.isdigit() else 1
    if args.batch_size < devices:
        parser.error(f"--batch-size must be at least the number of devices, {devices}, got {args.batch_size}.")
    start = time.perf_counter()
    experiments.quiet()
    try:
        data = few_images(args, args.batch_size // devices)
        folder = experiments.open_folder("ensemble", args.output, resume=args.resume)
        seeds = range(args.seed, args.seed + args.members)
        done = {
            seed: experiments.finished_metrics(folder / "members" / f"seed-{seed}", settings(args)) for seed in seeds
        }
    except (OSError, ValueError) as error:
        parser.error(str(error))

    # 1. Train independent models: each seed gives its own initial weights and its own order of the same images.
    # They are trials of one study, each in a process of its own; what a killed run has left is resumed.
    members_folder = folder / "members"
    if None in done.values():
        for seed in seeds:  # the only settings of a killed member
            experiments.write_results(members_folder / f"seed-{seed}" / "begun", settings(args), {}, [], 0.0)
        train_members(
            partial(member, args, args.batch_size // devices),
            members=args.members,
            max_epochs=args.epochs,
            seed=args.seed,
            name=folder.name,
            folder=members_folder,
            callbacks=[kit.InitOverride(verbose=False), kit.ChannelsLast()],
            trainer_options=trainer_options(args),
            devices=devices,
            accelerator=args.accelerator,
            wandb=args.wandb,
            project=wandb_runs.project(args.data),
        )
    trained = [done[seed] or test(args, data, members_folder / f"seed-{seed}") for seed in seeds]

    # 2. Each member predicts the test images alone, with an ordinary Trainer and module.
    module = new_module(data)
    alone = []
    for seed in seeds:
        kit.load_best(module, members_folder / f"seed-{seed}")
        log_probabilities, targets = comparison.predictions(experiments.new_trainer(args, folder), module, data)
        alone.append(log_probabilities)
    members = torch.stack(alone)

    # 3. Average 1, 2, ... members. Each size is tested on all choices of members, at most 100.
    rows = [score(members, targets, size, args.average) for size in range(1, args.members + 1)]

    # 4. The same average through the callback, in an ordinary Trainer.
    ensemble = kit.EnsembleAverage([str(members_folder / f"seed-{seed}") for seed in seeds], average=args.average)
    tested = dict(experiments.new_trainer(args, folder, ensemble).test(module, data, verbose=False)[0])

    for row in rows:
        size = {"members": row["members"]}
        wandb_runs.record(args, folder, "ensemble", f"members={row['members']}", row, size)
    seconds = time.perf_counter() - start
    metrics = {
        **tested,
        "members": trained,
        **{k: v for k, v in rows[-1].items() if "gain" in k or "+-" in k},
    }
    experiments.write_results(folder, vars(args), metrics, rows, seconds)
    experiments.print_table(
        f"{args.data}: {len(data.train_set)} images to train on, {len(targets)} to test, {seconds:.0f} s",
        [comparison.shown(row) for row in rows],
        "gain: average minus the mean of its members; negative is better for the loss",
        "+-: 95 % interval over the test images, paired by image, for these members",
        f"EnsembleAverage in trainer.test: test/acc {tested['test/acc']:.4f}, test/loss {tested['test/loss']:.4f}",
        f"{args.members} members against their mean: {comparison.verdict(rows[-1])}.",
        f"Members: {folder}/members/seed-*/best.json; --resume trains only missing members",
        f"Next:  python recipes/test_time_augmentation.py --checkpoint {folder}/members/seed-{args.seed}",
        f"       python recipes/ensemble.py --resume --output {folder} --members {2 * args.members}",
        *wandb_runs.center(args, folder),
    )


def few_images(args: argparse.Namespace, batch_size: int) -> Any:
    """Load the data, with fewer training images if asked. The digits have a large test part, for small intervals."""
    if args.data == "digits":
        data: Any = kit.DigitsDataModule(batch_size, val_fraction=0.3, test_fraction=0.65, seed=args.seed)
    else:
        data = experiments.data_module(args.data, args.data_dir, batch_size=batch_size, seed=args.seed)
    data.prepare_data()
    data.setup()
    images = args.images or (400 if args.data == "digits" else len(data.train_set))
    if not 1 <= images <= len(data.train_set):
        raise ValueError(f"--images must be from 1 to {len(data.train_set)}, got {images}.")
    chosen = torch.randperm(len(data.train_set), generator=torch.Generator().manual_seed(args.seed))[:images]
    data.train_set = Subset(data.train_set, chosen.tolist())
    return data


def new_module(data: Any) -> L.LightningModule:
    """Make an untrained member."""
    return kit.ImageClassifier(
        "small_resnet", data.num_classes, model_options={"in_channels": data.image_shape[0]}, lr=3e-3
    )


def member(args: argparse.Namespace, batch_size: int) -> tuple[L.LightningModule, Any]:
    """Build an untrained member and its data, in the process that trains it."""
    data = few_images(args, batch_size)
    return new_module(data), data


def trainer_options(args: argparse.Namespace) -> dict[str, Any]:
    """Select the Trainer's options for a training."""
    options = {
        "precision": experiments.default_precision(args.data, args.precision, args.accelerator),
        "log_every_n_steps": 10,
    }
    return options if args.strategy == "auto" else {**options, "strategy": args.strategy}


def test(args: argparse.Namespace, data: Any, folder: Path) -> dict[str, Any]:
    """Test a trained member alone."""
    start = time.perf_counter()
    module = new_module(data)
    kit.load_best(module, folder)
    trainer = experiments.new_trainer(args, folder)
    tested = dict(trainer.test(module, data, verbose=False)[0])
    experiments.write_results(folder, settings(args), tested, [], time.perf_counter() - start)
    trainer.strategy.barrier()
    return tested


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Select the options that change a member."""
    others = ("output", "resume", "members", "average", "wandb", "data_dir")
    return {key: value for key, value in vars(args).items() if key not in others}


def score(members: Tensor, targets: Tensor, size: int, average: str) -> dict[str, Any]:
    """Compute mean scores and gains of the ensembles with ``size`` members."""
    choices = list(combinations(range(len(members)), size))
    choices = choices[:: -(-len(choices) // 100)]
    ensembles = torch.stack([average_passes(members[list(choice)], average=average) for choice in choices])
    return {
        "members": size,
        **comparison.scores(ensembles, targets),
        **comparison.gain(ensembles, members, targets),
    }


if __name__ == "__main__":
    main()
