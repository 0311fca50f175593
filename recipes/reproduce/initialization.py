"""Initialization: the lecture's six layers of 4096, and what each scheme does to activations and gradients.

A batch of 16 random inputs goes through six layers without bias. The kit's own ``init_`` draws the weights.

Expected: std of the activations in layers 1 and 6: tanh 0.49 and 0.05 (std 0.01), 0.87 and 0.85 (0.05), 0.63 and 0.29
          (Xavier); ReLU 0.58 and 0.10 (Xavier), 0.83 and 0.83 (Kaiming)
Cost:     30 s on 2 CPU cores, nothing to download
Command:  python recipes/reproduce/initialization.py
"""

import time
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least
from lightning_trainingkit.functional import init_, parse_activation, parse_scheme

LAYERS = 6
NETS = (
    ("tanh", "normal(0.01)"),
    ("tanh", "normal(0.05)"),
    ("tanh", "xavier_normal"),
    ("relu", "xavier_normal"),
    ("relu", "kaiming_normal"),
)
SATURATED = 0.99  # absolute output of tanh


def main() -> None:
    """Measure each net over the seeds, judge the lecture's claims, and draw the histograms."""
    parser = experiments.argument_parser("initialization", __doc__, trains=False)
    parser.add_argument("--width", type=at_least(2), default=4096, help="units of a layer (%(default)s)")
    parser.add_argument("--batch-size", type=at_least(2), default=16, help="random inputs (%(default)s)")
    parser.add_argument("--seeds", type=at_least(1), default=2, help="0, 1, ... (%(default)s)")
    args = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    try:
        folder = experiments.open_folder("initialization", args.output)
    except OSError as error:
        parser.error(str(error))

    # 1. Each net from each seed: statistics of every layer, and the activations of the first seed for the picture.
    rows, pictures = [], {}
    for activation, scheme in NETS:
        found = []
        for seed in range(args.seeds):
            torch.manual_seed(seed)
            layers = pass_through(activation, scheme, args.width, args.batch_size)
            found.append([statistics(activation, *layer) for layer in layers])
            if seed == 0:
                pictures[activation, scheme] = [activations for _, activations, _ in layers]
        for number, each in enumerate(zip(*found, strict=True)):
            means = {name: fmean(layer[name] for layer in each) for name in each[0]}
            rows.append({"activation": activation, "scheme": scheme, "layer": number + 1, **means})

    # 2. The lecture's claims.
    figures = [experiments.claim(parser, args, 1, *judged) for judged in judge(rows)]

    # 3. The lecture's picture.
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    draw(figure, pictures)
    figure.savefig(folder / "initialization.png", dpi=80)

    seconds = time.perf_counter() - start
    metrics = {f"{row['activation']}, {row['scheme']}": row["std"] for row in rows if row["layer"] == LAYERS}
    experiments.write_results(folder, vars(args), metrics, rows, seconds, figures)
    experiments.print_table(
        f"{LAYERS} layers of {args.width}, batch of {args.batch_size}, means over {args.seeds} seeds: {seconds:.0f} s",
        rows,
        f"saturated: share of tanh outputs beyond +-{SATURATED}; of ReLU outputs, the share of zeros",
        "slope: mean derivative of the activation. gradient: rms of dL/dW for an upstream gradient of std 1",
        *(f"{each['claim']}: {each['verdict']}. {each['measured']}." for each in figures),
        f"Files: {folder}/initialization.png, {folder}/results.json",
    )


def pass_through(activation: str, scheme: str, width: int, batch_size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Pre-activations, activations and gradient of the weight for each layer.

    The gradient comes from a random linear loss: the derivative of the loss by each output is drawn from N(0, 1).
    """
    chosen, parsed = parse_activation(activation), parse_scheme(scheme)
    x = torch.randn(batch_size, width)
    weights, steps = [], []
    for _ in range(LAYERS):
        weights.append(init_(torch.empty(width, width), parsed, gain=chosen.gain).requires_grad_())
        z = x @ weights[-1].T
        x = chosen.fn(z)
        steps.append((z.detach(), x.detach()))
    gradients = torch.autograd.grad((x * torch.randn_like(x)).sum(), weights)
    return [(z, h, gradient) for (z, h), gradient in zip(steps, gradients, strict=True)]


def statistics(activation: str, z: Tensor, h: Tensor, gradient: Tensor) -> dict[str, float]:
    """Mean, std, share saturated, mean slope of the activation, and rms of the weight's gradient."""
    z = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(parse_activation(activation).fn(z).sum(), z)
    saturated = h.abs() > SATURATED if activation == "tanh" else h == 0
    return {
        "mean": h.mean().item(),
        "std": h.std().item(),
        "saturated": saturated.double().mean().item(),
        "slope": slope.mean().item(),
        "gradient": gradient.square().mean().sqrt().item(),
    }


def judge(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The claim, the measurement and the checks for each net.

    - **Collapse**: the std falls in every layer, and in all by more than a factor of 3.
    - **Steady**: layer 6 has the std of layer 1 within 20 %; in part, within a factor of 3.
    - **All saturated**: more than 90 % of the outputs are beyond +-0.99; in part, more than 10 %.
    - **Slopes of zero**: the mean slope is below 0.05.
    - **Gradients of zero**: below 5 % of the gradients with Xavier; in part, below a third.
    """
    stds: dict[tuple[str, str], list[float]] = {}
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        net = row["activation"], row["scheme"]
        stds.setdefault(net, []).append(row["std"])
        last[net] = row
    small, large, xavier, relu_xavier, kaiming = NETS

    def change(net: tuple[str, str]) -> str:
        return f"std {stds[net][0]:.2f} in layer 1, {stds[net][-1]:.2f} in layer {LAYERS}"

    def collapses(net: tuple[str, str]) -> list[bool]:
        falls = all(after < before for before, after in pairwise(stds[net]))
        return [falls and stds[net][-1] < stds[net][0] / 3]

    def steady(net: tuple[str, str]) -> list[bool]:
        ratio = stds[net][-1] / stds[net][0]
        return [1 / 3 < ratio < 3, 0.8 < ratio < 1.25]

    share, slope = last[large]["saturated"], last[large]["slope"]
    gradients = last[small]["gradient"] / last[xavier]["gradient"]
    saturation = f"layer {LAYERS}: {share:.0%} of the outputs beyond +-{SATURATED}, mean slope {slope:.2f}"
    zero = f"layer {LAYERS}: {gradients:.0%} of the gradient with Xavier"
    nice = "activations are nicely scaled for all layers"
    return [
        ("tanh, std 0.01: all activations tend to zero", change(small), *collapses(small)),
        ("tanh, std 0.01: gradients are all zero, no learning", zero, gradients < 1 / 3, gradients < 0.05),
        ("tanh, std 0.05: all activations saturate", saturation, share > 0.1, share > 0.9),
        ("tanh, std 0.05: local gradients are all zero, no learning", saturation, slope < 0.05),
        (f"tanh, Xavier: {nice}", change(xavier), *steady(xavier)),
        ("ReLU, Xavier: activations collapse to zero", change(relu_xavier), *collapses(relu_xavier)),
        (f"ReLU, Kaiming: {nice}", change(kaiming), *steady(kaiming)),
    ]


def draw(figure: Any, pictures: dict[tuple[str, str], list[Tensor]]) -> None:
    """Draw a histogram of the activations for each net (rows) and layer (columns), without the zeros of ReLU."""
    panels = figure.subplots(len(pictures), LAYERS, sharex="row")
    for (net, layers), row in zip(pictures.items(), panels, strict=True):
        for number, (axes, h) in enumerate(zip(row, layers, strict=True)):
            values = h.flatten() if net[0] == "tanh" else h[h > 0]
            axes.hist(values.numpy(), bins=41, range=(-1, 1) if net[0] == "tanh" else (0, 3), color="C0")
            axes.set(yticks=[], title=f"layer {number + 1}: std {h.std():.2g}")
            axes.title.set_fontsize(9)
            axes.spines[["top", "right", "left"]].set_visible(False)
        row[0].set_ylabel(f"{net[0]}\n{net[1]}")


if __name__ == "__main__":
    main()
