"""Surgery on finished models: every kind, on 33 models of torchvision and 118 of timm, with one training step each.

Expected: exit 0. StochasticDepth is applied on 129 (rows) and 128 (batches) of 134 residual models. Done or refused, of
          151: ELU and PReLU 145/6, Maxout 60/91, group norm 112/39, folded 60/91, DropoutOverride 151/0, DropConnect
          140/11, FractionalMaxPool 38/113, WeightPenalty 151/0
Cost:     1,230 s of CPU time (of a busy machine) in two processes, with up to 7 GB of memory each
Command:  python tests/benchmarks/surgery_models.py

Each model has random weights and stands inside of a small LightningModule. Each surgery acts on a copy of it by the
callback's own path, a fit of one step.

- **Noise** (DropoutOverride, DropConnect, StochasticDepth, FractionalMaxPool): it changes the outputs in training. The
  keys of the state dict and the output in eval mode stay while there is noise. After the fit the output is, to the
  last bit, that of a fresh model with the same weights.
- **Swap** (ELU): the keys stay. **Rebuild** (PReLU, Maxout, group norm, folded BatchNorm): the keys are the ones that
  were said. Both are undone before training: weights, layers and outputs are the old ones to the last bit.
- **WeightPenalty**: the penalty is logged, and the model is as a fresh one with the same weights.
- **Refused**: a ValueError or TypeError with a rule in it. The model must be as it was, except
  that a refusal at the end of the first batch comes after a step. The reasons are listed.
- **Failed**: any other error, or a broken promise.
- **Residual models** are a list by hand (``surgery_bench/zoo.py``), from papers and sources. StochasticDepth is applied
  on one if it changes more branches than it leaves as they are.

Each result is kept in ``results.jsonl`` as soon as it is known. ``--resume --output FOLDER`` goes on. ``--only`` runs
few models, and their results are not judged as a whole.
"""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from rich.progress import track
from surgery_bench.one_model import Results, examine, quiet
from surgery_bench.operations import OPERATIONS
from surgery_bench.report import goals, model_rows, print_models, print_reasons, reasons
from surgery_bench.zoo import MODELS, choose

from lightning_trainingkit import experiments


def main() -> None:
    parser = experiments.argument_parser("surgery_models", __doc__, trains=False)
    parser.add_argument("--resume", action="store_true", help="go on in --output (default: the newest folder)")
    parser.add_argument("--workers", type=experiments.at_least(1), default=2, help="processes (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="models by name, such as 'timm/*' or '*/resnet18'")
    parser.add_argument("--surgeries", nargs="+", choices=list(OPERATIONS), default=list(OPERATIONS), metavar="NAME")
    args = parser.parse_args()
    try:
        models = choose(args.only) if args.only else list(MODELS)
    except ValueError as error:
        parser.error(str(error))
    folder = experiments.open_folder("surgery_models", args.output, resume=args.resume)
    start = time.perf_counter()
    results = Results(folder)
    todo = results.missing(models, args.surgeries)
    if args.workers == 1:
        quiet()
        for model in todo:
            results.add(model, examine(model, args.surgeries))
    elif todo:
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn"), quiet) as pool:
            running = {pool.submit(examine, model, args.surgeries): model for model in todo}
            for done in track(as_completed(running), "Models", total=len(running)):
                results.add(running[done], done.result())

    rows = goals(models, args.surgeries, results, whole=not args.only)
    tables = {"models": model_rows(models, args.surgeries, results), "reasons": reasons(models, results)}
    print_models(tables["models"])
    print_reasons(tables["reasons"])
    experiments.print_table("Goals", rows, f"Files: {folder}/results.json")
    experiments.write_results(folder, vars(args), tables, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))


if __name__ == "__main__":
    main()
