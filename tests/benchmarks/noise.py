"""Noise on the training data: what a step pays for it, and how fast peers are.

Expected: exit 0. A step of the CNN with Mixup, CutMix, Cutout or Blend 0.98 to 1.01 (control 0.98 to 1.01). With a net
          that takes almost no time, a step with soft targets is 0.09 ms longer than with timm's Mixup, and 0.42 ms with
          pairs, whose loss and metrics are computed twice. Augmentation against v2 image by image 15 to 18 at 28 to 32
          px and 1.9 at 224, against v2 on the batch 1.1 to 1.2, against kornia 2.9 to 3.0, PSNR +3.1 and +5.8 dB; mean
          and std 1.08 of a pass, whitening 7.2, ZCA 328 MB. On a busy machine mean and std may miss their goal
Cost:     2 min on 2 CPU cores
Command:  python tests/benchmarks/noise.py

1. `blending`: a training step of a small CNN with Mixup, CutMix and Cutout, against the plain step and timm's Mixup.
2. `augmenting`: a batch with own draws for each image, against torchvision's v2 transforms image by image and on the
   whole batch with one draw, and against kornia; PSNR of one interpolation against a chain of them.
3. `preprocessing`: mean, std and whitening, against one pass of the loader and scikit-learn, in time and memory.

- **Times** are of this process on one thread (`process_time`), since other programs disturb them less. On a GPU they
  are of the clock.
- **Order**: competitors take turns in a random order.
- **Ratio**: the median over turns, with its 95 % bootstrap interval. Above 1 ours is faster, except where the name says
  overhead, share or memory: there it is ours over theirs.
- **Goal**: it is met if the better end of the interval meets it. The middle would miss a tight goal by chance.
- **Control**: the same call against itself.
"""

import random
import sys
import time
from importlib import import_module

import torch
from measuring import DEVICE

from lightning_trainingkit import experiments

PARTS = ("blending", "augmenting", "preprocessing")


def main() -> None:
    parser = experiments.argument_parser("noise", __doc__, trains=False)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone; may be repeated")
    parser.add_argument("--rounds", type=experiments.at_least(2), default=20, help="of each comparison (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the orders and the bootstrap (%(default)s)")
    args = parser.parse_args()
    folder = experiments.open_folder("noise", args.output)
    experiments.quiet()
    torch.set_num_threads(1)
    start = time.perf_counter()
    rows, seconds = [], {}
    for part in args.only or PARTS:
        begun = time.perf_counter()
        torch.manual_seed(args.seed)
        rows += import_module(f"noise_bench.{part}").rows(args, random.Random(args.seed))
        seconds[part] = round(time.perf_counter() - begun, 1)
    experiments.print_table(
        "Noise on the training data",
        rows,
        f"ours, peer: milliseconds of a call, unless the name has another unit. {DEVICE}, one thread.",
        f"Files: {folder}/results.json",
    )
    experiments.write_results(
        folder, vars(args), {"seconds": seconds, "device": DEVICE}, rows, time.perf_counter() - start
    )
    sys.exit(int(not all(row["ok"] for row in rows)))


if __name__ == "__main__":
    main()
