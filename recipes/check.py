"""Check before training: the lecture's steps 1, 2 and 3 on the quickstart's module, and on eight planted faults.

The lecture: "Step 1: check initial loss. Step 2: overfit a small sample. Step 3: find the learning rate that makes the
loss go down." A fault that costs a day of training shows here within seconds. Each fault is planted in the module or
its data, and no other part changes.

Expected: the healthy module passes all steps. Step 1 or 2 names each of the eight faults: labels_change, rate_too_low,
          rate_too_high, symmetric_units, frozen_parameters, softmax_before_loss, many_unused_classes, two_labels
Cost:     2 min of one CPU core, nothing to download
Command:  python recipes/check.py
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import Dataset

import lightning_trainingkit as kit
from lightning_trainingkit import experiments, tuning
from lightning_trainingkit.experiments import wandb_runs
from lightning_trainingkit.tuning import Verdict

STEPS: dict[str, Callable[..., Verdict]] = {
    "initial_loss": tuning.check_initial_loss,
    "small_sample": tuning.overfit_small_sample,
    "learning_rate": tuning.find_learning_rate,
}
Pair = tuple[Tensor, Any]


class Relabelled(Dataset[Pair]):
    """A training set with other labels, or other images, at some indices."""

    def __init__(self, pairs: Dataset[Pair], change: Callable[[Dataset[Pair], int], Pair]) -> None:
        self.pairs, self.change = pairs, change

    def __len__(self) -> int:
        return len(self.pairs)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Pair:
        return self.change(self.pairs, index)


def random_label(pairs: Dataset[Pair], index: int) -> Pair:
    """The label of a random image, drawn at each access: nothing can be learned from it."""
    other = int(torch.randint(len(pairs), ()))  # type: ignore[arg-type]
    return pairs[index][0], pairs[other][1]


def neighbours_image(pairs: Dataset[Pair], index: int) -> Pair:
    """The image at the even index below: each image stands twice, mostly with two labels."""
    return pairs[index - index % 2][0], pairs[index][1]


def build(data: Any, **options: Any) -> kit.ImageClassifier:
    """Build the quickstart's module."""
    settings = {
        "num_classes": data.num_classes,
        "optimizer": "AdamW",
        "lr": 3e-3,
        "schedule": "warmup_cosine",
        **options,
    }
    model_options = {"in_channels": data.image_shape[0], **settings.pop("model_options", {})}
    return kit.ImageClassifier("small_resnet", model_options=model_options, **settings)


def plant(fault: str, data: Any) -> kit.ImageClassifier:
    """Build the module with a fault, or plant the fault in the training set."""
    if fault == "rate 1e-8":
        return build(data, lr=1e-8)
    if fault == "rate 1e3":
        return build(data, lr=1e3)
    if fault == "100 outputs for 10 classes":
        return build(data, num_classes=100)
    if fault == "frozen backbone":  # of 16 features: with 128 random ones, the head alone learns the sample by heart
        module = build(data, model_options={"width": 4})
        for name, weight in module.model.named_parameters():
            weight.requires_grad = name.startswith("head.")
        return module
    module = build(data)
    if fault == "labels shuffled":
        data.train_set = Relabelled(data.train_set, random_label)
    elif fault == "two labels for one image":
        data.train_set = Relabelled(data.train_set, neighbours_image)
    elif fault == "constant init":
        with torch.no_grad():
            for weight in module.model.parameters():
                weight.fill_(0.1)
    elif fault == "softmax before the loss":
        module.model = nn.Sequential(module.model, nn.Softmax(dim=1))
    return module


FAULTS = (
    *("none", "labels shuffled", "rate 1e-8", "rate 1e3", "constant init", "frozen backbone"),
    *("softmax before the loss", "100 outputs for 10 classes", "two labels for one image"),
)


def main() -> None:
    """Run the three steps on each fault, and print what they say."""
    parser = experiments.argument_parser("check", __doc__)
    parser.add_argument(
        "--fault", choices=FAULTS, metavar="NAME", action="append", help=f"may be repeated: {', '.join(FAULTS)}"
    )
    args = parser.parse_args()
    start = time.perf_counter()
    experiments.quiet()
    faults = tuple(args.fault or FAULTS)
    try:
        folder = experiments.open_folder("check", args.output, resume=args.resume)
        experiments.data_module(args.data, args.data_dir, batch_size=32, seed=args.seed).setup()
        done = {fault: experiments.finished_metrics(folder / fault, settings(args)) for fault in faults}
    except (OSError, ValueError) as error:
        parser.error(str(error))

    # 1. The three steps on each fault. --resume skips finished faults.
    found = {fault: done[fault] or check(args, folder, fault) for fault in track(faults, "Checking")}

    # 2. A line for each fault: three verdicts, and the first reason.
    rows = [
        {
            "fault": fault,
            **{f"step {number}": lines[name].partition(".")[0] for number, name in enumerate(STEPS, 1)},
            "first reason": lines["reason"],
        }
        for fault, lines in found.items()
    ]
    seconds = time.perf_counter() - start
    alarms = sum(row["first reason"] != "none" for row in rows)
    experiments.write_results(folder, vars(args), {"modules": len(rows), "alarms": alarms}, rows, seconds)
    experiments.print_table(
        f"{args.data}: steps 1 to 3 on {len(rows)} modules, {seconds:.0f} s",
        rows,
        f"Files: {folder}/results.json, {folder}/*/results.json with all words",
        "Next:  trainingkit check my_file.py:MyModule --data my_file.py:MyData    (the same for your own module)",
        *wandb_runs.center(args, folder),
    )


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options on which the verdicts depend."""
    return {name: getattr(args, name) for name in ("data", "seed", "accelerator", "devices", "strategy", "precision")}


def check(args: argparse.Namespace, folder: Path, fault: str) -> dict[str, Any]:
    """Run the steps on one fault, and record their verdicts for the command center."""
    start = time.perf_counter()
    data = experiments.data_module(args.data, args.data_dir, batch_size=32, seed=args.seed)
    data.prepare_data()
    data.setup()
    L.seed_everything(args.seed, verbose=False)
    module = plant(fault, data)
    options = {
        "accelerator": args.accelerator,
        "devices": args.devices,
        "strategy": args.strategy,
        "precision": experiments.default_precision(args.data, args.precision, args.accelerator),
    }
    verdicts = {name: step(module, data, trainer_options=options) for name, step in STEPS.items()}
    lines = {name: verdict.line for name, verdict in verdicts.items()}
    rows = [{"step": name, "line": verdict.line, "notes": list(verdict.notes)} for name, verdict in verdicts.items()]
    metrics = {**lines, "reason": reason(list(verdicts.values()))}
    wandb_runs.record(args, folder, "check", fault, {}, {"fault": fault, "check": lines})
    (folder / fault).mkdir(exist_ok=True)
    experiments.write_results(folder / fault, settings(args), metrics, rows, time.perf_counter() - start)
    return metrics


def reason(verdicts: list[Verdict]) -> str:
    """The first reason of the first step that does not pass."""
    for verdict in verdicts:
        if verdict.verdict != "pass":
            return verdict.findings[0].kind if verdict.findings else verdict.message.partition(". ")[0]
    return "none"


if __name__ == "__main__":
    main()
