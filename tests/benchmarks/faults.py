"""FaultBench: does HealthReport find planted faults, name their causes, and stay silent in healthy trainings?

Expected: of the held-out half, 95 % of the faults at the edge and all extreme ones are detected, the right cause comes
          first for 94 %, and at most 1 of 101 healthy trainings has an alarm
Cost:     6 min on 2 CPU cores, nothing to download
Command:  python tests/benchmarks/faults.py

Small trainings on scikit-learn's digits with Lightning's Trainer. The models are an MLP, a CNN with and without
BatchNorm, a residual net and a transformer. The optimizers are SGD and AdamW.

- **Faults**: each plant in ``fault_bench/plants.py`` is graded, at the edge of harm and extreme. Each grade is trained
  with two pairs of model and optimizer, in three seeds.
- **What counts**: a harmful fault that ends at least 10 points below its healthy twin, or is not finite. A silent
  fault must be seen to happen in the run. The rest is listed, and does not count.
- **Healthy trainings**: the families in ``fault_bench/families.py``. Each must score 0.6, and at most 0.3 below the
  best of its family. A finding above the level of advice is a false alarm.
- **Right cause**: the planted kind, or for a harmful fault a kind whose advice, applied, brings back 90 % of the
  healthy accuracy.
- **Cure**: the first finding's advice is applied in one seed of each harmful fault.
- **Two halves**: thresholds were chosen on the development half. The held-out half has other plants, grades and
  families. ``results.json`` names the commit that fixed the thresholds.
"""

import sys
import time
from functools import partial

import torch
from fault_bench.cases import HALVES, SEEDS, faulty_cases, healthy_cases
from fault_bench.examine import examine_faults, examine_healthy, scores, workers
from fault_bench.grid import measure_rates
from fault_bench.judge import alarms
from fault_bench.plants import NO_KIND
from fault_bench.report import OTHER_PROGRAMS, confusion, fault_rows, healthy_rows, learned
from fault_bench.thresholds import thresholds_commit
from rich.progress import Progress

import lightning_trainingkit as kit
from lightning_trainingkit import experiments


def main() -> None:
    parser = experiments.argument_parser("faults", __doc__, trains=False)
    parser.add_argument("--half", choices=[*HALVES, "both"], default="both", help="of the cases (%(default)s)")
    parser.add_argument("--seeds", type=experiments.at_least(1), default=len(SEEDS), help="of each fault (%(default)s)")
    parser.add_argument("--grid", action="store_true", help="measure the healthy learning rates instead")
    args = parser.parse_args()
    experiments.quiet()
    torch.set_num_threads(1)
    if args.grid:
        print_rates()
        return
    folder = experiments.open_folder("faults", args.output)
    start = time.perf_counter()
    detector = partial(kit.HealthReport, verbose=False)
    chosen = HALVES if args.half == "both" else (args.half,)
    faults = [case for case in faulty_cases(SEEDS[: args.seeds]) if case.half in chosen]
    healthy = [case for case in healthy_cases() if case.half in chosen]
    with Progress() as progress, workers() as pool:
        bar = progress.add_task("Trainings", total=len(faults) + len(healthy))
        outcomes = examine_healthy(pool, healthy, detector, lambda: progress.advance(bar))
        judgements = examine_faults(pool, faults, detector, lambda: progress.advance(bar))

    experiments.print_table("Planted faults and the first finding", confusion(judgements))
    rows = []
    for name, halves in {**{half: (half,) for half in chosen}, "all": chosen}.items():
        own = [each for each in judgements if each.case.half in halves]
        pairs = [pair for pair in zip(healthy, outcomes, strict=True) if pair[0].half in halves]
        part = [*fault_rows(own), *healthy_rows(*zip(*pairs, strict=True))]
        rows += [{**row, "name": f"{name}: {row['name']}"} for row in part]
    false_alarms = [
        f"{case.name}: {', '.join(finding.kind for finding in alarms(outcome))}"
        for case, outcome in zip(healthy, outcomes, strict=True)
        if alarms(outcome)
    ]
    poor = [case.name for case, good in zip(healthy, learned(healthy, outcomes), strict=True) if not good]
    harmless = sorted(each.case.name for each in judgements if not each.counts)
    commit = thresholds_commit()
    experiments.print_table(
        "FaultBench",
        rows,
        f"Thresholds: {commit['thresholds_commit']}"
        + (", changed since" if commit["thresholds_changed_since"] else ""),
        f"False alarms: {'; '.join(false_alarms) or 'none'}.",
        f"Healthy, and did not learn: {'; '.join(poor) or 'none'}.",
        "Shares with their 95 % intervals. `first finding`: (left out) is a fault that did no harm or was not seen.",
        f"Faults that did no harm, left out: {'; '.join(harmless) or 'none'}.",
        "No kind covers: " + "; ".join(f"{fault} ({why})" for fault, why in NO_KIND.items()) + ".",
        OTHER_PROGRAMS,
    )
    metrics = {
        **commit,
        "false_alarms": false_alarms,
        "did_no_harm": harmless,
        "did_not_learn": poor,
        "confusion": confusion(judgements),
    }
    experiments.write_results(folder, vars(args), metrics, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))


def print_rates() -> None:
    """Print the table of rates for ``fault_bench/rates.py``."""
    with workers() as pool:
        found = measure_rates(partial(scores, pool))
    for (model, optimizer), rates in found.items():
        print(f'    ("{model}", "{optimizer}"): {rates},')  # noqa: T201


if __name__ == "__main__":
    main()
