"""Transfer learning: the time that a frozen front saves, and the cost of freezing and unfreezing against peers.

Expected: head only 3.3 times as fast as a full epoch, with cached features 64 [61, 67]; last block and head 2.4;
          BackboneFinetuning takes 1.27 times as long as ours, finetuning-scheduler 1.03 [0.97, 1.04]; memory is equal.
          On an H200 (2026-11, --batches 30 --rounds 3): exit 1, since launches take the time there: head only 2.3,
          cached 2.8; 1.8; 1.2, 1.0. Before features were stored at the head's input, on a processor without AVX-512:
          3.3, 50 [48, 60]; 2.2; 1.26, 1.08 [0.92, 1.12]
Cost:     4 to 9 min on 2 CPU cores, 20 min on two without AVX-512
Command:  python tests/benchmarks/transfer.py

torchvision's ResNet-18 on images of 64 x 64 pixels in batches of 32, SGD with momentum, one thread.

1. Epochs. Full training, the last layer alone, the last layer with cached features, and the last block and layer. Each
   fit has three epochs, with a cache eight. Each round has a random order. The first epoch fills the cache and does not
   count.
2. Peers. All train two epochs of the last layer and two of everything, in whole fits without their set-up.
   Competitors: BackboneFinetuning of Lightning (`train_bn=False`: frozen statistics stay), finetuning-scheduler
   (`epoch_transitions_only`), and ours with one rate for all blocks, as the peers have it. A further row has ours with
   its default rates.
3. Memory: the most that torch holds at once in such a fit, with the module.

Times are of this process (`process_time`), on a GPU of the clock. A ratio is the median over pairs of the same round,
with its 95 % bootstrap interval. The control is the peer against itself.
"""

import contextlib
import io
import logging
import random
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import finetuning_scheduler
import lightning as L
import torch
import torchvision
from lightning.pytorch.callbacks import BackboneFinetuning
from measuring import DEVICE, now, peak, row
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import lightning_trainingkit as kit
from lightning_trainingkit import experiments

PEERS = "BackboneFinetuning", "finetuning-scheduler"
LAST = {"head only": ("head", False), "head only, cached": ("head", True), "last block and head": ("last 1", False)}
Times = dict[str, list[float]]  # seconds by competitor, a value for each round


def main() -> None:
    parser = experiments.argument_parser("transfer_speed", __doc__, trains=False)
    parser.add_argument("--batches", type=int, default=10, help="of an epoch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of all competitors (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the orders (%(default)s)")
    args = parser.parse_args()
    folder = experiments.open_folder("transfer_speed", args.output)
    experiments.quiet()
    logging.disable(logging.ERROR)  # finetuning-scheduler resets the levels
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    start = time.perf_counter()
    draw = random.Random(args.seed)
    data = DataLoader(
        TensorDataset(torch.randn(32 * args.batches, 3, 64, 64), torch.randint(10, (32 * args.batches,))),
        32,
        shuffle=True,
    )

    epochs = race(full_and_frozen(), data, args.rounds, draw, lambda clock: statistics.median(clock.epochs[1:]), 3)
    steps = args.batches
    rows = [
        compare("head only", epochs, "head only", "full", draw, steps, 2.5),
        compare("head only, cached, after the first epoch", epochs, "head only, cached", "full", draw, steps, 30.0),
        compare("last block and head", epochs, "last block and head", "full", draw, steps),
        compare("full: control", epochs, "control", "full", draw, steps),
    ]
    fits = race(schedules(folder), data, args.rounds, draw, lambda clock: sum(clock.epochs))
    for peer in PEERS:
        rows.append(compare(f"schedule: {peer}", fits, "ours", peer, draw, 4 * steps, 0.98))
    rows.append(
        compare(
            "schedule, lr_decay=0.3: BackboneFinetuning",
            fits,
            "ours, lr_decay=0.3",
            "BackboneFinetuning",
            draw,
            4 * steps,
        )
    )
    rows.append(compare("schedule: control", fits, "control", "BackboneFinetuning", draw, 4 * steps))
    few = DataLoader(Subset(data.dataset, range(64)), 32)
    made = schedules(folder)
    peaks = {name: peak(lambda name=name: fit(made[name](), few)) for name in ("ours", *PEERS)}
    for peer in PEERS:
        ours, theirs = peaks["ours"] / 2**20, peaks[peer] / 2**20
        rows.append(row(f"schedule, peak memory: {peer}", ours, theirs, ours / theirs, 1.0))

    experiments.print_table(
        "Transfer learning",
        rows,
        f"ours, peer: milliseconds of a step (memory: MiB). Ratio above 1: ours is faster. {DEVICE}.",
        "Of 1 the peer is the full epoch; of 2 and 3 it is named.",
    )
    experiments.write_results(folder, vars(args), {"device": DEVICE}, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))


class Classifier(L.LightningModule):
    """A ResNet-18 in two parts, with the names that the peers ask for."""

    def __init__(self) -> None:
        super().__init__()
        net = torchvision.models.resnet18(num_classes=10)
        head, net.fc = net.fc, nn.Identity()
        self.backbone, self.head = net, head

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, lr=1e-3, momentum=0.9)


class Clock(L.Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = now()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.epochs.append(now() - self.start)


def full_and_frozen() -> dict[str, Callable[[], list[L.Callback]]]:
    """Competitors of part 1."""
    found: dict[str, Callable[[], list[L.Callback]]] = {"full": list, "control": list}
    for name, (train, cached) in LAST.items():
        found[name] = lambda train=train, cached=cached: [
            kit.TransferLearning([{"train": train}], cache_features=cached, verbose=False)
        ]
    return found


def schedules(folder: Any) -> dict[str, Callable[[], list[L.Callback]]]:
    """Competitors of parts 2 and 3."""
    phases = [{"train": "head"}, {"train": "all", "start": 2}]

    def backbone() -> list[L.Callback]:
        return [BackboneFinetuning(2, lambda epoch: 1.0, 1.0, should_align=False, train_bn=False)]

    def scheduler() -> list[L.Callback]:
        schedule = {
            0: {"params": ["head.*"], "max_transition_epoch": 2},
            1: {"params": ["backbone.*"], "max_transition_epoch": 4},
        }
        return [
            finetuning_scheduler.FinetuningScheduler(
                ft_schedule=schedule,
                base_max_lr=1e-3,
                epoch_transitions_only=True,
                restore_best=False,
                log_dir=str(folder / "schedules"),
            )
        ]

    return {
        "ours": lambda: [kit.TransferLearning(phases, lr_decay=1.0, verbose=False)],
        "ours, lr_decay=0.3": lambda: [kit.TransferLearning(phases, verbose=False)],
        "BackboneFinetuning": backbone,
        "finetuning-scheduler": scheduler,
        "control": backbone,
    }


def fit(callbacks: list[L.Callback], data: DataLoader, epochs: int = 4) -> Clock:
    """Train a new module."""
    clock = Clock()
    torch.manual_seed(0)
    module = Classifier()
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[clock, *callbacks],
        accelerator="gpu" if DEVICE == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(module, data)
    return clock


def race(
    competitors: dict[str, Callable[[], list[L.Callback]]],
    data: DataLoader,
    rounds: int,
    draw: random.Random,
    seconds: Callable[[Clock], float],
    epochs: int = 4,
) -> Times:
    """Let each competitor train in each round."""
    times: Times = defaultdict(list)
    fit([], data, 1)
    for _ in track(range(rounds), ", ".join(competitors)):
        for name in draw.sample(list(competitors), len(competitors)):
            times[name].append(seconds(fit(competitors[name](), data, 8 if "cached" in name else epochs)))
    return times


def compare(
    name: str, times: Times, ours: str, peer: str, draw: random.Random, steps: int, goal: float | None = None
) -> dict:
    pairs = list(zip(times[ours], times[peer], strict=True))

    def ratio(pairs: list[tuple[float, float]]) -> float:
        return statistics.median(theirs / mine for mine, theirs in pairs)

    found = sorted(ratio(draw.choices(pairs, k=len(pairs))) for _ in range(1000))
    milliseconds = (1e3 * statistics.median(times[each]) / steps for each in (ours, peer))
    return row(name, *milliseconds, ratio(pairs), goal, found[25], found[-26])


if __name__ == "__main__":
    main()
