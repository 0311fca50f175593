"""Overhead of the kit: what its callbacks add to a training, and what importing it adds to Python.

Expected: a step takes 1.01 to 1.02 times as long, hooks are 1.6 to 2 % of a fit of 700 steps, the import adds 7 ms
Cost:     60 s on 2 idle CPU cores, nothing to download
Command:  python tests/benchmarks/overhead.py

The training: scikit-learn's digits, SmallResNet, batches of 128, one thread; a validation and a checkpoint an epoch.

1. Steps. Two equal fits differ by up to 17 %, so on and off are compared within one fit, by blocks of 5 steps.
   Each three blocks have a random order: every callback of the kit but the diagnostics, LearningRateTest and those
   that change batches, and CommandCenter's logger; none; and none again as the control. A step lasts until the next
   step begins. The first and the last block of an epoch don't count: validations and epoch ends have all callbacks, so
   that no callback loses its place. Effects on the whole fit are in all blocks: weights are channels last, and W&B's
   own process runs too. The goal is on the time that this process computes. By the clock, other programs blur the
   control to 15 %.
2. Hooks. Fits with all callbacks. Counted is the time inside hooks, with setup, epoch ends and fit end, and inside the
   callbacks' additions to the module's `setup` or the logger. Each moment counts once, less the time of an empty hook
   with this timer. Hooks that a callback leaves to Lightning's base class are Lightning's time. Two parts are listed
   apart: writing and reading weights and their manifest, and `wandb.init`. W&B's start costs once a fit, and most in
   the first fit of a process. Shares are of the fit without these two parts. Of several fits the row has the median,
   with the smallest and the largest. The diagnostics are apart too, without a goal: most of their time is in the first
   steps and in one rehearsal, however long the fit is. `diagnostics.py` judges their steps. Callbacks that change
   batches (Cutout, Mixup) work inside of the training step, so that `noise.py` measures them. What changes the model
   or its gradients (WeightPenalty) is measured by `surgery.py`.
3. Import. Python that imports the kit against Python that does nothing, in turns.

The other intervals are 95 % bootstrap intervals over threes of blocks and pairs of imports. A step's ratio meets its
goal if the lower end of its interval does. The middle would miss the goal by chance. Shares are judged directly.
"""

import contextlib
import io
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning as L
import torch
from hook_timer import SAVING, TRAINING, WANDB, HookTimer
from torch.utils.data import DataLoader, RandomSampler

import lightning_trainingkit as kit
from lightning_trainingkit import experiments

BLOCK = 5
BATCH = 128
STATES = ("on", "off", "control")
DIAGNOSTICS = ("ActivationStats", "GradientStats", "HealthReport")
Block = dict[str, list[tuple[float, float]]]  # of the steps by state: seconds of this process and of the clock


def main() -> None:
    parser = experiments.argument_parser("overhead", __doc__, trains=False)
    parser.add_argument(
        "--steps", type=int, default=700, help="of a fit, about; switching takes three times as many (%(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, default=6, help="of a fit; switching takes three times as many (%(default)s)"
    )
    parser.add_argument("--fits", type=int, default=3, help="whose hooks are timed (%(default)s)")
    parser.add_argument("--imports", type=int, default=30, help="of the package (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the blocks' order and the bootstrap (%(default)s)")
    args = parser.parse_args()
    folder = experiments.open_folder("overhead", args.output)
    experiments.quiet()
    torch.set_num_threads(1)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    start = time.perf_counter()
    draw = random.Random(args.seed)
    threes = max(1, round((args.steps / args.epochs / BLOCK - 2) / 3))  # in an epoch, between a block at either end

    timers = [HookTimer() for _ in range(args.fits)]
    for number, timer in enumerate(timers):  # the first one pays for what Python does once
        fit(folder / f"hooks-{number}", args.epochs, threes, callbacks(), timer)
    switch = Switch(threes, draw)
    others = [each for each in callbacks() if type(each).__name__ not in DIAGNOSTICS]
    fit(folder / "steps", 3 * args.epochs, threes, [switch, *others])

    rows = [*step_rows(switch.blocks, draw), *share_rows(timers), import_row(args.imports, draw)]
    experiments.print_table(
        "Overhead",
        rows,
        "Steps: milliseconds with all callbacks but the diagnostics, and with none; the control has none in both.",
        f"Shares: seconds inside, and of the fit without {SAVING} and {WANDB} (`wandb.init`), which have no goal.",
        "Import: milliseconds on top of what Python takes to do nothing.",
    )
    steps = {state: sum(len(block[state]) for block in switch.blocks) for state in STATES}
    metrics = {"steps": steps, "seconds of fits": [timer.seconds for timer in timers]}
    experiments.write_results(folder, vars(args), metrics, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))  # W&B listens in here and takes no bool


def callbacks() -> list[L.Callback]:
    """Every public callback that works in hooks alone, but LearningRateTest: it trains for up to 800 iterations."""
    return [
        kit.InitOverride(),
        kit.ReplaceActivation("leaky_relu(0.1)", verbose=False),
        kit.DropoutOverride({"model.stem": 0.1}, verbose=False),
        kit.EpochSeed(0),
        kit.ChannelsLast(),
        kit.ActivationStats(),
        kit.EarlyStopping("val/loss", patience=1000),
        kit.CommandCenter(group="overhead"),
        kit.BestCheckpoint("val/loss", "min", restore=True),
        kit.TestTimeAugmentation("flip"),  # these three wait for a test
        kit.EnsembleAverage("members/*.ckpt"),
        kit.MonteCarloDropout(),
        kit.SnapshotCheckpoint(cycles=1),
        kit.ReestimateBatchNorm(batches=1),
        kit.GradientStats(),
        kit.HealthReport(verbose=False),
        kit.TransferLearning([{"train": "all"}], lr_decay=1.0),
    ]


def fit(folder: Path, epochs: int, threes: int, parts: list[L.Callback], timer: HookTimer | None = None) -> None:
    """Train. Output of callbacks (InitOverride's report) is made and thrown away."""
    L.seed_everything(0, verbose=False)
    data = kit.DigitsDataModule(batch_size=BATCH)
    data.setup()
    images = BATCH * BLOCK * (3 * threes + 2)
    sampler = RandomSampler(data.train_set, replacement=True, num_samples=images)  # the data set is ten batches long
    loaders = DataLoader(data.train_set, BATCH, sampler=sampler), data.val_dataloader()
    module = kit.ImageClassifier("small_resnet", data.num_classes)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": BLOCK}
    where = {"accelerator": "cpu", "default_root_dir": folder, "logger": False}
    trainer = L.Trainer(max_epochs=epochs, callbacks=parts, profiler=timer, **quiet, **where)
    with contextlib.redirect_stdout(io.StringIO()), timer.watch() if timer else contextlib.nullcontext():
        trainer.fit(module, *loaders)
    trainer.logger.experiment.finish()  # no open run beside the next fit


class Switch(L.Callback):
    """Give the trainer the kit's callbacks or none, by blocks of steps, and note how long each step takes.

    It stands first in either list and leaves the order of the others alone.
    """

    def __init__(self, threes: int, draw: random.Random) -> None:
        self.threes, self.draw = threes, draw
        self.blocks: list[Block] = []

    def on_train_start(self, trainer, pl_module):
        self.on = trainer.callbacks, trainer.loggers
        self.off = [self], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.plan: list[tuple[str, Block | None]] = [("on", None)]
        for _ in range(self.threes):
            self.blocks.append({state: [] for state in STATES})
            self.plan += [(state, self.blocks[-1]) for state in self.draw.sample(STATES, 3)]
        self.plan.append(("on", None))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        now = time.process_time(), time.perf_counter()
        state, block = self.plan[max(batch_idx - 1, 0) // BLOCK]  # of the step that ends here
        if block is not None:
            block[state].append((now[0] - self.begun[0], now[1] - self.begun[1]))
        self.begun = now

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Switch after this hook: Lightning goes through the list that it has begun with."""
        state, _ = self.plan[min((batch_idx + 1) // BLOCK, len(self.plan) - 1)]
        trainer.callbacks, trainer.loggers = self.on if state == "on" else self.off


def step_rows(blocks: Sequence[Block], draw: random.Random) -> list[dict]:
    def median(blocks: Sequence[Block], state: str, clock: int) -> float:
        return 1e3 * statistics.median(seconds[clock] for block in blocks for seconds in block[state])

    def compare(name: str, state: str, clock: int, goal: float | None = None) -> dict:
        def ratio(blocks: Sequence[Block]) -> float:
            return median(blocks, state, clock) / median(blocks, "off", clock)

        found = median(blocks, state, clock), median(blocks, "off", clock)
        return row(name, *found, ratio(blocks), *interval(blocks, ratio, draw), goal)

    return [
        compare("step overhead", "on", 0, 1.02),
        compare("step overhead, control", "control", 0),
        compare("step overhead, by the clock", "on", 1),
        compare("step overhead, by the clock, control", "control", 1),
    ]


def share_rows(timers: Sequence[HookTimer]) -> list[dict]:
    names = sorted({name for timer in timers for name in timer.seconds} - {TRAINING, SAVING, WANDB})
    wholes = [sum(timer.seconds[name] for name in (TRAINING, *names)) for timer in timers]

    def share(title: str, parts: Sequence[str], goal: float | None = None) -> dict:
        insides = [sum(timer.seconds[name] for name in parts) for timer in timers]
        shares = [inside / whole for inside, whole in zip(insides, wholes, strict=True)]
        middle = shares.index(statistics.median_low(shares))
        return row(f"{title} share", insides[middle], wholes[middle], shares[middle], min(shares), max(shares), goal)

    looking = [name for name in names if name in DIAGNOSTICS]
    others = [name for name in names if name not in DIAGNOSTICS]
    shares = [share("hooks, without diagnostics", others, 0.02), share("hooks of the diagnostics", looking)]
    return [*shares, *(share(name, [name]) for name in (*names, SAVING, WANDB))]


def import_row(times: int, draw: random.Random) -> dict:
    code = {"bare": "pass", "kit": "import lightning_trainingkit"}

    def milliseconds(name: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", code[name]], check=True)
        return 1e3 * (time.perf_counter() - start)

    def median(pairs: Sequence[dict[str, float]], name: str) -> float:
        return statistics.median(pair[name] for pair in pairs)

    def more(pairs: Sequence[dict[str, float]]) -> float:
        return median(pairs, "kit") - median(pairs, "bare")

    pairs = [{name: milliseconds(name) for name in draw.sample(list(code), 2)} for _ in range(times + 1)]
    pairs = pairs[1:]  # the first one read the disk
    return row("import overhead, ms", more(pairs), median(pairs, "bare"), None, *interval(pairs, more, draw), 30)


def interval(items: Sequence, statistic: Callable[[Sequence], float], draw: random.Random) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic."""
    found = sorted(statistic(draw.choices(items, k=len(items))) for _ in range(1000))
    return found[25], found[-26]


def row(name: str, ours: float, peer: float, ratio: float | None, low: float, high: float, goal: float | None) -> dict:
    """One comparison; without a ratio `ours` is judged."""
    numbers = {"ours": ours, "peer": peer, "ratio": ratio, "low": low, "high": high}
    rounded = {key: value if value is None else round(value, 4) for key, value in numbers.items()}
    judged = ours if ratio is None else low if name == "step overhead" else ratio
    ok = goal is None or judged <= goal
    return {"name": name, **rounded, "goal": goal, "ok": ok}


if __name__ == "__main__":
    main()
