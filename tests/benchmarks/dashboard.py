"""The local command center: time to write the page, its size, time to draw it, and the cost in a fit.

Expected: 20 runs: page from cold in 2 s (`wandb leet inspect` takes 16 s), from the cache in 0.24 s, 10.9 MB, first
          panel 0.25 s later than with two points; Plotly's page of all values: 27.7 MB, 2 s. 200 runs: page from the
          cache in 0.7 s, 12.8 MB, first panel 0.25 s. The longest stall, 0.7 to 0.8 s, comes from Plotly's parallel
          coordinates without a graphics card. CommandCenter's share 0.4 %
Cost:     2 min on 2 CPU cores; Debian's chromium and chromium-driver
Command:  python tests/benchmarks/dashboard.py

1. 20 runs of 5,000 steps and 10 metrics, written by the wandb client. The page by `trainingkit dashboard`, in a new
   process: cold, and from the cache of the first process. Peers: `wandb leet inspect` for one run after the other,
   which only reads, and a page by Plotly of all values, with ten panels below each other.
2. 200 runs of 10,000 steps and 20 metrics, made in the cache's format.
3. First panel: Debian's headless Chromium, from the start of the navigation until the first line is in the page. The
   peer is a page of two points by Plotly, in turns. A stall is the longest time between two frames while all panels are
   scrolled into view, one after the other.
4. CommandCenter's share of a fit, as in `overhead.py`, without `wandb.init`, a cost of once a fit. A further row is the
   cost of a page at the end of the fit.

Seconds are of the clock. Medians, with the smallest and the largest.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from hook_timer import HookTimer
from overhead import fit, row, share_rows
from plotly.subplots import make_subplots
from rich.progress import track

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.dashboards.local import write_center
from lightning_trainingkit.dashboards.read import cache
from lightning_trainingkit.dashboards.read.packing import Found
from lightning_trainingkit.dashboards.read.record import Curve, Record
from lightning_trainingkit.dashboards.read.run_files import RunFiles
from lightning_trainingkit.dashboards.read.thinning import SHARES, thin
from lightning_trainingkit.dashboards.read.wandb_files import read_wandb_file

METRICS = ("train/loss", "val/loss", "train/acc", "val/acc", "lr-AdamW")
DRAWN = """
const look = () => {
  if (document.querySelector(".scatterlayer path.js-line")) window.firstPanel = performance.now();
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
SCROLL = """
const done = arguments[arguments.length - 1];
let last = performance.now(), worst = 0, on = true;
const tick = () => {
  const now = performance.now();
  worst = Math.max(worst, now - last);
  last = now;
  if (on) requestAnimationFrame(tick);
};
requestAnimationFrame(tick);
const until = (ready) => new Promise((resolve) => {
  const look = () => (ready() ? resolve() : setTimeout(look, 10));
  look();
});
(async () => {
  for (const panel of panels.values()) {
    panel.figure.scrollIntoView({ block: "center" });
    await until(() => panel.visible && !panel.stale && !drawing);
  }
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  on = false;
  done(worst / 1000);
})();
"""


def main() -> None:
    parser = experiments.argument_parser("dashboard", __doc__, trains=False)
    parser.add_argument("--runs", type=shape, default="20x5000x10", help="runs x steps x metrics (%(default)s)")
    parser.add_argument("--many", type=shape, default="200x10000x20", help="likewise, in the cache (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of what is timed several times (%(default)s)")
    parser.add_argument("--steps", type=int, default=700, help="of a fit, about (%(default)s)")
    args = parser.parse_args()
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        parser.error(f"{' and '.join(missing)} must be installed. Debian: apt-get install chromium chromium-driver")
    folder = experiments.open_folder("dashboard", args.output)
    experiments.quiet()
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    start = time.perf_counter()

    some, many = folder / "some", folder / "many"
    write_by_wandb(some, *args.runs)
    fill_cache(many, *args.many)
    go.Figure(go.Scatter(x=[0, 1], y=[0, 1])).write_html(folder / "two.html")
    titles = [" x ".join(map(str, each)) for each in (args.runs, args.many)]
    rows = []

    inspected = seconds(inspect_all, some)
    cold = seconds(write_page, some)
    write_plotly(some, folder / "plotly.html")
    rows += [
        row(f"{titles[0]}: page from cold, s", cold, inspected, None, None, None, 5.0),
        *page_rows(titles[0], some, args.rounds, folder, cached=1.5, size=12.0, first=1.4, peer=folder / "plotly.html"),
        *page_rows(titles[1], many, args.rounds, folder, cached=3.0, size=25.0, first=2.5, stall=2.0),
        *fit_rows(folder / "fit", args.steps),
    ]
    for each in (some, many):
        shutil.rmtree(each)
    experiments.print_table(
        "Dashboard",
        rows,
        "page: `trainingkit dashboard`, the whole process. From cold the peer is `wandb leet inspect`, run after run.",
        "size, and the control's first panel: the peer is Plotly's page of all values.",
        "first panel: above a page of two points, whose own time is the peer's.",
        "stall: longest time between two frames while all panels are scrolled into view.",
        "share: seconds inside, and of the fit without `wandb.init`.",
    )
    experiments.write_results(folder, vars(args), {}, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))


def shape(text: str) -> tuple[int, ...]:
    """Read runs x steps x metrics."""
    found = tuple(int(part) for part in text.split("x") if part.isdigit())
    if len(found) != 3 or min(found) < 1 or found[2] < len(METRICS):
        raise argparse.ArgumentTypeError(f"must be such as 20x5000x10, with {len(METRICS)} metrics or more, got {text}")
    return found


def values(number: int, steps: int, metrics: int) -> dict[str, np.ndarray]:
    """Make curves of a run: a noisy loss that falls, a noisy accuracy that rises, and random walks."""
    draw = np.random.default_rng(number)
    falls = 0.1 * (1 + number % 7) + 2 * np.exp(-np.arange(steps) / (0.1 * steps))
    found = {}
    for place in range(metrics):
        name = METRICS[place] if place < len(METRICS) else f"layer{place}/norm"
        noise = draw.normal(0, 0.05, steps)
        base = falls if "loss" in name else 1 - falls / 3 if "acc" in name else 10 + noise.cumsum()
        found[name] = base * np.exp(noise)
    return found


def settings(number: int) -> dict[str, Any]:
    return {"lr": 10.0 ** -(number % 5), "weight_decay": 0.1 * (number % 3), "optimizer": ["SGD", "AdamW"][number % 2]}


def write_by_wandb(root: Path, count: int, steps: int, metrics: int) -> None:
    """Runs by the real client, two at a time."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(write_run, root, number, steps, metrics) for number in range(count)]
        for job in track(jobs, "Writing runs with wandb"):
            job.result()


def write_run(root: Path, number: int, steps: int, metrics: int) -> None:
    import wandb

    root.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        dir=root,
        project="benchmark",
        group=f"group {number % 4}",
        name=f"run {number}",
        config=settings(number),
        reinit="create_new",
        settings=wandb.Settings(silent=True, x_disable_stats=True),
    )
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    logged = values(number, steps, metrics)
    for step in range(steps):
        run.log({"trainer/global_step": step, **{name: value[step] for name, value in logged.items()}})
    run.finish()


def fill_cache(root: Path, count: int, steps: int, metrics: int) -> None:
    """Write runs as the cache keeps them after a first reading, beside files that nobody reads."""
    for number in track(range(count), "Filling a cache"):
        source = root / f"run-{number}" / f"run-{number}.wandb"
        source.parent.mkdir(parents=True)
        source.write_bytes(b"kept")
        curves = {name: Curve(np.arange(steps) * 1.0, each) for name, each in values(number, steps, metrics).items()}
        described = {"name": f"run {number}", "group": f"group {number % 4}", "config": settings(number)}
        curves = {name: thin(curve, SHARES) for name, curve in curves.items()}
        record = Record(str(number), state="finished", curves=curves, source=str(source), **described)
        files = RunFiles((source,))
        cache.save(files, Found([record]), cache.signature(files))


def inspect_all(root: Path) -> None:
    for path in root.rglob("run-*.wandb"):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write_page(root: Path) -> None:
    command = [sys.executable, "-m", "lightning_trainingkit.cli", "dashboard", str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write_plotly(root: Path, path: Path) -> None:
    """Write Plotly's page of all values of all runs, a panel for each metric."""
    found = [read_wandb_file(path) for path in sorted(root.rglob("run-*.wandb"))]  # `gather` thins curves
    names = sorted({name for run in found for name in run.curves})
    figure = make_subplots(len(names), 1, subplot_titles=names)
    for place, name in enumerate(names):
        for run in found:
            figure.add_scatter(x=run.curves[name].steps, y=run.curves[name].values, name=run.name, row=place + 1, col=1)
    figure.update_layout(height=320 * len(names), showlegend=False)
    figure.write_html(path)


def page_rows(
    title: str,
    root: Path,
    rounds: int,
    folder: Path,
    *,
    size: float,
    first: float,
    cached: float | None = None,
    stall: float | None = None,
    peer: Path | None = None,
) -> list[dict]:
    """Rows of one page: from the cache, its size, its first panel, the longest stall."""
    again = [seconds(write_page, root) for _ in range(rounds)]
    page = root / "dashboard.html"
    megabytes = {path: path.stat().st_size / 1e6 for path in (page, peer) if path is not None}
    with chromium() as browser:
        pairs = [(first_panel(browser, page), first_panel(browser, folder / "two.html")) for _ in range(rounds + 1)][1:]
        above = [ours - floor for ours, floor in pairs]
        first_panel(browser, page)
        longest = browser.execute_async_script(SCROLL)
    floor = statistics.median(floor for _, floor in pairs)
    rows = [
        row(f"{title}: page from cache, s", *spread(again, None), cached),
        row(f"{title}: page size, MB", megabytes[page], megabytes.get(peer), None, None, None, size),
        row(f"{title}: first panel overhead, s", *spread(above, floor), first),
        row(f"{title}: longest stall, s", longest, None, None, None, None, stall),
    ]
    if peer is not None:
        with chromium() as browser:  # a fresh one: it may not come back
            plotly = first_panel(browser, peer)
        above = plotly - floor
        rows.insert(3, row(f"{title}: Plotly's first panel overhead, s", above, floor, None, None, None, None))
    return rows


def spread(found: Sequence[float], peer: float | None) -> tuple[float, float | None, None, float, float]:
    """Median, the peer's, no ratio, smallest and largest."""
    return statistics.median(found), peer, None, min(found), max(found)


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium, as the tests open it, which notes when the first panel of a page is drawn."""
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.dashboards.browser import open_browser

    browser = open_browser()
    try:
        browser.set_script_timeout(300)
        browser.set_page_load_timeout(300)
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": DRAWN})
        yield browser
    finally:
        browser.quit()


def first_panel(browser: Any, path: Path) -> float:
    """Seconds from the start of the navigation until the first line is drawn."""
    browser.get("about:blank")
    browser.get(path.resolve().as_uri())
    end = time.monotonic() + 300
    while (found := browser.execute_script("return window.firstPanel || null")) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"{path} has drawn nothing in 300 s.")
        time.sleep(0.02)
    return found / 1000


def fit_rows(folder: Path, steps: int) -> list[dict]:
    """Measure the time of a fit inside CommandCenter, and the time to write its page."""
    timers = []
    for number in range(4):
        timers.append(HookTimer())
        threes = max(1, round((steps / 6 / 5 - 2) / 3))
        fit(folder / str(number), 6, threes, [kit.CommandCenter("benchmark")], timers[-1])
    (share,) = [
        each for each in share_rows(timers[1:]) if each["name"] == "CommandCenter share"
    ]  # the first one warms up
    page = seconds(lambda root: write_center(root / "page.html", [root]), folder / "3")
    return [share | {"goal": 0.01, "ok": share["ratio"] <= 0.01}, row("page at the end, s", page, *[None] * 5)]


def seconds(call: Callable[[Path], Any], path: Path) -> float:
    start = time.perf_counter()
    call(path)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
