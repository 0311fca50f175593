"""Augmentations: a picture of the same eight images under each transform and each policy.

Each image of a row has its own random draws. The first rows are single transforms, with wide ranges so that their
effect is seen. The last rows are the policies as `augment="NAME"` applies them. The images are cut from the two
photographs that scikit-learn has (`--data photos`), since digits have no colours. On grey images the transforms of
colours are left out.

Expected: augmentations.png with 24 rows. One thread, 96 x 96 pixels, ms an image: policy cifar 0.09, geometric 0.22,
          trivialaugment 0.12, randaugment 0.23, imagenet_resnet 0.58 (without the decoding of a file)
Cost:     4 s on 2 CPU cores, nothing to download
Command:  python recipes/augmentations.py
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import make_grid

from lightning_trainingkit import experiments
from lightning_trainingkit.data import Augment, policy_transform
from lightning_trainingkit.data.alternating_flip import alternating_flip
from lightning_trainingkit.experiments import at_least, wandb_runs
from lightning_trainingkit.functional import Augmentation
from lightning_trainingkit.functional.augmentation_policies import DEVICE_POLICIES, WORKER_POLICIES

IMAGES = 8
RESNET = "policy imagenet_resnet"
TIMED = 128
SQUARES = (  # top, left and side of what is cut from each photograph
    ((20, 50, 320), (25, 110, 190), (220, 70, 200), (130, 340, 290)),
    ((60, 150, 320), (100, 20, 300), (247, 240, 180), (130, 210, 200)),
)
Change = Callable[[Tensor], Tensor]  # images (N, C, H, W) with bytes


def main() -> None:
    """Augment eight images in each way, draw them, and take the time."""
    parser = experiments.argument_parser("augmentations", __doc__)
    parser.set_defaults(data="photos")
    parser.add_argument("--image-size", type=at_least(8), default=96, help="of the photos, in pixels (%(default)s)")
    args = parser.parse_args()
    if args.resume:
        parser.error("--resume must not be given: this recipe trains nothing.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    start = time.perf_counter()
    experiments.quiet()
    try:
        images = photos(args.image_size) if args.data == "photos" else training_images(args)
        files = photos(2 * args.image_size) if args.data == "photos" else images
        folder = experiments.open_folder("augmentations", args.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    # 1. The same images under each change. ResNet's policy cuts from files that are larger than the images.
    changes, left_out = without_colours(all_changes(images.shape[-1]), images)
    rows, pictures = [], [images]
    for number, (name, (what, change)) in enumerate(changes.items()):
        torch.manual_seed(args.seed + number)
        given = files if name == RESNET else images
        pictures.append(change(given))
        given = given.repeat(TIMED // IMAGES, 1, 1, 1)
        rows.append({"name": name, "what": what, "ms an image": milliseconds(change, given)})

    # 2. The picture, in the folder and in W&B.
    height, width = images.shape[-2:]
    figure = Figure(figsize=(9, 9 / IMAGES * len(pictures) * height / width))
    draw(figure, ["as it is", *changes], pictures)
    figure.savefig(folder / "augmentations.png", dpi=60, bbox_inches="tight")
    values = {row["name"]: row["ms an image"] for row in rows}
    picture = {"augmentations": folder / "augmentations.png"}
    wandb_runs.record(args, folder, "augmentation", f"seed={args.seed}", values, {"data": args.data}, picture)

    seconds = time.perf_counter() - start
    experiments.write_results(folder, vars(args), {"images": TIMED}, rows, seconds)
    experiments.print_table(
        f"{args.data}, {height} x {width} pixels",
        rows,
        f"ms an image: time of this process for {TIMED} images at once, {torch.get_num_threads()} threads",
        *([f"Left out, since the images are grey: {', '.join(left_out)}."] if left_out else []),
        f"Files: {folder}/augmentations.png, {folder}/results.json",
        *wandb_runs.center(args, folder),
    )


def photos(size: int) -> Tensor:
    """Cut eight squares from the photographs of a pagoda and a dahlia, bytes ``(8, 3, size, size)``."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    found = []
    for photo, squares in zip(load_sample_images().images, SQUARES, strict=True):  # 427 x 640 pixels
        whole = torch.tensor(photo).permute(2, 0, 1)
        found += [F.resize(whole[:, top : top + side, left : left + side], [size, size]) for top, left, side in squares]
    return torch.stack(found)


def training_images(args: Any) -> Tensor:
    """Eight training images of different classes as far as there are, bytes."""
    data = experiments.data_module(args.data, args.data_dir, batch_size=256, seed=args.seed)
    data.prepare_data()
    data.setup()
    torch.manual_seed(args.seed)
    images, targets = next(iter(data.train_dataloader()))
    first = [int((targets == label).nonzero()[0]) for label in targets.unique()]
    chosen = [*first, *(index for index in range(len(targets)) if index not in first)][:IMAGES]
    return F.to_dtype(data.preprocessing.inverse(images[chosen]).clamp(0, 1), torch.uint8, scale=True)


def all_changes(size: int) -> dict[str, tuple[str, Change]]:
    """What each change does, and the change, by name: first transforms, then policies."""
    transforms = {
        "horizontal_flip": ("mirrors half of the images", {"horizontal_flip": 0.5}),
        "padding": ("cuts from the image with a margin", {"padding": max(1, size // 8)}),
        "translation": ("moves by up to 20 % of the side", {"translation": 0.2}),
        "rotation": ("turns by up to 30 degrees", {"rotation": 30}),
        "scale": ("70 to 130 % of the size", {"scale": (0.7, 1.3)}),
        "stretch": ("width to height from 0.7 to 1.4", {"stretch": (0.7, 1.4)}),
        "shear": ("slants by up to 25 degrees", {"shear": 25}),
        "perspective": ("moves the corners inwards", {"perspective": 0.5, "perspective_probability": 1}),
        "lens_k1": ("barrel or pincushion, from -0.2 to 0.3", {"lens_k1": (-0.2, 0.3)}),
        "erasing": ("blackens a rectangle", {"erasing": 1}),
        "brightness": ("60 to 140 %", {"brightness": 0.4}),
        "contrast": ("60 to 140 %", {"contrast": 0.4}),
        "saturation": ("0 to 200 %", {"saturation": 1}),
        "hue": ("shifts the colour circle by up to 0.2", {"hue": 0.2}),
        "colour_offset": ("AlexNet's offset, std 1 in place of 0.1", {"colour_offset": 1}),
    }
    policies = {
        "cifar": "flip, crop with padding 4",
        "geometric": "translation, rotation, stretch, shear, lens",
        "imagenet_resnet": "random size, crop, flip, colour",
        "autoaugment": "two operations of torchvision's list for ImageNet",
        "randaugment": "two random operations of one strength",
        "trivialaugment": "one random operation of random strength",
    }
    found: dict[str, tuple[str, Change]] = {
        name: (what, Augment(Augmentation(**ranges))) for name, (what, ranges) in transforms.items()
    }
    for name, what in policies.items():
        at_once = Augment(DEVICE_POLICIES[name]) if name in DEVICE_POLICIES else None
        found[f"policy {name}"] = (what, at_once or each_by_itself(policy_transform(name, size)))
    for epoch in (0, 1):
        what = f"mirrors the other half in each epoch, here {epoch}"
        found[f"policy alternating_flip {epoch}"] = (what, alternating(epoch))
    missing = {*DEVICE_POLICIES, *WORKER_POLICIES} - {"none", "alternating_flip", *policies}
    if missing:
        raise RuntimeError(f"The picture must have every policy, got none of {missing}.")
    return found


def each_by_itself(transform: Any) -> Change:
    """Call a transform that changes all images of a batch alike image by image, as the DataModules do."""
    return lambda images: torch.stack([transform(image) for image in images])


def alternating(epoch: int) -> Change:
    """The flips of this epoch."""
    return lambda images: alternating_flip(images, range(len(images)), epoch, seed=0)


def without_colours(
    changes: dict[str, tuple[str, Change]], images: Tensor
) -> tuple[dict[str, tuple[str, Change]], list[str]]:
    """Leave out what the kit refuses on grey images."""
    if images.shape[1] == 3:
        return changes, []
    left_out = []
    for name, (_, change) in changes.items():
        try:
            change(images[:1])
        except ValueError:
            left_out.append(name)
    return {name: change for name, change in changes.items() if name not in left_out}, left_out


def milliseconds(change: Change, images: Tensor) -> float:
    """Fastest of three calls, per image, in the time of this process: other programs disturb it less."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        change(images)
        seconds.append(time.process_time() - start)
    return 1e3 * min(seconds) / len(images)


def draw(figure: Any, names: list[str], pictures: list[Tensor]) -> None:
    """Draw a row of images for each name."""
    height = pictures[0].shape[-2]
    gap = max(1, height // 24)
    grid = make_grid(torch.cat(pictures), nrow=IMAGES, padding=gap, pad_value=255)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(grid.permute(1, 2, 0), interpolation="nearest" if height < 48 else "auto")
    axes.set_xticks([])
    axes.set_yticks([gap + height / 2 + row * (height + gap) for row in range(len(names))], names)
    axes.tick_params(length=0, labelsize=12)
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
