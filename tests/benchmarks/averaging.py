"""Averaging at test time: against ttach, torchensemble and a loop written out, in time, argmax and memory.

Expected: exit 0. In one run, with a net of 90.6 %: full 0.99 and 1.00, early exit 1.43 (batches of 32) and 1.55 (250),
          no argmax changed; ensembles of SmallResNets 0.97 to 1.00, of perceptrons 0.92 (5 of them, 32 images) to 1.02;
          `vectorize=True`, which is for GPUs, 0.19 to 1.02; memory 1.02; controls 0.99 to 1.01.
          On an H200 (2026-11, digits): exit 1, since launches take the time there: full 0.89 and 0.91, early exit 0.75
          and 1.01; 5 SmallResNets 0.86 to 0.88, 20 0.96; `vectorize=True` 3.2 with 20 SmallResNets and 32 images, 0.94
          with 250, 2.8 to 3.0 with 20 perceptrons, 0.69 to 1.00 with 5 of either
Cost:     11 min on 2 CPU cores, 1 min on an H200
Command:  python tests/benchmarks/averaging.py

1. A plain net of four convolutions is trained on Fashion-MNIST to about 90 % (on digits, unless Debian's package
   dataset-fashion-mnist is installed). Ten crops of 24 x 24 pixels of each test image are averaged by ttach and ours,
   in full and with an early exit, both as probabilities. In small calls the fixed cost counts more, and an early exit
   saves less. With a SmallResNet this script printed 1.41 and 1.39 at 32 images (commits 4a10383, 7a75681).
2. Ensembles of untrained SmallResNets and perceptrons: torchensemble, a loop written out, and ours, as a loop and with
   `vectorize=True`. The fixed cost of ours shows where a member takes less than 1 ms, such as a perceptron on a CPU:
   such loops have no goal. `vectorize=True` has a goal only on a GPU, with 20 members and batches of 32.
3. Memory: the peak of what torch holds while 50 passes are averaged, with batches cut to `max_batch`, against one pass
   of `max_batch` images.

- **Times** are of this process on one thread (`process_time`), since other programs disturb them less. On a GPU they
  are of the clock.
- **Warm-up**: 20 batches. Libraries prepare once for each size of batch, and an early exit makes many sizes.
- **Order**: competitors take each batch in a random order, ensembles several times in a row, as a test does.
- **Ratio**: the median over batches, with its 95 % bootstrap interval. The time of an early exit depends on how hard
  the images are: its ratio is the sum of times over the sum of times.
- **Control**: the peer against itself.
"""

import copy
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchensemble
import ttach
from measuring import DEVICE, now, peak, row
from torch import Tensor, nn

import lightning_trainingkit as kit
from lightning_trainingkit import experiments

LONG = 1e-3  # seconds of a member on a CPU, from where on ours must not be slower
MANY, FEW_IMAGES = 20, 32  # members and images of a batch, where one forward for all members must be faster on a GPU
Times = dict[str, list[float]]  # seconds of each batch by competitor


def main() -> None:
    parser = experiments.argument_parser("averaging", __doc__, trains=False)
    parser.add_argument("--steps", type=int, default=2000, help="of training (%(default)s)")
    parser.add_argument("--images", type=int, default=2500, help="to test, at most (%(default)s)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 250], help="images each (%(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="of each comparison of ensembles (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the training and the orders (%(default)s)")
    args = parser.parse_args()
    folder = experiments.open_folder("averaging", args.output)
    experiments.quiet()
    torch.manual_seed(args.seed)
    start = time.perf_counter()
    draw = random.Random(args.seed)

    net, x, y, crop, source = trained(args)
    torch.set_num_threads(1)
    sizes = args.batch_sizes
    rows = [row for size in sizes for row in against_ttach(net, x, crop, size, draw)]
    changed, seen = changed_in_bf16(net, x[:500], crop)
    rows += [row for members in (5, 20) for size in sizes for row in ensembles(members, size, args.rounds, draw)]
    rows.append(memory(net, crop, min(64, -(-args.images // 4))))
    accuracy = rightly(net, x, y, crop)
    notes = [
        f"{source}: {len(x)} test images, {accuracy:.1%} right from one crop. {DEVICE}.",
        "ours, peer: milliseconds for a batch (memory: MiB; argmax: images). Ratio above 1: ours is faster.",
        f"In bfloat16 the early exit changes the argmax of {changed} of {seen} images: passes are rounded otherwise in "
        "smaller batches.",
    ]
    if DEVICE == "cpu":
        notes.append("No GPU: `vectorize=True` has no goal, which is 2.0 on a GPU.")
    experiments.print_table("Averaging", rows, *notes)
    metrics = {"accuracy": accuracy, "bf16 changed": changed, "bf16 images": seen, "source": source}
    experiments.write_results(folder, vars(args), metrics, rows, time.perf_counter() - start)
    sys.exit(int(not all(row["ok"] for row in rows)))


def trained(args: Any) -> tuple[nn.Module, Tensor, Tensor, int, str]:
    """Train a net; return it with test images, targets, the size of a crop, and the name of the data set."""
    try:
        data: Any = kit.FashionMNISTDataModule()
        data.setup()
        crop, source = 24, "Fashion-MNIST"
    except FileNotFoundError:
        data = kit.DigitsDataModule()
        data.setup()
        crop = 6  # torchvision and ttach cut the same centre
        source = "digits (for Fashion-MNIST install Debian's package dataset-fashion-mnist)"
    x, y = together(data.train_set)
    net = plain().to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=args.steps, pct_start=0.2)
    room = x.shape[-1] - crop + 1
    for _ in range(args.steps):
        chosen = torch.randint(len(x), (128,))
        top, left = torch.randint(room, (2,)).tolist()
        batch = x[chosen, :, top : top + crop, left : left + crop].to(DEVICE)
        batch = batch.flip(3) if torch.rand(()) < 0.5 else batch
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(batch), y[chosen].to(DEVICE)).backward()
        optimizer.step()
        schedule.step()
    x, y = together(data.test_set)
    return net.eval(), x[: args.images].to(DEVICE), y[: args.images].to(DEVICE), crop, source


def plain() -> nn.Module:
    """A plain net of four convolutions."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    front = [*block(1, 48), *block(48, 48), nn.MaxPool2d(2), *block(48, 96), nn.MaxPool2d(2), *block(96, 192)]
    return nn.Sequential(*front, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, 10))


def together(part: Any) -> tuple[Tensor, Tensor]:
    """All images and targets of a part."""
    images, targets = zip(*part.dataset.__getitems__(part.indices), strict=True)
    return torch.stack(images), torch.stack(targets)


@torch.inference_mode()
def rightly(net: nn.Module, x: Tensor, y: Tensor, crop: int) -> float:
    """Accuracy from the crop in the centre."""
    margin = (x.shape[-1] - crop) // 2
    centre = x[..., margin : margin + crop, margin : margin + crop]
    return torch.cat([net(part) for part in centre.split(250)]).argmax(1).eq(y).double().mean().item()


def against_ttach(net: nn.Module, x: Tensor, crop: int, size: int, draw: random.Random) -> list[dict]:
    views = kit.Views(f"ten_crop({crop})")
    full, early = kit.Averaged(net, views), kit.Averaged(net, views, early_exit=True)
    crops = ttach.aliases.ten_crop_transform(crop, crop)
    peer = ttach.ClassificationTTAWrapper(nn.Sequential(net, nn.Softmax(dim=1)), crops, merge_mode="mean")
    batches = x.split(size)
    competitors = {"peer": peer, "full": full, "early": early, "control": peer}
    times, outputs = race(competitors, batches, 1, draw)
    apart = max((a.exp() - b).abs().max().item() for a, b in zip(outputs["full"], outputs["peer"], strict=True))
    if apart > 1e-5:
        raise RuntimeError(f"ttach and ours must average the same views, got probabilities that differ by {apart}.")
    differ = sum(
        (a.argmax(1) != b.argmax(1)).sum().item() for a, b in zip(outputs["early"], outputs["full"], strict=True)
    )
    name = f"ttach, batches of {size}"
    return [
        compare(f"{name}: full", times, "full", median_ratio, draw, 0.98),
        compare(
            f"{name}: early exit, {early.passes_per_sample:.1f} of 10 passes", times, "early", sum_ratio, draw, 1.4
        ),
        compare(f"{name}: control", times, "control", median_ratio, draw),
        row(f"{name}: argmax share that the early exit changes", differ, sum(map(len, batches)), differ, 0.0),
    ]


def ensembles(count: int, size: int, rounds: int, draw: random.Random) -> list[dict]:
    rows = []
    for kind, make, calls in (("SmallResNet", small_resnet, 1), ("perceptron", perceptron, 20)):
        members = [make().to(DEVICE).eval() for _ in range(count)]
        voting = torchensemble.VotingClassifier(estimator=members[0], n_estimators=count, cuda=DEVICE == "cuda")
        # Each has weights of its own, or some would find theirs in the caches: ours copies what it is given.
        voting.estimators_.extend(copy.deepcopy(members))
        weights = [dict(member.state_dict()) for member in members]
        ours, vectorized = (
            kit.Averaged(make().to(DEVICE).eval(), kit.Members(weights, vectorize=vectorize))
            for vectorize in (False, True)
        )
        x = torch.randn(size, 1, 28, 28, device=DEVICE)

        competitors = {
            "torchensemble": voting.eval(),
            "loop": loop(copy.deepcopy(members)),
            "ours": ours,
            "vectorized": vectorized,
            "control": loop(copy.deepcopy(members)),
        }
        times, outputs = race(competitors, [x], rounds * (1 if size > 100 else 3), draw, calls)
        apart = max(
            (outputs[name][0].exp() - outputs[peer][0]).abs().max().item()
            for name in ("ours", "vectorized")
            for peer in ("torchensemble", "loop")
        )
        if apart > 1e-5:
            raise RuntimeError(f"All must average the same members, got probabilities that differ by {apart}.")
        long_enough = statistics.median(times["loop"]) / count >= LONG
        goal = 0.98 if long_enough else None
        vectorized_goal = 2.0 if DEVICE == "cuda" and count >= MANY and size <= FEW_IMAGES else None
        name = f"{count} x {kind}, batches of {size}"
        rows += [
            compare(f"{name}: torchensemble", times, "ours", median_ratio, draw, goal, "torchensemble"),
            compare(f"{name}: loop", times, "ours", median_ratio, draw, goal, "loop"),
            *(
                compare(f"{name}: vectorize, {peer}", times, "vectorized", median_ratio, draw, vectorized_goal, peer)
                for peer in ("torchensemble", "loop")
            ),
            compare(f"{name}: control", times, "control", median_ratio, draw, None, "loop"),
        ]
    return rows


def loop(members: list[nn.Module]) -> Callable[[Tensor], Tensor]:
    def averaged(x: Tensor) -> Tensor:
        return sum(member(x).softmax(dim=1) for member in members) / len(members)

    return averaged


def small_resnet() -> nn.Module:
    return kit.SmallResNet(10)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


@torch.inference_mode()
def changed_in_bf16(net: nn.Module, x: Tensor, crop: int) -> tuple[int, int]:
    """Count images whose argmax an early exit changes under autocast to bfloat16, and all images."""
    views = kit.Views(f"ten_crop({crop})")
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        full, early = (
            torch.cat([kit.Averaged(net, views, early_exit=exits)(part) for part in x.split(250)]).argmax(1)
            for exits in (False, True)
        )
    return int((full != early).sum()), len(x)


def memory(net: nn.Module, crop: int, limit: int) -> dict:
    """Compare the peak of 50 passes of 4 x `limit` images with the peak of one pass of `limit`, without inputs."""
    views = [[f"shift({dx}, {dy})" for dx in range(-2, 3) for dy in range(-2, 3)], "flip"]
    large, small = (torch.randn(size, 1, crop, crop, device=DEVICE) for size in (4 * limit, limit))
    averaged = kit.Averaged(net, kit.Views(views), max_batch=limit)
    if len(averaged.names) != 50:
        raise RuntimeError(f"There must be 50 passes, got {len(averaged.names)}.")
    with torch.inference_mode():
        averaged(large)
        net(small)
        ours, peer = peak(lambda: averaged(large)), peak(lambda: net(small))
    return row(f"memory of 50 passes, max_batch={limit}", ours / 2**20, peer / 2**20, ours / peer, 1.1)


@torch.inference_mode()
def race(
    competitors: dict[str, Callable], batches: Sequence[Tensor], rounds: int, draw: random.Random, calls: int = 1
) -> tuple[Times, dict[str, list[Tensor]]]:
    """Time all competitors on each batch; return the seconds of a call, and the outputs of the first round."""
    warm_up = [*batches[:20], *[batches[0]] * (2 - len(batches))]  # the first batch of members is compared
    for competitor in competitors.values():
        for batch in warm_up:
            competitor(batch)
    times: Times = {name: [] for name in competitors}
    outputs: dict[str, list[Tensor]] = {name: [] for name in competitors}
    for number in range(rounds):
        for batch in batches:
            for name in draw.sample(list(competitors), len(competitors)):
                start = now()
                for _ in range(calls):
                    said = competitors[name](batch)
                times[name].append((now() - start) / calls)
                if number == 0:
                    outputs[name].append(said)
    return times, outputs


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(peer / ours for ours, peer in pairs)


def sum_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(peer for _, peer in pairs) / sum(ours for ours, _ in pairs)


def compare(
    name: str,
    times: Times,
    ours: str,
    ratio: Callable[[Sequence[tuple[float, float]]], float],
    draw: random.Random,
    goal: float | None = None,
    peer: str = "peer",
) -> dict:
    pairs = list(zip(times[ours], times[peer], strict=True))
    found = sorted(ratio(draw.choices(pairs, k=len(pairs))) for _ in range(1000))
    milliseconds = (1e3 * statistics.fmean(times[each]) for each in (ours, peer))
    return row(name, *milliseconds, ratio(pairs), goal, found[25], found[-26])


if __name__ == "__main__":
    main()
