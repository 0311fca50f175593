"""Searches over trainings: what a trial costs, two workers, kills and restarts, the budget of seven steps, folds.

Expected: a trial costs 0.08 to 0.13 s beside its training in memory and with a journal, 0.16 to 0.24 s with PostgreSQL.
          Two workers need 0.51 of one worker's time. 100 of 100 trials are completed in all six runs of chaos, each
          epoch once. Seven steps reach 100 to 101 % of the accuracy of random search with 15 to 17 % of its epochs, 0.1
          points above plain Optuna (0.2 in another run), which is not significant. Folds cost 0.45,
          with the right winner in 20 of 20 repeats
Cost:     about 55 min on 2 idle CPU cores, most of it for chaos and budget. PostgreSQL is Debian's package postgresql,
          Fashion-MNIST its package dataset-fashion-mnist
Command:  python tests/benchmarks/tuning.py

1. `overhead`: a trial beside its training. Goal: at most 0.3 s in memory and with a journal file, 1 s with PostgreSQL.
   The server's start stands apart.
2. `workers`: two workers on one PostgreSQL against one worker, 16 waiting trials. Goal: at most 0.6 of its time.
3. `chaos`: four workers, 100 trials of 6 epochs, 20 kills by SIGKILL, 2 restarts of PostgreSQL; the same on a journal
   file without restarts; three seeds. Goal: exactly 100 completed trials, none lost, none counted twice. Each retried
   trial resumes from its checkpoint if it had written one.
4. `budget`: the seven steps against 100 random trials of 10 epochs on four tasks, and against plain Optuna (TPE and
   median pruner) with the same budget. Goal: at least 99 % of the best random trial, by at most 20 % of the epochs.
   Not significantly worse than plain Optuna on any task, and better on the mean.
5. `folds`: cross-validation of 16 configurations on 10 folds with pruning against all folds, replayed from one table of
   trained folds. Goal: at most 50 % of the cost, and in at least 90 % of 20 repeats the same winner, or one inside its
   interval. The floor of 5 folds is printed.

Each part says in ``tuning_bench/`` what it measures. Times are of the clock: run it on an idle machine. Only ratios
mean something on a busy one.
"""

import sys
import time
from importlib import import_module
from pathlib import Path

from lightning_trainingkit import experiments

PARTS = ("overhead", "workers", "chaos", "budget", "folds")
STORAGES = ("PostgreSQL", "journal")


def main() -> None:
    parser = experiments.argument_parser("tuning", __doc__, trains=False)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of draws and of the bootstrap (%(default)s)")
    parser.add_argument(
        "--trials-timed", type=experiments.at_least(2), default=20, help="of overhead, each storage (%(default)s)"
    )
    parser.add_argument("--rounds", type=experiments.at_least(1), default=3, help="of workers (%(default)s)")
    chaos = parser.add_argument_group("chaos")
    chaos.add_argument("--storages", nargs="+", choices=STORAGES, default=STORAGES, help="(both)")
    chaos.add_argument("--seeds", type=experiments.at_least(1), default=3, help="of kills (%(default)s)")
    chaos.add_argument("--workers", type=experiments.at_least(1), default=4, help="at once (%(default)s)")
    chaos.add_argument("--trials", type=experiments.at_least(3), default=100, help="of a run (%(default)s)")
    chaos.add_argument("--epochs", type=experiments.at_least(1), default=6, help="of a trial (%(default)s)")
    chaos.add_argument("--epoch-seconds", type=float, default=0.5, help="of sleep (%(default)s)")
    chaos.add_argument("--kills", type=experiments.at_least(1), default=20, help="of a run (%(default)s)")
    chaos.add_argument("--restarts", type=int, default=2, help="of the database (%(default)s)")
    budget = parser.add_argument_group("budget")
    budget.add_argument("--half", choices=("development", "held-out", "both"), default="both", help="(%(default)s)")
    budget.add_argument("--repeats", type=experiments.at_least(2), default=5, help="of a search (%(default)s)")
    budget.add_argument("--processes", type=experiments.at_least(1), default=2, help="at once (%(default)s)")
    budget.add_argument("--resume", action="store_true", help="keep what --output (default: the newest folder) has")
    args = parser.parse_args()
    folder = args.output = experiments.open_folder("tuning", args.output, resume=args.resume)
    experiments.quiet()
    sys.path.append(str(Path(__file__).parents[2]))  # the tests' own PostgreSQL
    start = time.perf_counter()
    rows, seconds = [], {}
    for part in args.only or PARTS:
        begun = time.perf_counter()
        rows += import_module(f"tuning_bench.{part}").rows(args)
        seconds[part] = round(time.perf_counter() - begun, 1)
    experiments.print_table("Searches over trainings", rows, f"Files: {folder}/results.json")
    experiments.write_results(folder, vars(args), {"seconds": seconds}, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))


if __name__ == "__main__":
    main()
