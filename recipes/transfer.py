"""Transfer learning: the gain over training from scratch, by method and number of images.

A network learns every other class of a data set, 0, 2, 4, ..., or comes from `--weights` or `--checkpoint`. Then it
learns the remaining classes from few images, in five ways:

- **scratch**: from new weights.
- **probe**: a linear probe, the last layer solved by L-BFGS.
- **frozen**: the new last layer alone, with cached features, at ten times the rate.
- **gradual**: in phases: the last layer, the last blocks, then everything. Lower blocks learn more slowly.
- **full**: everything from the start, at one rate.

All ways see the same images, without augmentation. All but the probe take the same number of steps. The last weights
are tested, so that nothing is selected during training.

Expected: gain in test accuracy over from scratch, points, 95 % intervals over 5 seeds, after five kinds of clothes:
            10 images of each of five others (from scratch 83.3 %): gradual +5.6 +- 2.5, full +5.0 +- 1.9
            50 (90.8 %): gradual +2.8 +- 0.9, full +1.8 +- 1.0
            500 (95.4 %): gradual +0.7 +- 0.3, full +0.5 +- 0.3
          A last layer alone gains less: features of five kinds of clothes are too few for five other kinds.
Cost:     17 min on 2 CPU cores without bfloat16; nothing to download (Fashion-MNIST is Debian's package)
Command:  python recipes/transfer.py
"""

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torchvision
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import comparison, wandb_runs
from lightning_trainingkit.modules.build import build_model
from lightning_trainingkit.nn import explain_failure, load_weights

FROZEN = [{"train": "head", "lr_scale": 10}]  # a last layer alone bears a higher rate
GRADUAL = [
    {"train": "head"},
    {"train": "last 2", "start": 0.1},
    {"train": "all", "start": 0.3},
]
METHODS = ("scratch", "probe", "frozen", "gradual", "full")


def main() -> None:
    """Pretrain, transfer by each method, number of images and seed, compare with scratch, and draw."""
    parser = experiments.argument_parser("transfer", __doc__)
    parser.set_defaults(data="fashion-mnist")
    parser.add_argument("--images", type=counts, default="10,50,500", help="of each class, a list (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from --seed on (%(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="of each fit, at least (and 3 epochs; %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="highest learning rate of all methods (%(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="of the pretraining (%(default)s)")
    parser.add_argument("--model", default="small_resnet", help="name, as ImageClassifier takes it (%(default)s)")
    parser.add_argument("--weights", help="of torchvision's --model, such as DEFAULT, instead of the pretraining")
    parser.add_argument("--checkpoint", help="of --model, instead of the pretraining: file or folder (best.json)")
    parser.add_argument("--size", type=int, help="to resize images to (default: as they are; 64 with --weights)")
    args = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    experiments.quiet()
    try:
        if args.seeds < 2 or (args.weights and args.checkpoint):
            raise ValueError("--seeds must be at least 2, and only one of --weights and --checkpoint given.")
        source, target = halves(args)
        few_images(target, args.images[-1], args.seed)
        model = known_model(args, source)
        folder = experiments.open_folder("transfer", args.output, resume=args.resume)
        check_settings(args, folder)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    # 1. A model that knows the other classes.
    if not (args.weights or args.checkpoint):
        pretrain(args, source, folder / "pretrained", model)

    # 2. Each method, number of images and seed. With --resume, finished trainings are read from their files.
    seeds = range(args.seed, args.seed + args.seeds)
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    for count in args.images:
        for seed in seeds:
            data = few_images(target, count, seed)
            for method in METHODS:
                name = f"{method}-{count}-seed-{seed}"
                score = experiments.finished_metrics(folder / "fits" / name, {}) or transfer(
                    args, folder, name, method, model, data, seed
                )
                found.setdefault((count, method), []).append(score)

    # 3. Accuracy and gain over from scratch on the same images, with intervals over seeds; and the picture.
    rows = [compare(found, count, method) for count in args.images for method in METHODS]
    figure = Figure(figsize=(8, 5), layout="constrained")
    draw(figure, rows, args.images)
    rank_zero_only(figure.savefig)(folder / "transfer.png", dpi=150)
    for row in rows:
        chosen = {"images": row["images per class"], "method": row["method"]}
        wandb_runs.record(
            args, folder, "eval", ", ".join(f"{key}={value}" for key, value in chosen.items()), row, chosen
        )

    seconds = time.perf_counter() - start
    metrics = {name: rows[-1][name] for name in ("test/acc", "test/loss")}
    experiments.write_results(folder, vars(args), metrics, rows, seconds)
    experiments.print_table(
        f"{args.data}: {len(target.classes)} classes, {len(target.test_set)} test images, {seconds:.0f} s",
        [shown(row) for row in rows],
        f"+-: 95 % interval by Student's t over {args.seeds} seeds: other images, head and order",
        "gain: over scratch on the same images, in points; better, worse: outside of the interval",
        *(f"{count} images per class: {winner(rows, count)}" for count in args.images),
        f"Files: {folder}/transfer.png, {folder}/results.json, {folder}/fits/*/results.json",
        "Next:  python recipes/transfer.py --model resnet18 --weights DEFAULT    (downloads ImageNet weights)",
        *wandb_runs.center(args, folder),
    )


def counts(text: str) -> list[int]:
    """Read numbers of images, in ascending order."""
    found = sorted({int(part) for part in text.split(",") if part.strip().isdigit()})
    if not found or found[0] < 1 or len(found) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"must be different positive numbers such as 10,50,500, got {text!r}")
    return found


def halves(args: argparse.Namespace) -> tuple[Any, Any]:
    """Split the data by class, 0, 2, ... and 1, 3, ...; the labels of each half start from 0."""
    data: Any = experiments.data_module(args.data, args.data_dir, batch_size=128, seed=args.seed)
    data.prepare_data()
    data.setup()
    size = args.size or (64 if args.weights else None)
    found = []
    for first in (0, 1):
        half = copy.copy(data)
        half.classes = list(range(first, data.num_classes, 2))
        for part in ("train_set", "val_set", "test_set"):
            setattr(half, part, Classes(getattr(data, part), half.classes, size, colour=bool(args.weights)))
        half.num_classes = len(half.classes)
        half.image_shape = tuple(half.train_set[0][0].shape)
        found.append(half)
    return found[0], found[1]


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Images moved by up to a tenth of their size, and mirrored unless they are digits."""

    def __init__(self, images: Any, size: int, mirror: bool) -> None:
        self.images = images
        moved = v2.RandomCrop(size, padding=max(1, size // 10), padding_mode="reflect")
        self.transform = v2.Compose([moved, *([v2.RandomHorizontalFlip()] if mirror else [])])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, target = self.images[index]
        return self.transform(x), target


class Classes(Dataset[tuple[Tensor, Tensor]]):
    """Images of some classes, labelled from 0."""

    def __init__(self, part: Any, classes: list[int], size: int | None, colour: bool) -> None:
        if isinstance(part, Subset):
            labels = part.dataset.targets[torch.tensor(part.indices)]  # type: ignore[attr-defined]
        else:
            labels = torch.tensor([label for _, label in part.samples])
        chosen = torch.isin(labels, torch.tensor(classes)).nonzero().flatten()
        self.targets = torch.searchsorted(torch.tensor(classes), labels[chosen])
        self.images, self.size, self.colour = Subset(part, chosen.tolist()), size, colour

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Fetch a batch at once; DataLoader prefers this to one call per image."""
        x = torch.stack([image for image, _ in self.images.__getitems__(indices)])
        if self.size is not None:
            x = F.resize(x, [self.size, self.size])
        if self.colour and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        return list(zip(x, self.targets[indices], strict=True))


def known_model(args: argparse.Namespace, source: Any) -> nn.Module:
    """Make the model by name, with the weights of torchvision or of a checkpoint if given."""
    L.seed_everything(args.seed, verbose=False)
    if args.weights:
        return torchvision.models.get_model(args.model, weights=args.weights)
    model = new_model(args, source)
    if args.checkpoint:
        file = Path(args.checkpoint)
        weights = load_weights(kit.best_path(file) if file.is_dir() else file)
        inner = {key.removeprefix("model."): value for key, value in weights.items() if key.startswith("model.")}
        with explain_failure(args.checkpoint):
            model.load_state_dict(inner or weights)
    return model


def new_model(args: argparse.Namespace, data: Any) -> nn.Module:
    """Make the untrained model by name."""
    options = {"in_channels": data.image_shape[0]} if args.model == "small_resnet" else {}
    return build_model(args.model, data.num_classes, options)


def pretrain(args: argparse.Namespace, source: Any, folder: Path, model: nn.Module) -> None:
    """Train on the source classes, or resume a killed training. The model then holds the best weights."""
    module = kit.ImageClassifier(model, source.num_classes, lr=3e-3)
    source.train_set = Augmented(source.train_set, source.image_shape[1], mirror=args.data != "digits")
    if not (folder / "results.json").exists():
        start = time.perf_counter()
        best = kit.BestCheckpoint("val/loss", "min", dirpath=str(folder), save_last=True)
        callbacks = [best, kit.EpochSeed(args.seed), kit.ChannelsLast()]
        options = {"max_epochs": args.epochs, "enable_checkpointing": True, "enable_progress_bar": True}
        with wandb_runs.recorded(args, folder.parent, "pretrained") as center:
            trainer = experiments.new_trainer(args, folder, *callbacks, *center, **options)
            trainer.fit(module, source, ckpt_path=experiments.newest_checkpoint(folder))
        kit.load_best(module, folder)
        scored = dict(experiments.new_trainer(args, folder).test(module, source, verbose=False)[0])
        experiments.write_results(folder, {}, scored, [], time.perf_counter() - start)
        trainer.strategy.barrier()
        print(f"pretrained on {len(source.train_set)} images: test/acc {scored['test/acc']:.4f}")
    kit.load_best(module, folder)


def few_images(target: Any, count: int, seed: int) -> Any:
    """Select the target classes with ``count`` training images of each, drawn by the seed."""
    data = copy.copy(target)
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in range(data.num_classes):
        where = (target.train_set.targets == label).nonzero().flatten()
        if len(where) < count:
            raise ValueError(f"--images must be at most {len(where)}, the images of the rarest class, got {count}.")
        chosen += where[torch.randperm(len(where), generator=generator)[:count]].tolist()
    data.train_set = TensorDataset(*default_collate(target.train_set.__getitems__(chosen)))
    data.batch_size = min(32, len(chosen))
    return data


def transfer(
    args: argparse.Namespace,
    folder: Path,
    name: str,
    method: str,
    known: nn.Module,
    data: Any,
    seed: int,
) -> dict[str, float]:
    """Train by one method, and test the last weights."""
    start = time.perf_counter()
    L.seed_everything(seed, verbose=False)
    if method == "scratch":
        model = new_model(args, data)
    else:
        model = copy.deepcopy(known)
        kit.replace_head(model, data.num_classes)
    module = kit.ImageClassifier(model, data.num_classes, lr=args.lr)
    schedules = {
        "frozen": [kit.TransferLearning(FROZEN, cache_features=True, verbose=False)],
        "gradual": [kit.TransferLearning(GRADUAL, verbose=False)],
    }
    if method == "probe":
        kit.linear_probe(module, data.train_dataloader())
    else:
        steps = -(-len(data.train_set) // data.batch_size)
        callbacks = [*schedules.get(method, []), kit.EpochSeed(seed), kit.ChannelsLast()]
        options = {"max_epochs": max(3, -(-args.steps // steps)), "limit_val_batches": 0}
        with wandb_runs.recorded(args, folder, name) as center:
            trainer = experiments.new_trainer(args, folder, *callbacks, *center, **options)
            trainer.fit(module, data)
    trained = time.perf_counter() - start
    scored = dict(experiments.new_trainer(args, folder).test(module, data, verbose=False)[0]) | {"seconds": trained}
    experiments.write_results(folder / "fits" / name, {}, scored, [], time.perf_counter() - start)
    print(f"{name}: test/acc {scored['test/acc']:.4f}, {trained:.1f} s")
    return scored


def check_settings(args: argparse.Namespace, folder: Path) -> None:
    """Raise ValueError if the folder holds fits with different options; record the options of this run."""
    others = ("output", "resume", "seeds", "images", "wandb", "data_dir")
    ours = {key: value for key, value in vars(args).items() if key not in others}
    file = folder / "begun" / "results.json"
    found = json.loads(file.read_text(encoding="utf-8"))["config"] if file.exists() else ours
    if found != ours:
        raise ValueError(f"--output must hold fits with the present options, got {found}. Take a new folder.")
    experiments.write_results(folder / "begun", ours, {}, [], 0.0)


def compare(found: dict[tuple[int, str], list[dict[str, float]]], count: int, method: str) -> dict[str, Any]:
    """Average over seeds, and compute the gain over scratch, paired by seed, with 95 % intervals."""
    ours, scratch = found[count, method], found[count, "scratch"]
    row: dict[str, Any] = {"images per class": count, "method": method}
    for name, key in (("acc", "test/acc"), ("loss", "test/loss")):
        row[key], row[f"{key} +-"] = comparison.interval([each[key] for each in ours])
        gains = [each[key] - base[key] for each, base in zip(ours, scratch, strict=True)]
        row[f"{name} gain"], row[f"{name} +-"] = comparison.interval(gains)
    return row | {"seconds": sum(each["seconds"] for each in ours) / len(ours)}


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Format a row for the table, with accuracies in per cent."""
    verdict = comparison.verdict(row).split(",")[0].removeprefix("accuracy ")
    return {
        "images": row["images per class"],
        "method": row["method"],
        "test/acc, %": f"{100 * row['test/acc']:.1f} +- {100 * row['test/acc +-']:.1f}",
        "gain": "-" if row["method"] == "scratch" else f"{100 * row['acc gain']:+.1f} +- {100 * row['acc +-']:.1f}",
        "verdict": {"better": "better", "worse": "worse"}.get(verdict, "-"),
        "test/loss": f"{row['test/loss']:.3f}",
        "seconds": f"{row['seconds']:.1f}",
    }


def winner(rows: list[dict[str, Any]], count: int) -> str:
    """Name the method with the highest mean accuracy."""
    best = max((row for row in rows if row["images per class"] == count), key=lambda row: row["test/acc"])
    return f"{best['method']} is highest with {100 * best['test/acc']:.1f} %"


def draw(figure: Any, rows: list[dict[str, Any]], counts: list[int]) -> None:
    """Draw accuracy over the number of images, a line with intervals for each method."""
    axes = figure.subplots()
    for number, method in enumerate(METHODS):
        mine = [row for row in rows if row["method"] == method]
        middle, half = ([100 * row[key] for row in mine] for key in ("test/acc", "test/acc +-"))
        places = [count * 1.06 ** (number - 2) for count in counts]  # beside each other
        axes.errorbar(places, middle, half, marker="o", markersize=4, capsize=3, color=f"C{number}", label=method)
    axes.set(xscale="log", xlabel="training images of each class", ylabel="test accuracy, %")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="mean over seeds, 95 % interval")


if __name__ == "__main__":
    main()
