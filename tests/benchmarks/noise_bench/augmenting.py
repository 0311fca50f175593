"""Augmentation of a batch: time against torchvision's v2 and kornia, PSNR against a chain of interpolations."""

import argparse
import random
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from measuring import DEVICE
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as pixels

from lightning_trainingkit.data import Augment
from lightning_trainingkit.functional import Augmentation, AugmentationDraws, augment, draw_augmentation
from lightning_trainingkit.functional.augmentation_maps import lens_to_image

FINER = 8  # times the size at which the true images are transformed
CASES = ((256, 28, 4), (256, 32, 4), (64, 224, 28))  # images, pixels, padding
LINEAR = {"rotation": 15, "scale": (0.8, 1.2), "shear": 10}
CHAINS = {
    "rotation, scale, shear": Augmentation(**LINEAR),
    "and perspective": Augmentation(**LINEAR, perspective=0.2, perspective_probability=1.0),
}


def rows(args: argparse.Namespace, draw: random.Random) -> list[dict]:
    batches = [row for case in CASES for row in _times(*case, args.rounds, draw)]
    singles = [_single(side, padding, args.rounds, draw) for side, padding in ((32, 4), (224, 28))]
    return [*batches, *singles, *(_psnr(name) for name in CHAINS)]


def _times(images: int, side: int, padding: int, rounds: int, draw: random.Random) -> list[dict]:
    """Flip, affine map, crop with padding, brightness, contrast and saturation from the same ranges."""
    from noise_bench.comparing import race, speed

    x = torch.rand(images, 3, side, side, device=DEVICE)
    steps, theirs = _steps(padding), _theirs(side, padding)

    def ours() -> Tensor:
        return augment(x, steps, draw_augmentation(steps, images, (side, side)))

    competitors: dict[str, Callable[[], Tensor]] = {
        "ours": ours,
        "control": ours,
        "each": lambda: torch.stack([theirs(image) for image in x]),
        "whole": lambda: theirs(x),
    }
    if find_spec("kornia"):
        kornia = _kornia(side, padding)
        competitors["kornia"] = lambda: kornia(x)
    times = race(competitors, rounds, draw)
    name = f"{images} images of {side} px: "
    each, whole = (10.0, 1.0) if side <= 32 else (1.3, None)
    compared = [
        speed(f"{name}v2 image by image", times, "ours", "each", draw, goal=each),
        speed(f"{name}v2 on the batch, one draw", times, "ours", "whole", draw, goal=whole),
    ]
    if "kornia" in competitors:
        compared.append(speed(f"{name}kornia", times, "ours", "kornia", draw, goal=2 if side <= 32 else None))
    return [*compared, speed(f"{name}control", times, "ours", "control", draw)]


def _single(side: int, padding: int, rounds: int, draw: random.Random) -> dict:
    """The same steps as a transform of one image of bytes, as a worker calls it."""
    from noise_bench.comparing import race, speed

    x = torch.randint(256, (3, side, side), dtype=torch.uint8)
    ours, theirs = Augment(_steps(padding)), _theirs(side, padding)
    times = race({"ours": lambda: ours(x), "v2": lambda: theirs(x)}, rounds, draw, calls=20)
    return speed(f"one image of {side} px, as a transform: v2", times, "ours", "v2", draw)


def _steps(padding: int) -> Augmentation:
    return Augmentation(
        horizontal_flip=0.5,
        rotation=15,
        translation=0.1,
        scale=(0.8, 1.2),
        shear=5,
        padding=padding,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
    )


def _theirs(side: int, padding: int) -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(15, (0.1, 0.1), (0.8, 1.2), 5, interpolation="bilinear"),
            v2.RandomCrop(side, padding=padding),
            v2.ColorJitter(0.4, 0.4, 0.4),
        ]
    )


def _kornia(side: int, padding: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kornia's own imports
        from kornia import augmentation

        return nn.Sequential(
            augmentation.RandomHorizontalFlip(),
            augmentation.RandomAffine(15, (0.1, 0.1), (0.8, 1.2), 5),
            augmentation.RandomCrop((side, side), padding=padding),
            augmentation.ColorJiggle(0.4, 0.4, 0.4),
        )


def _psnr(name: str, images: int = 64, side: int = 32) -> dict:
    """Mean PSNR of photos of 32 px, without the rim. The truth is transformed at 256 px and reduced."""
    from noise_bench.comparing import measured

    generator = torch.Generator().manual_seed(0)
    large = _photos(images, FINER * side, generator)
    small = avg_pool2d(large, FINER)
    draws = draw_augmentation(CHAINS[name], images, (side, side), generator)
    true = avg_pool2d(_moved(large, draws), FINER)
    inner = slice(side // 8, -side // 8)

    def decibels(found: Tensor) -> float:
        error = (found - true)[..., inner, inner].square().mean((1, 2, 3))
        return float((-10 * error.log10()).mean())

    once = decibels(augment(small, CHAINS[name], draws))
    chain = decibels(torch.stack([_chain(image, draws, number) for number, image in enumerate(small)]))
    return measured(f"PSNR above a chain of steps, dB: {name}", once, chain, once - chain, 3.0)


def _photos(images: int, side: int, generator: torch.Generator) -> Tensor:
    photos = [torch.tensor(photo).permute(2, 0, 1) / 255 for photo in load_sample_images().images]
    parts = []
    for number in range(images):
        photo = photos[number % len(photos)]
        top, left = (int(torch.randint(room - side + 1, (), generator=generator)) for room in photo.shape[1:])
        parts.append(photo[:, top : top + side, left : left + side])
    return torch.stack(parts)


def _moved(large: Tensor, draws: AugmentationDraws) -> Tensor:
    """Apply the maps of small images to large ones: the same map from -1 to 1."""
    height, width = draws.size
    y, x = (((torch.arange(FINER * side) + 0.5) / FINER - side / 2).double() for side in (height, width))
    places = torch.stack((*torch.meshgrid(x, y, indexing="xy"), torch.ones(len(y), len(x))), -1).view(1, -1, 3)
    moved = places @ lens_to_image(draws).mT
    grid = moved[..., :2] / moved[..., 2:] / torch.tensor((width / 2, height / 2))
    return grid_sample(large, grid.float().view(len(large), len(y), len(x), 2), align_corners=False)


def _chain(image: Tensor, draws: AugmentationDraws, number: int) -> Tensor:
    """Each step of torchvision's interpolates."""
    side = image.shape[-1]
    angle, scale, shear = draws.angle[number].item(), draws.scale[number, 0].item(), draws.shear[number].tolist()
    for step in ((0, [0, 0], 1.0, shear), (0, [0, 0], scale, [0.0, 0.0]), (angle, [0, 0], 1.0, [0.0, 0.0])):
        image = pixels.affine(image, *step, interpolation="bilinear")
    if draws.corners is None:
        return image
    corners = [[0, 0], [side - 1, 0], [side - 1, side - 1], [0, side - 1]]
    return pixels.perspective(image, corners, draws.corners[number].tolist())
