"""Overhead of the kit: what its callbacks add to a training, and its import to Python.

Expected: a step takes 1.00 times as long with every callback, their hooks 1 % of a fit of 16 s, the import 20 ms
Cost:     2 minutes on 2 CPU cores, nothing to download
Command:  python tests/benchmarks/overhead.py

One training on scikit-learn's digits (SmallResNet, batches of 128, a validation and a checkpoint an epoch), three ways:

1. Steps. Two fits that do the same differ by up to 17 %, so on and off are compared within one fit, in blocks of 5
   steps: every callback of the kit (and CommandCenter's logger), none, and none again as the control, in an order drawn
   anew for each three. A step lasts from its beginning to that of the next. The first and the last block of an epoch
   don't count: validation and epoch ends always have all callbacks, so that none loses its place. What a callback sets
   up for the whole fit stays in the off blocks: the weights that ChannelsLast stored channels last.
2. Hooks. Fits with all callbacks from beginning to end, where each moment inside a hook, or in what the kit left in the
   module's `setup` or calls of the logger, is counted once, to the innermost. Setup, epoch ends and fit end are in it.
   Apart are what would cost the same without the kit: saving and restoring checkpoints, and `wandb.init`. The share is
   of the fit without these two, the median of the fits; low and high are the smallest and the largest.
3. Import. Python that does nothing against Python that imports the kit, in turns; the difference of the medians.
"""

import contextlib
import io
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from unittest.mock import patch

import lightning as L
import torch
import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.profilers import Profiler
from torch.utils.data import DataLoader, RandomSampler

import lightning_trainingkit as kit
from lightning_trainingkit import runs
from lightning_trainingkit.callbacks import best_checkpoint, early_stopping

BLOCK = 5
BATCH = 128
APART = ("checkpoint saving", "W&B start")
LOGGER = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize")  # what Lightning itself calls


def main() -> None:
    parser = runs.arguments("overhead", __doc__, trains=False)
    parser.add_argument("--steps", type=int, default=700, help="of each fit, about (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of each fit (%(default)s)")
    parser.add_argument("--fits", type=int, default=3, help="whose hooks are timed (%(default)s)")
    parser.add_argument("--imports", type=int, default=30, help="of the package (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the blocks' order and the bootstrap (%(default)s)")
    args = parser.parse_args()
    folder = runs.open_folder("overhead", args.output)
    runs.quiet()
    torch.set_num_threads(1)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    start = time.perf_counter()
    draw = random.Random(args.seed)
    triples = max(1, round((args.steps / args.epochs / BLOCK - 2) / 3))  # in an epoch, between a block at either end

    timers = [HookTimer() for _ in range(args.fits)]
    for number, timer in enumerate(timers):
        with timer.watch():
            fit(folder / f"hooks-{number}", args.epochs, triples, callbacks(), timer)
    switch = Switch(triples, draw)
    fit(folder / "steps", args.epochs, triples, [switch, *callbacks()])

    rows = [*step_rows(switch, draw), *share_rows(timers), import_row(args.imports, draw)]
    runs.print_table(
        "Overhead",
        rows,
        "Steps: milliseconds with and without all callbacks. Shares: seconds inside, of the fit's seconds without "
        f"{' and '.join(APART)}. Import: milliseconds more than bare Python.",
        f"W&B start is `wandb.init`, once a fit, whatever its length; {' and '.join(APART)} have no goal.",
    )
    metrics = {"fits": [dict(timer.seconds) for timer in timers], "steps": switch.counts()}
    runs.write_results(folder, vars(args), metrics, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))  # W&B hooks in here and takes no bool


def callbacks() -> list[L.Callback]:
    """Every public callback."""
    return [
        kit.InitOverride(),
        kit.EpochSeed(0),
        kit.ChannelsLast(),
        kit.EarlyStopping("val/loss", patience=1000),
        kit.CommandCenter(group="overhead"),
        kit.BestCheckpoint("val/loss", "min", restore=True),
    ]


def fit(folder: Path, epochs: int, triples: int, parts: list[L.Callback], profiler: Profiler | None = None) -> None:
    """Train; what is printed (InitOverride's report) is made and thrown away."""
    L.seed_everything(0, verbose=False)
    data = kit.DigitsDataModule(batch_size=BATCH)
    data.setup()
    images = BATCH * BLOCK * (3 * triples + 2)
    sampler = RandomSampler(data.train_set, replacement=True, num_samples=images)  # the data set is ten batches long
    module = kit.ImageClassifier("small_resnet", data.num_classes)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        callbacks=parts,
        profiler=profiler,
        log_every_n_steps=BLOCK,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(module, DataLoader(data.train_set, BATCH, sampler=sampler), data.val_dataloader())
        trainer.logger.experiment.finish()  # no open run beside the next fit


class Switch(L.Callback):
    """Give the trainer the kit's callbacks or none, by blocks of steps, and note how long each step takes.

    It stands first in the list and leaves the order of the others alone.
    """

    def __init__(self, triples: int, draw: random.Random) -> None:
        self.triples, self.draw = triples, draw
        self.blocks: list[dict[str, list[float]]] = []  # three each: seconds of their steps

    def on_train_start(self, trainer, pl_module):
        self.on = trainer.callbacks, trainer.loggers
        self.off = [callback for callback in trainer.callbacks if callback is self], []

    def on_train_epoch_start(self, trainer, pl_module):
        orders = [self.draw.sample(("on", "off", "control"), 3) for _ in range(self.triples)]
        self.plan = ["", *(state for order in orders for state in order), ""]
        self.blocks += [{state: [] for state in order} for order in orders]
        self.begun = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        now = time.perf_counter()
        if self.begun is not None and (state := self.plan[(batch_idx - 1) // BLOCK]):
            triple = (batch_idx - 1 - BLOCK) // (3 * BLOCK) - self.triples
            self.blocks[triple][state].append(now - self.begun)
        self.begun = now

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Switch between two steps: Lightning goes through the list that it has begun with."""
        following = (batch_idx + 1) // BLOCK
        off = following < len(self.plan) and self.plan[following] in ("off", "control")
        trainer.callbacks, trainer.loggers = self.off if off else self.on

    def counts(self) -> dict[str, int]:
        """How many steps of each state were timed."""
        return {state: sum(len(block[state]) for block in self.blocks) for state in ("on", "off", "control")}


def step_rows(switch: Switch, draw: random.Random) -> list[dict]:
    def medians(blocks: Sequence[dict[str, list[float]]]) -> dict[str, float]:
        states = ("on", "off", "control")
        return {state: 1e3 * statistics.median(s for block in blocks for s in block[state]) for state in states}

    rows = []
    for name, state, goal in (("step overhead", "on", 1.02), ("step overhead, control", "control", None)):
        found = medians(switch.blocks)

        def ratio(blocks: Sequence[dict[str, list[float]]], state: str = state) -> float:
            return (of := medians(blocks))[state] / of["off"]

        low, high = interval(switch.blocks, ratio, draw)
        rows.append(row(name, found[state], found["off"], ratio(switch.blocks), low, high, goal))
    return rows


class HookTimer(Profiler):
    """Seconds by what they were spent on; each moment goes to the innermost call that has a name.

    Lightning reports every hook of every callback to its profiler, and every checkpoint that it saves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self._names = ["training"]

    def start(self, action_name: str) -> None:
        self._charge()
        self._names.append(self._name(action_name))

    def stop(self, action_name: str) -> None:
        self._charge()
        self._names.pop()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Count the time from here on, and what Lightning does not report."""
        calls = [
            *((WandbLogger, method, "CommandCenter") for method in LOGGER),
            (wandb, "init", "W&B start"),
            *((module, "restore_weights", "checkpoint saving") for module in (best_checkpoint, early_stopping)),
            (best_checkpoint, "put_in_place", "checkpoint saving"),  # waits for the disk
        ]
        with contextlib.ExitStack() as stack:
            for owner, call, name in calls:
                stack.enter_context(patch.object(owner, call, self._timed(getattr(owner, call), name)))
            self._last = time.perf_counter()
            yield
            self._charge()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._names[-1]] += now - self._last
        self._last = now

    def _name(self, action: str) -> str:
        if action == "save_checkpoint":
            return "checkpoint saving"
        if action == "[LightningModule]ImageClassifier.setup":  # a line of its own, and what callbacks put after it
            return "module's setup"
        named = re.match(r"\[(?:Callback|Call)\]([^.{]+)", action)
        return named[1] if named else self._names[-1]

    def _timed(self, call: Callable, name: str) -> Callable:
        @wraps(call)
        def timed(*args, **kwargs):
            with self.profile(f"[Call]{name}"):
                return call(*args, **kwargs)

        return timed


def share_rows(timers: Sequence[HookTimer]) -> list[dict]:
    names = list(dict.fromkeys(name for timer in timers for name in timer.seconds if name != "training"))
    hooks = [name for name in names if name not in APART]

    def share(title: str, parts: Sequence[str], goal: float | None = None) -> dict:
        inside = [sum(timer.seconds[name] for name in parts) for timer in timers]
        whole = [sum(seconds for name, seconds in timer.seconds.items() if name not in APART) for timer in timers]
        shares = [a / b for a, b in zip(inside, whole, strict=True)]
        middle = statistics.median_low(shares)
        fit = shares.index(middle)
        return row(f"{title} share", inside[fit], whole[fit], middle, min(shares), max(shares), goal)

    return [
        share("all hooks", hooks, 0.02),
        *(share(name, [name]) for name in sorted(hooks)),
        *(share(name, [name]) for name in APART),
    ]


def import_row(times: int, draw: random.Random) -> dict:
    code = {"bare": "pass", "kit": "import lightning_trainingkit"}

    def milliseconds(name: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", code[name]], check=True)
        return 1e3 * (time.perf_counter() - start)

    def more(pairs: Sequence[dict[str, float]]) -> float:
        return statistics.median(pair["kit"] for pair in pairs) - statistics.median(pair["bare"] for pair in pairs)

    for name in code:  # so that the disk has been read
        milliseconds(name)
    pairs = [{name: milliseconds(name) for name in draw.sample(sorted(code), 2)} for _ in range(times)]
    return row("import overhead, ms", more(pairs), None, None, *interval(pairs, more, draw), 30)


def interval(items: Sequence, statistic: Callable[[Sequence], float], draw: random.Random) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic."""
    found = sorted(statistic(draw.choices(items, k=len(items))) for _ in range(1000))
    return found[25], found[-26]


def row(
    name: str, ours: float, peer: float | None, ratio: float | None, low: float, high: float, goal: float | None
) -> dict:
    judged = ours if ratio is None else ratio
    ok = goal is None or judged <= goal
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "low": low, "high": high, "goal": goal, "ok": ok}


if __name__ == "__main__":
    main()
