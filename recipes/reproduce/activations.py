"""Activations: the gradient of a saturated sigmoid, the zig-zag of positive inputs, and how fast each function trains.

- **Saturation**: the derivative of sigmoid at -10, 0 and 10, by autograd.
- **Zig-zag**: a layer of 100 units gets 100 inputs from sigmoid or from tanh. The script measures the share of a
  unit's weight gradients with the more frequent sign, for one image and for batches of 32.
- **Speed**: a perceptron with four hidden layers of 64 learns the digits by SGD with momentum, until 5 % of the
  training images are wrong. Weights are Kaiming's with the gain of the activation. Each activation has the learning
  rate that is fastest for it, of nine. Krizhevsky et al. drew this picture for a convolutional net on CIFAR-10,
  until 25 %.

Expected: sigmoid needs 11.6 +- 2.0 times as many steps as ReLU, tanh 0.6 +- 0.1 times (8 seeds, 95 % intervals).
          Of a unit's gradients for one image, 100 % have one sign after sigmoid, 54 % after tanh
Cost:     30 s on 2 CPU cores, nothing to download
Command:  python recipes/reproduce/activations.py
"""

import math
import time
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, comparison
from lightning_trainingkit.functional import init_, parse_activation, parse_scheme

POINTS = (-10.0, 0.0, 10.0)
ACTIVATIONS = ("relu", "tanh", "sigmoid")
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HIDDEN = (64,) * 4
UNITS = 100


def main() -> None:
    """Measure saturation, signs and speed, judge the lecture's claims, and draw."""
    parser = experiments.argument_parser("activations", __doc__, trains=False)
    parser.add_argument("--seeds", type=at_least(2), default=8, help="of splits, weights and order (%(default)s)")
    parser.add_argument("--error", type=float, default=0.05, help="of the training part, to reach (%(default)s)")
    parser.add_argument("--steps", type=at_least(5), default=2000, help="of a training, at most (%(default)s)")
    parser.add_argument("--batch-size", type=at_least(1), default=64, help="of a training (%(default)s)")
    args = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    try:
        folder = experiments.open_folder("activations", args.output)
    except OSError as error:
        parser.error(str(error))
    torch.set_num_threads(1)  # threads cost more than such small tensors gain
    parts = [training_part(seed) for seed in range(args.seeds)]

    # 1. Saturation.
    points = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    torch.sigmoid(points).sum().backward()
    slopes = points.grad.tolist()  # type: ignore[union-attr]

    # 2. Zig-zag: the share of one sign, by activation before the layer and by number of images.
    signs = {}
    for name in ("sigmoid", "tanh"):
        for count in (1, 32):
            signs[name, count] = fmean(one_sign(name, count, *part, seed) for seed, part in enumerate(parts))

    # 3. Speed: all rates and seeds of an activation train at once.
    steps: dict[str, list[float]] = {}
    curves: dict[str, Tensor] = {}  # training errors (checks, seeds)
    rows: list[dict[str, Any]] = []
    for name in ACTIVATIONS:
        errors, reached = train(name, parts, args)
        best = int(reached.mean(dim=1).argmin())  # infinite where a seed does not arrive
        steps[name] = reached[best].tolist()
        if not all(map(math.isfinite, steps[name])):
            parser.error(f"--error must be reached within --steps {args.steps}, got no rate for {name} that does.")
        middle, half = comparison.interval(steps[name])
        times, wide = comparison.interval([ours / relu for ours, relu in zip(steps[name], steps["relu"], strict=True)])
        row = {"activation": name, "rate": RATES[best], "steps": middle, "steps +-": half}
        rows.append({**row, "times ReLU": times, "times +-": wide})
        curves[name] = errors[:, best]

    # 4. The lecture's claims, and its picture.
    by_name = {row["activation"]: row for row in rows}
    slower = [(by_name[name]["times ReLU"], by_name[name]["times +-"]) for name in ("tanh", "sigmoid")]
    (tanh, tanh_half), (sigmoid, sigmoid_half) = slower
    claims: list[tuple[Any, ...]] = [
        (
            3,
            "Saturated neurons kill the gradients",
            "sigmoid at -10, 0, 10 has gradient " + ", ".join(f"{slope:.2g}" for slope in slopes),
            max(slopes[0], slopes[2]) < 0.01 * slopes[1],
        ),
        (
            3,
            "Positive inputs: a neuron's gradients are all positive or all negative; minibatches help",
            f"of one sign after sigmoid: {signs['sigmoid', 1]:.0%} for an image, {signs['sigmoid', 32]:.0%} for 32; "
            f"after tanh: {signs['tanh', 1]:.0%} and {signs['tanh', 32]:.0%}",
            signs["sigmoid", 1] == 1 > signs["tanh", 1],
            signs["sigmoid", 32] < 1,
        ),
        (
            4,
            "ReLU converges much faster than sigmoid and tanh (e.g. 6x)",
            f"until {args.error:.0%} training error, sigmoid needs {sigmoid:.1f} +- {sigmoid_half:.1f} times as many "
            f"steps as ReLU, tanh {tanh:.1f} +- {tanh_half:.1f} times",
            *(middle - half > 1 for middle, half in slower),
            min(tanh, sigmoid) >= 6,
        ),
    ]
    figures = [experiments.claim(parser, args, *each) for each in claims]
    figure = Figure(figsize=(10, 4), layout="constrained")
    draw(figure, curves, args.error)
    figure.savefig(folder / "activations.png", dpi=90)

    seconds = time.perf_counter() - start
    metrics = {
        **{f"gradient of sigmoid at {point:g}": slope for point, slope in zip(POINTS, slopes, strict=True)},
        **{f"one sign after {name}, {count} images": share for (name, count), share in signs.items()},
    }
    experiments.write_results(folder, vars(args), metrics, rows, seconds, figures)
    experiments.print_table(
        "Saturation and zig-zag", [{"measured": name, "value": value} for name, value in metrics.items()]
    )
    experiments.print_table(
        f"Steps until {args.error:.0%} of the training digits are wrong, {args.seeds} seeds: {seconds:.0f} s",
        [
            {
                "activation": row["activation"],
                "rate": row["rate"],
                "steps": f"{row['steps']:.0f} +- {row['steps +-']:.0f}",
                "times ReLU": f"{row['times ReLU']:.2f} +- {row['times +-']:.2f}",
            }
            for row in rows
        ],
        f"+-: 95 % interval by Student's t over {args.seeds} seeds; times: paired by seed",
        "rate: the fastest on the same seeds, for each activation",
        *(f"{each['claim']}: {each['verdict']}. {each['measured']}." for each in figures),
        f"Files: {folder}/activations.png, {folder}/results.json",
    )


def training_part(seed: int) -> tuple[Tensor, Tensor]:
    """Normalized images ``(N, 64)`` and targets ``(N,)`` of the training part."""
    data = kit.DigitsDataModule(seed=seed)
    data.setup()
    images, targets = next(iter(torch.utils.data.DataLoader(data.train_set, batch_size=len(data.train_set))))
    return images.flatten(1), targets


def one_sign(name: str, count: int, images: Tensor, targets: Tensor, seed: int) -> float:
    """The mean share of the weight gradients of a unit that have the more frequent sign, over 50 batches."""
    torch.manual_seed(seed)
    activation, scheme = parse_activation(name), parse_scheme("xavier_normal")
    shapes = ((UNITS, images.shape[1]), (UNITS, UNITS), (10, UNITS))
    first, middle, last = (init_(torch.empty(shape), scheme) for shape in shapes)
    middle.requires_grad_()
    shares = []
    for chosen in torch.randint(len(images), (50, count)):
        inputs = activation.fn(images[chosen] @ first.T)
        logits = torch.sigmoid(inputs @ middle.T) @ last.T
        (gradient,) = torch.autograd.grad(cross_entropy(logits, targets[chosen]), middle)
        positive = (gradient > 0).double().mean(dim=1)
        shares.append(torch.maximum(positive, 1 - positive).mean().item())
    return fmean(shares)


def train(name: str, parts: list[tuple[Tensor, Tensor]], args: Any) -> tuple[Tensor, Tensor]:
    """Train a net for each rate and seed, side by side, until no rate can become the fastest any more.

    Returns:
        Training errors every 5 steps ``(checks, rates, seeds)``, and the steps until the error that is asked for
        ``(rates, seeds)``, infinite where a net has not arrived. A net that diverges has an error of 1.
    """
    activation, scheme = parse_activation(name), parse_scheme("kaiming_normal")
    sizes = (parts[0][0].shape[1], *HIDDEN, 10)
    weights, biases = [], []
    for fan_in, fan_out in pairwise(sizes):
        gain = activation.gain if fan_out != 10 else 1.0
        drawn = []
        for seed in range(len(parts)):
            torch.manual_seed(seed * 100 + len(weights))
            drawn.append(init_(torch.empty(fan_out, fan_in), scheme, gain=gain).T)
        weights.append(torch.stack(drawn).repeat(len(RATES), 1, 1, 1).requires_grad_())
        biases.append(torch.zeros(len(RATES), len(parts), 1, fan_out, requires_grad=True))
    images, targets = (torch.stack(each) for each in zip(*parts, strict=True))  # a row for each seed
    rates = torch.tensor(RATES).repeat_interleave(len(parts)).reshape(-1, len(parts), 1, 1)
    parameters = [*weights, *biases]
    momenta = [torch.zeros_like(each) for each in parameters]

    def logits(x: Tensor) -> Tensor:
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = activation.fn(x @ weight + bias)
        return x @ weights[-1] + biases[-1]

    errors, reached = [], torch.full((len(RATES), len(parts)), torch.inf)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(parts))]
    seeds = torch.arange(len(parts))[:, None]
    for step in range(args.steps):
        chosen = torch.stack([torch.randint(images.shape[1], (args.batch_size,), generator=g) for g in generators])
        said = logits(images[seeds, chosen])
        wanted = targets[seeds, chosen].expand(said.shape[:-1])
        loss = cross_entropy(said.flatten(0, 2), wanted.flatten(), reduction="sum") / args.batch_size
        with torch.no_grad():
            for parameter, momentum, gradient in zip(
                parameters, momenta, torch.autograd.grad(loss, parameters), strict=True
            ):
                momentum.mul_(0.9).add_(gradient)
                parameter.sub_(rates * momentum)
            if step % 5 == 4:
                said = logits(images)
                wrong = (said.argmax(dim=-1) != targets).double().mean(dim=-1)
                errors.append(torch.where(said.isfinite().all(dim=-1).all(dim=-1), wrong, 1.0))
                arrived = (errors[-1] <= args.error) & reached.isinf()
                reached = torch.where(arrived, float(step + 1), reached)
                soonest = reached.clamp(max=step + 6.0).mean(dim=1)  # the least mean that each rate can still have
                if reached.mean(dim=1).min() <= soonest.min():
                    break
    return torch.stack(errors), reached


def draw(figure: Any, curves: dict[str, Tensor], wanted: float) -> None:
    """Draw sigmoid with its derivative (left), and the training error over steps (right)."""
    left, right = figure.subplots(1, 2)
    x = torch.linspace(-10, 10, 201)
    left.plot(x, x.sigmoid(), color="C2", label="sigmoid")
    left.plot(x, x.sigmoid() * (1 - x.sigmoid()), color="C3", label="gradient of sigmoid")
    left.legend(frameon=False)
    for number, (name, errors) in enumerate(curves.items()):
        steps = 5 * torch.arange(1, 1 + len(errors))
        right.plot(steps, 100 * errors, color=f"C{number}", linewidth=0.6, alpha=0.4)
        right.plot(steps, 100 * errors.mean(dim=1), color=f"C{number}", linewidth=2.2, label=name)
    right.axhline(100 * wanted, color="black", linewidth=0.8, linestyle="--")
    right.set(xscale="log", xlabel="steps", ylabel="training error, %")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
