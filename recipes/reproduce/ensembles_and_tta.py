"""Ensembles and test-time augmentation: the lecture's "enjoy 2 % extra", measured with intervals and a picture.

Ten members are trained for each of two data sets: 400 digits, and 10,000 images of Fashion-MNIST (`--full`: all
60,000). Training shifts the images at random, and mirrors those of Fashion-MNIST. Groups of five are drawn from the ten
members. Each group is compared with the mean of its own members, on test images.

Expected: gain in test accuracy over one model and one view, points, 95 % intervals:
            400 digits (97.5 %): shifts +1.0 +- 0.5, ensemble +1.0 +- 0.6, both +1.4 +- 0.6
            10,000 clothes (88.4 %): flip +0.3 +- 0.2, ensemble +1.0 +- 0.3, both +1.1 +- 0.3
          The gains are below 2 points, but outside of the intervals. Shifts add nothing to an ensemble of clothes.
          A processor without bfloat16 gave +0.9, +0.8, +1.3 and +0.3, +0.9, +1.0.
Cost:     13 min on 2 CPU cores in bfloat16, 21 in float32, nothing to download
Command:  python recipes/reproduce/ensembles_and_tta.py
"""

import argparse
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, comparison, wandb_runs
from lightning_trainingkit.functional import average_passes

VIEWS = {"digits": ["shifts(1)"], "fashion-mnist": ["flip", "shifts(1)"]}
EPOCHS = {"digits": 40, "fashion-mnist": 8}
WIDTHS = {"digits": 32, "fashion-mnist": 16}


def main() -> None:
    """Train the missing members, predict with and without views, compare groups, and draw."""
    parser = experiments.argument_parser("ensembles_and_tta", __doc__)
    parser.set_defaults(data="both")
    parser.add_argument("--members", type=int, default=10, help="trained for each data set (%(default)s)")
    parser.add_argument("--size", type=at_least(2), default=5, help="of an ensemble (%(default)s)")
    parser.add_argument("--groups", type=at_least(5), default=50, help="ensembles drawn from the members (%(default)s)")
    parser.add_argument("--images", type=int, help="to train on (default: 400 digits, 10,000 of Fashion-MNIST)")
    parser.add_argument("--epochs", type=int, help="default: 40 for the digits, 8 for Fashion-MNIST")
    parser.add_argument("--full", action="store_true", help="train on all of Fashion-MNIST")
    args = parser.parse_args()
    sets = list(VIEWS) if args.data == "both" else [args.data]
    if not set(sets) <= set(VIEWS):
        parser.error(f"--data must be both, digits or fashion-mnist, got {args.data}.")
    if args.size > args.members:
        parser.error(f"--size must be at most the number of --members, {args.members}, got {args.size}.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    experiments.quiet()
    try:
        folder = experiments.open_folder("ensembles_and_tta", args.output, resume=args.resume)
        numbers = range(args.seed, args.seed + args.members)
        done = {
            (name, seed)
            for name in sets
            for seed in numbers
            if experiments.finished_metrics(folder / name / f"seed-{seed}", settings(args)) is not None
        }
    except (OSError, ValueError) as error:
        parser.error(str(error))
    rows, curves = [], {}
    for name in sets:
        data = few_images(args, name)
        # 1. Independent members. --resume skips finished members.
        modules = [new_module(name, data) for _ in numbers]
        for seed, module in zip(numbers, modules, strict=True):
            if (name, seed) not in done:
                train(args, name, data, folder, seed)
            kit.load_best(module, folder / name / f"seed-{seed}")
        # 2. Each member predicts the test images, from one view and from several.
        said, targets = predict(args, name, folder, data, modules)
        # 3. Groups of members: the gain of averages over views, members, or both over one model and one view.
        groups = draw_groups(args.members, args.size, args.groups, args.seed)
        found = compare(said, targets, groups, args.seed)
        rows += [{"data": name, **row} for row in found]
        curves[name] = curve(said, targets, args.groups, args.seed)
        for row in found:
            kind = "ensemble" if "ensemble" in row["method"] else "eval" if row["method"] == "one view" else "tta"
            wandb_runs.record(of_data(args, name), folder, kind, f"{name}: {row['method']}", row, {"data": name})

    # 4. The lecture's claim as a picture: accuracy and loss of 1, 2, ... members.
    figure = Figure(figsize=(11, 4 * len(sets)), layout="constrained")
    draw(figure, curves)
    rank_zero_only(figure.savefig)(folder / "ensembles_and_tta.png", dpi=150)

    seconds = time.perf_counter() - start
    best = next(row for row in rows if row["method"] == f"ensemble of {args.size}")
    metrics = {name: value for name, value in best.items() if name not in ("data", "method")}
    figures = [experiments.claim(parser, args, *each) for each in judge(rows, args.size)]
    experiments.write_results(folder, vars(args), {**metrics, "curves": curves}, rows, seconds, figures)
    for name in sets:
        found = [comparison.shown(row) for row in rows if row["data"] == name]
        experiments.print_table(name, [{key: value for key, value in row.items() if key != "data"} for row in found])
    for row in rows:
        if row["acc +-"]:
            print(f"{row['data']}, {row['method']}: {comparison.verdict(row)}")
    print(
        f"{args.members} members for each data set, {args.groups} groups of {args.size}, {seconds:.0f} s",
        "gain: over the mean of the group's members on one view; negative is better for the loss",
        "+-: 95 % bootstrap interval over groups of members and test images, 1000 draws",
        f"Files: {folder}/ensembles_and_tta.png, {folder}/results.json, {folder}/*/seed-*/best.json",
        *wandb_runs.center(args, folder),
        sep="\n",
    )


def few_images(args: argparse.Namespace, name: str) -> Any:
    """Load the data, with few training images, shifted by a pixel at random. Clothes are mirrored too."""
    if name == "digits":
        data: Any = kit.DigitsDataModule(32, val_fraction=0.3, test_fraction=0.65, seed=args.seed)
    else:
        data = kit.FashionMNISTDataModule(args.data_dir, 128, seed=args.seed)
    data.prepare_data()
    data.setup()
    whole = len(data.train_set)
    images = args.images or (400 if name == "digits" else whole if args.full else 10_000)
    chosen = torch.randperm(whole, generator=torch.Generator().manual_seed(args.seed))[:images]
    mirror = [] if name == "digits" else [v2.RandomHorizontalFlip()]
    moved = v2.RandomCrop(data.image_shape[1:], padding=1, padding_mode="reflect")
    data.train_set = Augmented(Subset(data.train_set, chosen.tolist()), v2.Compose([moved, *mirror]))
    return data


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Images with a random transform."""

    def __init__(self, images: Any, transform: Any) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, target = self.images[index]
        return self.transform(x), target


def new_module(name: str, data: Any) -> L.LightningModule:
    """Make an untrained member."""
    options = {"in_channels": data.image_shape[0], "width": WIDTHS[name]}
    return kit.ImageClassifier("small_resnet", data.num_classes, model_options=options, lr=3e-3)


def of_data(args: argparse.Namespace, name: str) -> argparse.Namespace:
    """Set the data set in the options. Each data set has its own W&B project."""
    return argparse.Namespace(**{**vars(args), "data": name})


def train(args: argparse.Namespace, name: str, data: Any, root: Path, seed: int) -> None:
    """Train one member, or resume its killed training."""
    start = time.perf_counter()
    folder = root / name / f"seed-{seed}"
    L.seed_everything(seed, verbose=False)
    module = new_module(name, data)
    callbacks = [
        kit.BestCheckpoint("val/loss", "min", dirpath=str(folder), save_last=True),
        kit.EpochSeed(seed),
        kit.ChannelsLast(),
    ]
    options = {"max_epochs": args.epochs or EPOCHS[name], "enable_checkpointing": True, "enable_progress_bar": True}
    experiments.write_results(folder / "begun", settings(args), {}, [], 0.0)  # the only settings of a killed member
    with wandb_runs.recorded(of_data(args, name), root, f"seed={seed}") as center:
        trainer = experiments.new_trainer(of_data(args, name), folder, *callbacks, *center, **options)
        trainer.fit(module, data, ckpt_path=experiments.newest_checkpoint(folder))
    experiments.write_results(folder, settings(args), {}, [], time.perf_counter() - start)
    trainer.strategy.barrier()


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Select the options that change a member."""
    others = ("output", "resume", "members", "size", "groups", "wandb", "data", "data_dir")
    return {key: value for key, value in vars(args).items() if key not in others}


def predict(
    args: argparse.Namespace, name: str, folder: Path, data: Any, modules: list[L.LightningModule]
) -> tuple[dict[str, Tensor], Tensor]:
    """Predict with each set of views; return log-probabilities ``(members, N, C)`` by views, and targets ``(N,)``."""
    said = {}
    for views in [None, *VIEWS[name]]:
        print(f"{name}: {len(modules)} members predict from {views or 'one view'}")
        augmentation = [] if views is None else [kit.TestTimeAugmentation(views)]
        each = []
        for module in modules:
            log_probabilities, targets = comparison.predictions(
                experiments.new_trainer(of_data(args, name), folder, *augmentation), module, data
            )
            each.append(log_probabilities)
        said[views or "one view"] = torch.stack(each)
    return said, targets


def draw_groups(members: int, size: int, groups: int, seed: int) -> list[Tensor]:
    """Draw groups of members, without repetition within a group."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(members, generator=generator)[:size] for _ in range(groups)]


def compare(said: dict[str, Tensor], targets: Tensor, groups: list[Tensor], seed: int) -> list[dict[str, Any]]:
    """Compute scores and gains of single models and ensembles, for one view and each set of views."""
    rows = []
    for size in (1, len(groups[0])):
        for views, members in said.items():
            method = views if size == 1 else f"ensemble of {size}" + ("" if views == "one view" else f" x {views}")
            row: dict[str, Any] = {"method": method}
            for name, measure in (("acc", comparison.correct), ("loss", comparison.losses)):
                base = measure(said["one view"], targets)
                if size == 1:
                    ours = torch.stack([measure(members, targets)[group].mean(dim=0) for group in groups])
                else:
                    ours = torch.stack([measure(average_passes(members[group]), targets) for group in groups])
                differences = ours - torch.stack([base[group].mean(dim=0) for group in groups])
                row |= {f"test/{name}": ours.mean().item(), f"{name} gain": differences.mean().item()}
                row[f"{name} +-"] = half_width(differences, seed)
            rows.append(row)
    return rows


def judge(rows: list[dict[str, Any]], size: int) -> list[tuple[Any, ...]]:
    """The claim, the measurement and the checks for ensembles, and for views of the kind that training showed."""

    def said(chosen: list[dict[str, Any]]) -> str:
        return "accuracy, points: " + "; ".join(
            f"{row['data']}, {row['method']} {100 * row['acc gain']:+.1f} +- {100 * row['acc +-']:.1f}"
            for row in chosen
        )

    ensembles = [row for row in rows if row["method"] == f"ensemble of {size}"]
    views = [row for row in rows if row["method"] in VIEWS[row["data"]]]
    gains = [row["acc gain"] > row["acc +-"] for row in ensembles]
    return [
        (
            5,
            "Model ensembles: enjoy 2 % extra performance",
            said(ensembles),
            *gains,
            all(row["acc gain"] >= 0.02 for row in ensembles),
        ),
        (
            8,
            "Augmentation: add noise in training, average it out in testing",
            said(views),
            *(row["acc gain"] > row["acc +-"] for row in views),
        ),
    ]


def half_width(differences: Tensor, seed: int, times: int = 1000) -> float:
    """Half width of the 95 % bootstrap interval of the mean of ``(G, N)``: each time draws a group, and images."""
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(times):
        group = torch.randint(len(differences), (1,), generator=generator)
        images = torch.randint(differences.shape[1], (differences.shape[1],), generator=generator)
        means.append(differences[group, images].mean())
    return 1.96 * torch.stack(means).std().item()


def curve(said: dict[str, Tensor], targets: Tensor, groups: int, seed: int) -> dict[str, Any]:
    """Compute accuracy and loss of 1, 2, ... members by views: mean, 2.5 % and 97.5 % quantile over groups."""
    found: dict[str, Any] = {}
    for views, members in said.items():
        for size in range(1, 1 + len(members)):
            averages = [average_passes(members[group]) for group in draw_groups(len(members), size, groups, seed)]
            for name, measure in (("acc", comparison.correct), ("loss", comparison.losses)):
                each = torch.stack([measure(average, targets).mean() for average in averages])
                values = [each.mean().item(), each.quantile(0.025).item(), each.quantile(0.975).item()]
                found.setdefault(views, {}).setdefault(name, []).append(values)
    return found


def draw(figure: Any, curves: dict[str, Any]) -> None:
    """Draw accuracy (left) and loss (right) over the number of members, a row for each data set."""
    panels = figure.subplots(len(curves), 2, squeeze=False)
    for (data, found), row in zip(curves.items(), panels, strict=True):
        for axes, (name, label) in zip(row, (("acc", "test accuracy, %"), ("loss", "test cross-entropy")), strict=True):
            for number, (views, values) in enumerate(found.items()):
                factor = 100 if name == "acc" else 1
                middle, low, high = (factor * torch.tensor(values[name])).T
                sizes = range(1, 1 + len(middle))
                axes.plot(sizes, middle, "o-", markersize=4, color=f"C{number}", label=views)
                axes.fill_between(sizes, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
            axes.set(xlabel="members averaged", ylabel=label, xticks=list(sizes), title=data)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].legend(frameon=False, title="views of each image; band: 95 % of groups")


if __name__ == "__main__":
    main()
