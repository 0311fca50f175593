"""Cost of looking inside: what the diagnostics add to a training step, beside two usual ways.

Expected: with ActivationStats, GradientStats and HealthReport a step takes 1.02 times as long, with every layer 1.07;
          the first two add 1 % of what Composer's way adds, and 7 % of what wandb.watch adds
Cost:     8 min on 2 CPU cores, nothing to download
Command:  python tests/benchmarks/diagnostics.py

The training: torchvision's ResNet-18, random images of 64 x 64 pixels, batches of 64, AdamW, float32, channels last,
one thread, a W&B logger (offline) that logs the loss of each step.

1. Steps. Two equal fits differ by up to 17 %, so on and off are compared within one fit, by blocks of 4 steps. Each
   three blocks have a random order: with the callbacks, without, and without again as the control. "Without" takes the
   callbacks out of the trainer, and the hooks off the module and the optimizer. The first step of a block does not
   count. ActivationStats and GradientStats sample and log every step. HealthReport looks at the first steps, and then
   ever more rarely: at about 20 of 128 steps. One row has a step that is not sampled.
2. Composer's way: the numbers of ActivationStats and GradientStats for the same layers, each from all elements and read
   by its own `.item()`, as Composer's monitors do. It is written out in diagnostics_peers.py.
3. `wandb.watch(log="all", log_freq=1)`: histograms of gradients and parameters.
4. The sample of GradientStats: the largest error of a parameter's update ratio, against all elements.
5. Graph breaks: a fit of the compiled model, `fullgraph=True`, with all diagnostics.

Times are seconds of this process. Intervals are 95 % bootstrap intervals over threes of blocks. A step's ratio meets
its goal if the lower end of its interval does. The middle would miss the goal by chance. Shares are judged directly.
"""

import contextlib
import io
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning as L
import torch
from diagnostics_peers import ComposersWay, WandbWatch
from diagnostics_training import Batches, Three, Trained, measure
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.nn import GradientRecorder


def main() -> None:
    parser = experiments.argument_parser("diagnostics", __doc__, trains=False)
    parser.add_argument("--threes", type=int, default=10, help="of blocks for each row (%(default)s)")
    parser.add_argument("--pixels", type=int, default=64, help="side of the images (%(default)s)")
    parser.add_argument("--precision", default="32-true", help="as in Lightning's Trainer (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the blocks' order and the bootstrap (%(default)s)")
    args = parser.parse_args()
    folder = experiments.open_folder("diagnostics", args.output)
    experiments.quiet()
    torch.set_num_threads(1)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    start = time.perf_counter()
    draw = random.Random(args.seed)

    threes = {}
    for name, make in candidates().items():
        threes[name] = measure(folder / name.replace(" ", "-"), make(), args, draw)
    rows = [
        *(each for name, found in threes.items() for each in step_rows(name, found, draw)),
        *peer_rows(threes, draw),
        sampled_row(threes, draw),
        sample_row(),
        graph_row(folder / "compiled"),
    ]
    experiments.print_table(
        "Diagnostics",
        rows,
        "Steps: milliseconds with and without, every step sampled but HealthReport's; the control has none in both.",
        "Added: milliseconds that a step takes longer, ours and theirs, and ours as a share of theirs.",
        "" if hasattr(kit, "HealthReport") else "HealthReport is not there: rows named 'all' are without it.",
    )
    metrics = {"layers": layers(Trained()), "threads": 1, "HealthReport": hasattr(kit, "HealthReport")}
    experiments.write_results(folder, vars(args), metrics, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))


def candidates() -> dict[str, Callable[[], list[L.Callback]]]:
    """What is measured, by name."""

    def both(every: int = 1, **options) -> list[L.Callback]:
        return [kit.ActivationStats(every_n_steps=every, **options), kit.GradientStats(every_n_steps=every)]

    def report(every: int = 1) -> list[L.Callback]:
        return [kit.HealthReport(every_n_steps=every)] if hasattr(kit, "HealthReport") else []

    found = {
        "ActivationStats": lambda: both()[:1],
        "GradientStats": lambda: both()[1:],
        "HealthReport": report,
        "all": lambda: both() + report(),
        "all, every layer": lambda: both(layers="*") + report(),
        "all, no step sampled": lambda: both(10**9) + report(10**9),
        "two": both,
        "Composer's way": lambda: [ComposersWay(layers(Trained()))],
        "wandb.watch": lambda: [WandbWatch()],
    }
    return {name: make for name, make in found.items() if name != "HealthReport" or make()}


def layers(module: L.LightningModule) -> list[str]:
    """Names of the layers that ActivationStats takes by default: here all are modules."""
    return [name for name, layer in module.named_modules() if isinstance(layer, torch.nn.ReLU)]


def median(threes: Sequence[Three], state: str) -> float:
    return 1e3 * statistics.median(seconds for three in threes for seconds in three[state])


def added(threes: Sequence[Three]) -> float:
    return median(threes, "on") - median(threes, "off")


def step_rows(name: str, threes: Sequence[Three], draw: random.Random) -> list[dict]:
    def compare(title: str, state: str, goal: float | None) -> dict:
        def ratio(threes: Sequence[Three]) -> float:
            return median(threes, state) / median(threes, "off")

        found = median(threes, state), median(threes, "off")
        return row(title, *found, ratio(threes), *interval(threes, ratio, draw), goal)

    goal = 1.05 if name == "all" else None
    return [compare(f"step overhead: {name}", "on", goal), compare(f"control: {name}", "control", None)]


def peer_rows(threes: dict[str, list[Three]], draw: random.Random) -> list[dict]:
    rows = []
    for peer in ("Composer's way", "wandb.watch"):
        pairs = list(zip(threes["two"], threes[peer], strict=True))

        def share(pairs: Sequence[tuple[Three, Three]]) -> float:
            ours, theirs = zip(*pairs, strict=True)
            return added(ours) / added(theirs)

        found = added(threes["two"]), added(threes[peer]), share(pairs)
        rows.append(row(f"added by the two, share of {peer}", *found, *interval(pairs, share, draw), 1 / 3))
    return rows


def sampled_row(threes: dict[str, list[Three]], draw: random.Random) -> dict:
    """What a sampled step of all adds, and the share of a step that remains with `every_n_steps=50`, calculated."""

    def spread(found: Sequence[Three]) -> float:
        return added(found) / median(found, "off") / 50

    found = threes["all"]
    return row(
        "sampled step, ms; every 50 steps, share",
        added(found),
        median(found, "off"),
        spread(found),
        *interval(found, spread, draw),
        None,
    )


def sample_row(steps: int = 10) -> dict:
    """Largest error of a layer's update ratio that comes from GradientStats' sample of elements."""
    module = Trained()
    optimizer = module.configure_optimizers()
    parameters = dict(module.named_parameters())
    sampled, whole = GradientRecorder(parameters), GradientRecorder(parameters, sample=10**9)
    for images, targets in Batches(steps, 32, 8):
        optimizer.zero_grad()
        cross_entropy(module.net(images), targets).backward()
        for recorder in (sampled, whole):
            recorder.reset()
            recorder.record_gradients()
        optimizer.step()
        sampled.record_update()
        whole.record_update()
    pairs = zip(sampled.summaries().values(), whole.summaries().values(), strict=True)
    ratios = [(found.update_ratio, exact.update_ratio) for found, exact in pairs]
    errors = [abs(found / exact - 1) for found, exact in ratios]
    worst = errors.index(max(errors))
    return row("sample: largest error of an update ratio, share", *ratios[worst], max(errors), None, None, None)


def graph_row(folder: Path) -> dict:
    """Graph breaks in a fit of the compiled model, which `fullgraph=True` turns into an error."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    module = Trained()
    module.net = torch.compile(module.net, backend="eager", fullgraph=True)
    report = [kit.HealthReport(every_n_steps=1)] if hasattr(kit, "HealthReport") else []
    callbacks = [kit.ActivationStats(every_n_steps=2), kit.GradientStats(every_n_steps=2), *report]
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        max_epochs=1, callbacks=callbacks, logger=False, accelerator="cpu", default_root_dir=folder, **options
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(module, DataLoader(Batches(4, 32, 4), batch_size=None))
    breaks = sum(counters["graph_break"].values())
    return {"name": "graph breaks", "ours": breaks, "peer": None, "ratio": None, "low": None, "high": None} | {
        "goal": 0,
        "ok": breaks == 0 and counters["stats"]["unique_graphs"] > 0,
    }


def interval(items: Sequence, statistic: Callable[[Sequence], float], draw: random.Random) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic."""
    found = sorted(statistic(draw.choices(items, k=len(items))) for _ in range(1000))
    return found[25], found[-26]


def row(
    name: str,
    ours: float,
    peer: float,
    ratio: float | None,
    low: float | None,
    high: float | None,
    goal: float | None,
) -> dict:
    """One comparison."""
    numbers = {"ours": ours, "peer": peer, "ratio": ratio, "low": low, "high": high}
    rounded = {key: value if value is None else round(value, 4) for key, value in numbers.items()}
    ok = goal is None or (low if name.startswith("step overhead") else ratio) <= goal
    return {"name": name, **rounded, "goal": goal if goal is None else round(goal, 4), "ok": ok}


if __name__ == "__main__":
    main()
