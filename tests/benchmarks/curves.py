"""CurveBench: does `read_curves` name the shape of real curves with planted causes?

Expected: the goal is missed, exit code 1. Macro F1 of the held-out tasks 0.89 (0.83 to 0.93), of the development tasks
          0.94; SageMaker Debugger's rules 0.18, TheDeepChecker's 0.17
Cost:     11 min on 2 CPU cores, nothing to download
Command:  python tests/benchmarks/curves.py

Small trainings with planted causes, on eighteen tasks (``curve_bench/tasks.py``): scikit-learn's digits and tables, and
images of Fashion-MNIST, with perceptrons, convolutional and residual nets, a transformer, SGD and AdamW.

- **The right word** is the oracle's (``curve_bench/oracle.py``). It sees what the rules don't: test examples, the same
  training continued, the same training continued with a tenth of the rate, and the task's healthy training. Plants
  that do something other than planned get the word that the oracle is sure of, or are dropped. Both are counted.
- **Between two words**: such curves are dropped and counted, since no rule could be right. So are curves whose log does
  not show the cause (listed in ``oracle.label``): an ended schedule may need more time or a bigger model, and means of
  epochs do not tell of a rise before the first of them.
- **What the rules see** is what a project would have logged: losses of steps or means of epochs, with or without
  accuracy and learning rate.
- **Set aside**: thresholds were chosen on the development tasks. ``results.json`` names the commit that fixed them.
  Of the held-out tasks, the loss of healthy trainings at three rates had been seen, to choose rate and epochs.
- **Looks**: six, each at tasks that had never been looked at. All six missed the goal.

  1. six tasks: 0.78 (0.69 to 0.84), at commit 6035ea6
  2. six more: 0.80 (0.68 to 0.89), at cbd7d3a
  3. nine more: 0.84 (0.78 to 0.89), at cea4de1
  4. nine practice tasks: 0.89 (0.83 to 0.93). The tasks stand in 6a02e67. The rules of that hour were not committed.
  5. nine practice tasks, stopped after half of the trainings: 0.85 on 84 curves, at 2108d67
  6. the nine held-out tasks of today: 0.89 (0.83 to 0.93), at 6e26065. Nothing was changed after it.

  Plants and oracle changed before looks 3 to 6, so that the numbers are not comparable. On the curves of look 6, with
  the oracle of today, the rules of look 3 have 0.89 too: what rose since look 3 is due to the oracle and the tasks. The
  development tasks are nine of those that had been looked at before; 333 of their 360 trainings were kept from look 3.
- **Peers**: published rules of two tools, on the same curves (``curve_bench/peers.py``).

``--resume`` keeps the finished trainings of ``--output``.
"""

import sys
import time
from collections import Counter
from typing import Any

import torch
from curve_bench.cases import Case, all_cases
from curve_bench.logged import logged
from curve_bench.oracle import label
from curve_bench.peers import PEERS
from curve_bench.run import train_all
from curve_bench.scores import WORDS, confusion, f1_by_word, row
from curve_bench.tasks import HALVES, TASKS
from fault_bench.thresholds import thresholds_commit
from rich.progress import Progress

from lightning_trainingkit import experiments
from lightning_trainingkit.tuning import read_curves

GOAL = 0.90
RULES = [f"lightning_trainingkit/functional/curve_{name}.py" for name in ("epochs", "measures", "rules")]


def main() -> None:
    parser = experiments.argument_parser("curves", __doc__, trains=False)
    parser.add_argument("--resume", action="store_true", help="keep the finished trainings of --output")
    parser.add_argument("--half", choices=[*HALVES, "both"], default="both", help="of the tasks (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), help="some tasks alone")
    parser.add_argument("--plants", nargs="+", choices=WORDS, help="some plants alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = experiments.open_folder("curves", args.output, resume=args.resume)
    start = time.perf_counter()
    chosen = list(HALVES) if args.half == "both" else [args.half]
    tasks = [name for half in chosen for name in HALVES[half] if name in (args.tasks or TASKS)]
    cases = [case for case in all_cases() if case.settings.task in tasks and case.plant in (args.plants or WORDS)]
    with Progress(auto_refresh=False) as progress:  # a thread that refreshes must not be forked
        bar = progress.add_task("Trainings", total=len(cases))
        trainings = train_all(cases, folder / "curves", lambda: progress.update(bar, advance=1, refresh=True))

    labels = [label(case.plant, found["facts"]) for case, found in zip(cases, trainings, strict=True)]
    judged = [each for each in zip(cases, trainings, labels, strict=True) if each[2] is not None]
    said = {case: words(found) for case, found, _ in judged}
    rows: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {**thresholds_commit(RULES), "relabelled": relabelled(cases, labels)}
    for half in chosen:
        if own := [(case, right) for case, _, right in judged if case.half == half]:
            rows += judge(half, own, said, metrics)
    experiments.print_table(
        "CurveBench",
        rows,
        f"Curves: {len(cases)} trained, {len(judged)} judged. {metrics['relabelled']['text']}",
        f"Thresholds: {metrics['thresholds_commit']}",
        *(["The rules have changed since that commit."] if metrics["thresholds_changed_since"] else []),
        "Macro F1 of the first word over nine words; low, high: 95 % interval of ours by resampling the curves.",
        "SageMaker's rules can say 4 of the words, TheDeepChecker's 5. F1 of each word stands in results.json.",
    )
    experiments.write_results(folder, vars(args), metrics, rows, time.perf_counter() - start)
    sys.exit(int(not all(each["ok"] for each in rows)))


def judge(
    half: str, own: list[tuple[Case, str]], said: dict[Case, dict[str, str]], metrics: dict[str, Any]
) -> list[dict[str, Any]]:
    """Print what was said of one half, add it to the metrics, and return a row for each peer."""
    truth = [right for _, right in own]
    ours = [said[case]["ours"] for case, _ in own]
    experiments.print_table(f"{half}: the right word, and the word said first", confusion(truth, ours))
    metrics[f"{half}: F1"] = f1_by_word(truth, ours)
    metrics[f"{half}: misses"] = [
        f"{case.name}: {right}, said {said[case]['ours']}" for case, right in own if said[case]["ours"] != right
    ]
    rows = []
    for peer in PEERS:
        others = [said[case][peer] for case, _ in own]
        metrics[f"{half}: F1 of {peer}"] = f1_by_word(truth, others)
        name = f"{half}: macro F1 of {len(own)} curves, peer {peer}"
        rows.append(row(name, truth, ours, others, GOAL if half == "held-out" else None))
    return rows


def words(training: dict[str, Any]) -> dict[str, str]:
    """The first word of our rules and of each peer."""
    curves = logged(training["settings"], training["curves"])
    names = {"train_loss": "train/loss", "val_loss": "val/loss", "train_acc": "train/acc", "val_acc": "val/acc"}
    ours = read_curves({names.get(name, "lr"): points for name, points in curves.items()})
    return {"ours": ours.shape, **{name: rules(curves) for name, rules in PEERS.items()}}


def relabelled(cases: list[Case], labels: list[str | None]) -> dict[str, Any]:
    """How many plants the oracle gave another word, or dropped."""
    pairs = list(zip(cases, labels, strict=True))
    dropped = Counter(case.plant for case, right in pairs if right is None)
    changed = Counter(f"{case.plant} to {right}" for case, right in pairs if right not in (None, case.plant))
    of = {"Dropped by the oracle": dropped, "relabelled": changed}
    text = "; ".join(
        f"{what}: {counts.total()} ({', '.join(f'{name} {times}' for name, times in counts.items())})"
        for what, counts in of.items()
    )
    return {"dropped": dict(dropped), "changed": dict(changed), "text": f"{text}."}


if __name__ == "__main__":
    main()
