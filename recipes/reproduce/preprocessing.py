"""Preprocessing: the lecture's picture of centred, normalised, decorrelated and whitened data, and what each is worth.

- **Picture**: two correlated pixels of 1,000 training images, as they are and after each preprocessing.
- **Accuracy**: a perceptron with two hidden layers of 64 trains by SGD with momentum for the same number of steps on
  images after each preprocessing, with and without BatchNorm. Each has the learning rate, of five, with the best
  validation accuracy over all seeds. Weights, batches and splits are the same for all, by seed.

Expected: digits, 20 seeds, 95 % intervals, in points of test accuracy over images as they are. Without BatchNorm:
          mean image +1.6 +- 0.6, PCA +1.5 +- 0.6, ZCA -0.9 +- 0.6, at a training loss of a fifth. With BatchNorm:
          centring changes nothing, PCA whitening loses 2.0 +- 0.4, ZCA 2.1 +- 0.5
Cost:     90 s on 2 CPU cores that other programs share, nothing to download
Command:  python recipes/reproduce/preprocessing.py
          python recipes/reproduce/preprocessing.py --data fashion-mnist
"""

import time
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.data import fit_preprocessing
from lightning_trainingkit.experiments import at_least, comparison
from lightning_trainingkit.functional import PREPROCESSINGS, Moments
from lightning_trainingkit.nn import Standardize

RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
HIDDEN = (64, 64)
POINTS = 1000  # in a panel of the picture, at most
WITHOUT, WITH = "without BatchNorm", "with BatchNorm"


def main() -> None:
    """Draw the lecture's picture, train after each preprocessing, and compare with images as they are."""
    parser = experiments.argument_parser("preprocessing", __doc__, trains=False)
    parser.add_argument("--data", choices=["digits", "fashion-mnist"], default="digits", help="(%(default)s)")
    parser.add_argument("--data-dir", help="where Fashion-MNIST is")
    parser.add_argument("--seeds", type=at_least(2), default=20, help="of splits, weights and batches (%(default)s)")
    parser.add_argument("--steps", type=at_least(1), default=100, help="of each training (%(default)s)")
    parser.add_argument("--batch-size", type=at_least(2), default=64, help="images (%(default)s)")
    args = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    try:
        folder = experiments.open_folder("preprocessing", args.output)
    except OSError as error:
        parser.error(str(error))

    # 1. The lecture's picture: two pixels of the training part after each preprocessing.
    torch.manual_seed(0)
    clouds = two_pixels(data_module(args, "none", 0))

    # 2. Accuracy after the same steps, of all rates and seeds at once.
    rows: list[dict[str, Any]] = []
    scores: dict[tuple[str, str], Tensor] = {}
    for kind in PREPROCESSINGS:
        parts = [batches_and_parts(data_module(args, kind, seed), seed, args) for seed in range(args.seeds)]
        for net in (WITHOUT, WITH):
            losses, validation, test = train(parts, net == WITH)
            best = int(validation.mean(dim=1).argmax())
            scores[kind, net] = test[best]
            middle, half = comparison.interval(test[best])
            gain, gain_half = comparison.interval(test[best] - scores["none", net])
            row = {"preprocessing": kind, "net": net, "rate": RATES[best], "train/loss": losses[best].mean().item()}
            rows.append({**row, "test/acc": middle, "+-": half, "gain": gain, "gain +-": gain_half})

    # 3. Both in one file.
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    draw(figure, clouds, rows)
    figure.savefig(folder / "preprocessing.png", dpi=80)

    seconds = time.perf_counter() - start
    metrics = {f"test/acc, {row['preprocessing']}, {row['net']}": row["test/acc"] for row in rows}
    experiments.write_results(folder, vars(args), metrics, rows, seconds)
    experiments.print_table(
        f"{args.data}, {args.steps} steps of {args.batch_size} images, {args.seeds} seeds: {seconds:.0f} s",
        [shown(kind, rows) for kind in PREPROCESSINGS],
        "acc: test accuracy in percent. gain: over images as they are, with the same net, paired by seed",
        f"+-: 95 % interval by Student's t over {args.seeds} seeds",
        "BN: with BatchNorm. loss: of the training, mean over the last tenth of the steps",
        *(f"{net}: {best_of(rows, net)}" for net in (WITHOUT, WITH)),
        f"Files: {folder}/preprocessing.png, {folder}/results.json",
    )


def data_module(args: Any, kind: str, seed: int) -> kit.DigitsDataModule | kit.FashionMNISTDataModule:
    """The images after a preprocessing, fitted on the training part of this seed's split."""
    data: kit.DigitsDataModule | kit.FashionMNISTDataModule
    if args.data == "digits":
        data = kit.DigitsDataModule(seed=seed, preprocess=kind)
    else:
        data = kit.FashionMNISTDataModule(args.data_dir, seed=seed, preprocess=kind)
    data.setup()
    return data


def two_pixels(data: Any) -> dict[str, Tensor]:
    """Two pixels of the training images ``(N, 2)``, by panel: correlated ones with different spreads."""
    images, _ = next(iter(DataLoader(data.train_set, batch_size=POINTS, shuffle=True)))
    flat = images.flatten(1)
    varied = flat.std(dim=0).topk(32).indices
    spreads = flat[:, varied].std(dim=0).log()
    alike = flat[:, varied].T.corrcoef() > 0.85
    best = int(torch.where(alike, spreads[:, None] - spreads, -1.0).argmax())
    pair = varied[[best // len(varied), best % len(varied)]]
    x = flat[:, pair].reshape(-1, 1, 1, 2)
    moments = Moments("pixel")
    moments.add(x)
    layers = {
        "original data": fit_preprocessing([x], "none"),
        "zero-centred": fit_preprocessing([x], "mean_image"),
        "normalised": Standardize(moments.mean, moments.variance.sqrt()),
        "decorrelated": fit_preprocessing([x], "pca"),
        "whitened": fit_preprocessing([x], "pca_whitening"),
    }
    # Pixels of digits have 17 values. Noise of less than a step shows how many images share a point.
    step = 1 / 16 if data.num_classes == 10 and data.image_shape == (1, 8, 8) else 1 / 255
    noisy = x + (torch.rand(x.shape) - 0.5) * 0.8 * step
    return {name: layer(noisy).flatten(1) for name, layer in layers.items()}


def batches_and_parts(data: Any, seed: int, args: Any) -> list[Tensor]:
    """Batches ``(steps, B, D)`` and their targets; images and targets of the validation and of the test part."""
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(data.train_set, args.batch_size, shuffle=True, drop_last=True, generator=generator)
    found: list[list[Tensor]] = []
    while len(found) < args.steps:
        found += [batch for batch, _ in zip(loader, range(args.steps - len(found)), strict=False)]
    whole = [next(iter(DataLoader(part, batch_size=len(part)))) for part in (data.val_set, data.test_set)]
    images, targets = (torch.stack(each) for each in zip(*found, strict=True))
    return [images.flatten(2), targets, *(each for x, y in whole for each in (x.flatten(1), y))]


def train(parts: list[list[Tensor]], normalised: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Train a net for each rate and seed, side by side.

    Returns:
        Training losses at the end, validation accuracies and test accuracies, each ``(rates, seeds)``.
    """
    images, targets, val_images, val_targets, test_images, test_targets = (
        torch.stack(each) for each in zip(*parts, strict=True)
    )
    shape = (len(RATES), len(parts))
    parameters = []
    for fan_in, fan_out in pairwise((images.shape[-1], *HIDDEN, 10)):
        drawn = []
        for seed in range(len(parts)):
            torch.manual_seed(seed * 100 + len(parameters))
            drawn.append(torch.randn(fan_in, fan_out) * (2 / fan_in) ** 0.5)
        parameters.append(torch.stack(drawn).repeat(len(RATES), 1, 1, 1))  # (rates, seeds, inputs, outputs)
        parameters.append(torch.zeros(*shape, 1, fan_out))
        parameters.append(torch.ones(*shape, 1, fan_out))  # the scale of BatchNorm
    for each in parameters:
        each.requires_grad_()
    momenta = [torch.zeros_like(each) for each in parameters]
    rates = torch.tensor(RATES)[:, None, None, None]
    losses = []
    for step in range(images.shape[1]):
        logits, _ = forward(parameters, images[:, step], normalised)
        each = losses_of(logits, targets[:, step])
        gradients = torch.autograd.grad(each.sum(), parameters, allow_unused=True)
        losses.append(each.detach())
        with torch.no_grad():
            for parameter, momentum, gradient in zip(parameters, momenta, gradients, strict=True):
                if gradient is not None:
                    momentum.mul_(0.9).add_(gradient)
                    parameter -= rates * momentum
    with torch.no_grad():
        last = images[:, -20:].flatten(1, 2)
        _, statistics = forward(parameters, last, normalised)  # BatchNorm of the test: of the last batches
        val, test = (
            (forward(parameters, x, normalised, statistics)[0].nan_to_num().argmax(-1) == y).double().mean(-1)
            for x, y in ((val_images, val_targets), (test_images, test_targets))
        )
    tenth = max(1, len(losses) // 10)
    return torch.stack(losses[-tenth:]).mean(dim=0), val, test


def forward(
    parameters: list[Tensor], x: Tensor, normalised: bool, statistics: list[tuple[Tensor, Tensor]] | None = None
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Logits ``(rates, seeds, N, 10)`` of images ``(seeds, N, D)``, and the BatchNorms' means and variances."""
    used = []
    layers = list(zip(parameters[::3], parameters[1::3], parameters[2::3], strict=True))
    for number, (weight, bias, scale) in enumerate(layers):
        x = x @ weight
        if normalised and number < len(layers) - 1:
            mean, var = (x.mean(-2, keepdim=True), x.var(-2, keepdim=True, correction=0))
            mean, var = statistics[number] if statistics else (mean, var)
            used.append((mean, var))
            x = (x - mean) * (var + 1e-5).rsqrt() * scale
        x = x + bias
        x = x.relu() if number < len(layers) - 1 else x
    return x, used


def losses_of(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of each net, ``(rates, seeds, N, C)`` to ``(rates, seeds)``."""
    wanted = one_hot(targets, logits.shape[-1]).to(logits.dtype).expand_as(logits)
    flat = cross_entropy(logits.flatten(0, 2), wanted.flatten(0, 2), reduction="none")
    return flat.reshape(logits.shape[:3]).mean(dim=-1)


def shown(kind: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """A row of the table: both nets after a preprocessing."""
    cells = {"preprocessing": kind}
    for row in rows:
        if row["preprocessing"] == kind:
            net = "BN " if row["net"] == WITH else ""
            cells[f"{net}loss"] = f"{row['train/loss']:.3f}"
            cells[f"{net}acc"] = f"{100 * row['test/acc']:.1f}"
            gain = f"{100 * row['gain']:+.1f} +- {100 * row['gain +-']:.1f}"
            cells[f"{net}gain"] = "" if kind == "none" else gain
    return cells


def best_of(rows: list[dict[str, Any]], net: str) -> str:
    """The preprocessings whose gain has an interval without 0, in one line."""
    better, worse = [], []
    for row in rows:
        if row["net"] == net and abs(row["gain"]) > row["gain +-"]:
            (better if row["gain"] > 0 else worse).append(row["preprocessing"])
    named = (("better", better), ("worse", worse))
    found = [f"{word} than images as they are: {', '.join(names)}" for word, names in named if names]
    return "; ".join(found) or "no preprocessing can be told from images as they are"


def draw(figure: Any, clouds: dict[str, Tensor], rows: list[dict[str, Any]]) -> None:
    """Draw a scatter for each panel of the lecture, and below the accuracies with their intervals."""
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    for axes, (name, points) in zip(above.subplots(1, len(clouds)), clouds.items(), strict=True):
        axes.scatter(*points.T.numpy(), s=4, alpha=0.3, color="C0", linewidths=0)
        reach = 1.1 * float(points.abs().max())
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=name)
        axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    axes = below.subplots()
    for number, net in enumerate((WITHOUT, WITH)):
        chosen = [row for row in rows if row["net"] == net]
        places = [place + 0.16 * (2 * number - 1) for place in range(len(chosen))]
        middle, half = [row["test/acc"] for row in chosen], [row["+-"] for row in chosen]
        axes.errorbar(places, middle, half, fmt="o", capsize=4, color=f"C{number}", label=net)
    axes.set_xticks(range(len(PREPROCESSINGS)), PREPROCESSINGS)
    axes.set(ylabel="test accuracy (95 % interval over seeds)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


if __name__ == "__main__":
    main()
