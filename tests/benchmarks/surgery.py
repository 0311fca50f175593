"""Noise in the model and penalties on its weights: what a training step pays for them.

Expected: exit 0. StochasticDepth(0.2) 0.99 to 1.01 with mode="row", 0.91 to 0.92 with mode="batch"; DropConnect on all
          layers 1.4; after remove() 0.99 to 1.01 (control 0.98 to 0.99); WeightPenalty
          1.00 to 1.04, the formula in the loss 1.1
Cost:     4 min on 2 idle CPU cores
Command:  python tests/benchmarks/surgery.py

A training step of torchvision's ResNet-18 at 64 px with the kit's callback, against the plain step. Two parts:

- `noise`: stochastic depth, dropout, DropConnect, fractional max pooling, another activation, and the step after
  `remove()`. Models with the layers written by hand are measured too. Batches have half of `--batch-size` images.
- `penalties`: WeightPenalty, and the formula in the loss. The penalty's value is computed and logged at every step.

How it is measured:

- **Times** are of this process on one thread (`process_time`), since other programs disturb them less. On a GPU they
  are of the clock.
- **Order**: competitors take turns in a random order within one fit. A turn is one step, of `noise` two. What a
  callback does before its first step and after its last one does not count.
- **Ratio**: the median over turns of ours over the plain step, with its 95 % bootstrap interval.
- **Goal**: it is met if the better end of the interval meets it. The middle would miss a tight goal by chance. So the
  goal 1.00 after `remove()` means that the interval allows 1.00.
- **Control**: the same call against itself.
"""

import random
import sys
import time
from importlib import import_module

import torch
from measuring import DEVICE

from lightning_trainingkit import experiments

PARTS = ("noise", "penalties")


def main() -> None:
    parser = experiments.argument_parser("surgery", __doc__, trains=False)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone; may be repeated")
    parser.add_argument("--rounds", type=experiments.at_least(2), default=20, help="of each comparison (%(default)s)")
    parser.add_argument("--batch-size", type=experiments.at_least(2), default=64, help="images of a step (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the orders and the bootstrap (%(default)s)")
    args = parser.parse_args()
    folder = experiments.open_folder("surgery", args.output)
    experiments.quiet()
    torch.set_num_threads(1)
    start = time.perf_counter()
    rows, seconds = [], {}
    for part in args.only or PARTS:
        begun = time.perf_counter()
        torch.manual_seed(args.seed)
        rows += import_module(f"surgery_bench.{part}").rows(args, random.Random(args.seed))
        seconds[part] = round(time.perf_counter() - begun, 1)
    experiments.print_table(
        "Noise in the model and penalties",
        rows,
        f"ours, peer: milliseconds of a step. {DEVICE}, one thread.",
        f"Files: {folder}/results.json",
    )
    experiments.write_results(
        folder, vars(args), {"seconds": seconds, "device": DEVICE}, rows, time.perf_counter() - start
    )
    sys.exit(int(not all(row["ok"] for row in rows)))


if __name__ == "__main__":
    main()
