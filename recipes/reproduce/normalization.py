"""Normalization: how sensitive the loss is to a small change of the weights, before and after normalizing the inputs.

A linear classifier learns the digits from the same images in four scales. Pixels are from 0 to 1 as they are, or
centred by the mean image, and then divided by one std for all, or by the std of each pixel.

Gradient descent on all images stops at the same training loss for each scale. Then all weights change a little, in
random directions, and the loss rises.

Expected: before against after, 5 seeds, 95 % intervals. A change of the weights by 10 % raises the loss 3.3 +- 0.8
          times as much. Gradient descent needs 8.0 +- 1.1 times as many steps
Cost:     10 s on 2 CPU cores, nothing to download
Command:  python recipes/reproduce/normalization.py
"""

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, comparison

RATES = tuple(2.0**power for power in range(-6, 8))
SIZES = (0.03, 0.1, 0.3)  # of a change, relative to the norm of all weights
JUDGED = 0.1
DIRECTIONS = 50  # each forwards and backwards
BEFORE, AFTER = "as they are", "centred, per pixel"


def main() -> None:
    """Train on each scale and seed, change the weights, judge the lecture's claims, and draw."""
    parser = experiments.argument_parser("normalization", __doc__, trains=False)
    parser.add_argument("--seeds", type=at_least(2), default=5, help="of splits and directions (%(default)s)")
    parser.add_argument("--loss", type=float, default=0.1, help="of the training, where it stops (%(default)s)")
    parser.add_argument("--steps", type=at_least(1), default=2000, help="of gradient descent, at most (%(default)s)")
    args = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    try:
        folder = experiments.open_folder("normalization", args.output)
    except OSError as error:
        parser.error(str(error))
    torch.set_num_threads(1)  # threads cost more than such small tensors gain

    # 1. For each seed and scale: steps until the loss, and the loss after changes of the weights.
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        images, targets = training_part(seed)
        for name, x in scales(images).items():
            try:
                weights, steps, rate = descend(x, targets, args.loss, args.steps)
            except ValueError as error:
                parser.error(f"{name}: {error}")
            rises = sensitivity(x, targets, weights, torch.Generator().manual_seed(seed))
            found.setdefault(name, []).append({"steps": steps, "rate": rate, **rises})

    # 2. Means over seeds with intervals, and the lecture's claims.
    rows = []
    for name, each in found.items():
        row: dict[str, Any] = {"inputs": name}
        for key in each[0]:
            row[key], row[f"{key} +-"] = comparison.interval([one[key] for one in each])
        rows.append(row)
    before, after = found[BEFORE], found[AFTER]
    key = rise_of(JUDGED)
    rises_ratio = ratio([one[key] for one in before], [one[key] for one in after])
    steps_ratio = ratio([one["steps"] for one in before], [one["steps"] for one in after])
    measured = (
        f"a change by {JUDGED:.0%} raises the loss {times(rises_ratio)} as much before as after",
        f"gradient descent needs {times(steps_ratio)} as many steps before as after",
    )
    figures = [
        experiments.claim(parser, args, 2, text, said, middle - half > 1)
        for text, said, (middle, half) in zip(
            (
                "After normalization the loss is less sensitive to small changes in weights",
                "After normalization the loss is easier to optimize",
            ),
            measured,
            (rises_ratio, steps_ratio),
            strict=True,
        )
    ]

    # 3. The loss over the size of the change.
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    draw(figure, rows)
    figure.savefig(folder / "normalization.png", dpi=100)

    seconds = time.perf_counter() - start
    experiments.write_results(folder, vars(args), {"sensitivity ratio": rises_ratio[0]}, rows, seconds, figures)
    experiments.print_table(
        f"Linear classifier of {len(images)} digits, {args.seeds} seeds: {seconds:.0f} s",
        [{key: shown(row, key) for key in row if not key.endswith("+-")} for row in rows],
        f"steps: gradient descent on all images until the loss is {args.loss:g}, at the rate that needs fewest",
        f"rise: of the loss, when all weights change by this share of their norm; mean of {2 * DIRECTIONS} directions",
        f"+-: 95 % interval by Student's t over {args.seeds} seeds",
        *(f"{each['claim']}: {each['verdict']}. {each['measured']}." for each in figures),
        f"Files: {folder}/normalization.png, {folder}/results.json",
    )


def training_part(seed: int) -> tuple[Tensor, Tensor]:
    """Pixels from 0 to 1 ``(N, 64)`` and targets ``(N,)`` of the training part, before any normalization."""
    data = kit.DigitsDataModule(seed=seed)
    data.setup()
    images, targets = next(iter(torch.utils.data.DataLoader(data.train_set, batch_size=len(data.train_set))))
    return (images * data.std[0] + data.mean[0]).flatten(1), targets


def scales(images: Tensor) -> dict[str, Tensor]:
    """The same images in four scales. A pixel that never changes has std 1."""
    centred = images - images.mean(dim=0)
    stds = images.std(dim=0)
    return {
        BEFORE: images,
        "centred": centred,
        "centred, per channel": centred / images.std(),
        AFTER: centred / torch.where(stds > 1e-6, stds, 1.0),
    }


def descend(x: Tensor, targets: Tensor, loss: float, steps: int) -> tuple[Tensor, int, float]:
    """Train at all rates at once; return weights ``(C, D + 1)``, steps and rate where the loss is reached first.

    Raises:
        ValueError: If no rate reaches the loss.
    """
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)  # the last weight of a class is its bias
    wanted = one_hot(targets).to(x.dtype)
    rates = torch.tensor(RATES)
    weights = torch.zeros(len(RATES), wanted.shape[1], x.shape[1])
    for step in range(1, steps + 1):
        probabilities = (x @ weights.mT).softmax(dim=-1)
        before, weights = weights, weights - rates[:, None, None] * (probabilities - wanted).mT @ x / len(x)
        losses = mean_losses(x, weights, targets)
        if losses.min() <= loss:
            best = int(losses.argmin())
            return cut_step(x, targets, before[best], weights[best], loss), step, RATES[best]
    raise ValueError(f"--loss must be reached within --steps {steps}, got {losses.min():.3f}. Raise one of them.")


def cut_step(x: Tensor, targets: Tensor, before: Tensor, after: Tensor, loss: float) -> Tensor:
    """Cut the last step by bisection, so that the classifiers of all scales have one loss."""
    for _ in range(30):
        middle = (before + after) / 2
        before, after = (before, middle) if mean_losses(x, middle, targets) <= loss else (middle, after)
    return after


def sensitivity(x: Tensor, targets: Tensor, weights: Tensor, generator: torch.Generator) -> dict[str, float]:
    """The mean rise of the loss over random directions, by the relative size of the change."""
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    directions = torch.randn(DIRECTIONS, *weights.shape, generator=generator)
    directions *= weights.norm() / directions.flatten(1).norm(dim=1)[:, None, None]
    rises = {}
    for size in SIZES:
        moved = weights + size * torch.cat([directions, -directions])
        rises[rise_of(size)] = (mean_losses(x, moved, targets).mean() - mean_losses(x, weights, targets)).item()
    return rises


def mean_losses(x: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of each classifier, ``(..., C, D + 1)`` to ``(...)``."""
    log_probabilities = (x @ weights.mT).log_softmax(dim=-1)
    return -log_probabilities.gather(-1, targets.expand(log_probabilities.shape[:-1])[..., None]).mean(dim=(-2, -1))


def rise_of(size: float) -> str:
    """Name of the column of this change."""
    return f"rise at {size:.0%}"


def ratio(before: list[float], after: list[float]) -> tuple[float, float]:
    """Mean ratio over seeds, and the half width of its 95 % interval."""
    return comparison.interval([one / other for one, other in zip(before, after, strict=True)])


def times(found: tuple[float, float]) -> str:
    """A ratio with its interval in words."""
    return f"{found[0]:.1f} +- {found[1]:.1f} times"


def shown(row: dict[str, Any], key: str) -> Any:
    """A cell: mean and interval."""
    return row[key] if key == "inputs" else f"{row[key]:.3g} +- {row[f'{key} +-']:.2g}"


def draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    """Draw the rise of the loss over the size of the change, a line with intervals for each scale."""
    axes = figure.subplots()
    for number, row in enumerate(rows):
        middle, half = ([row[f"{rise_of(size)}{end}"] for size in SIZES] for end in ("", " +-"))
        axes.errorbar(
            [100 * size for size in SIZES], middle, half, marker="o", capsize=3, color=f"C{number}", label=row["inputs"]
        )
    axes.set(xscale="log", yscale="log", xlabel="change of the weights, % of their norm", ylabel="rise of the loss")
    axes.set_xticks([100 * size for size in SIZES], [f"{size:.0%}" for size in SIZES])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="inputs (95 % interval over seeds)")


if __name__ == "__main__":
    main()
