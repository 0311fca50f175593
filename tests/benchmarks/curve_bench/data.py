"""Inputs and targets of the tasks."""

import functools
from collections.abc import Callable

import torch
from sklearn import datasets
from torch import Tensor

import lightning_trainingkit as kit


@functools.cache
def load(data: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Examples in a fixed random order, standardised."""
    x, y = data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    x = (x - x.mean(0)) / (x.std(0) + 0.1 * x.std())
    return x, (y - y.mean()) / y.std() if y.is_floating_point() else y


def digits(group: tuple[int, ...] = tuple(range(10))) -> tuple[Tensor, Tensor]:
    """Digits, and the group of each digit."""
    found = datasets.load_digits()
    return torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(group)[found.target]


def fashion(classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    data = kit.FashionMNISTDataModule()
    data.prepare_data()
    data.setup("test")
    pairs = [data.test_set[index] for index in range(len(data.test_set))]
    x, y = torch.stack([image for image, _ in pairs]), torch.tensor([int(label) for _, label in pairs])
    chosen = torch.isin(y, torch.tensor(classes))
    return torch.nn.functional.avg_pool2d(x[chosen], 2), torch.searchsorted(torch.tensor(classes), y[chosen])


def table(make: Callable[..., tuple[object, object]], size: int, **options: object) -> tuple[Tensor, Tensor]:
    x, y = make(n_samples=size, random_state=0, **options)
    target = torch.tensor(y)
    return torch.tensor(x, dtype=torch.float32), target.float() if target.is_floating_point() else target.long()


def spirals() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2600) % 3
    radius = torch.rand(2600, generator=generator) * 0.9 + 0.1
    angle = 4 * radius + y * 2 * torch.pi / 3 + 0.55 * torch.randn(2600, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), y


def board() -> tuple[Tensor, Tensor]:
    """A chessboard of three by three fields, and two inputs that say nothing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2600, 4, generator=generator)
    return x, ((3 * x[:, 0]).long() + (3 * x[:, 1]).long()) % 2


def waves() -> tuple[Tensor, Tensor]:
    """Sum of products of sines, a regression."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(2600, 4, generator=generator) - 1
    y = (3 * x[:, 0]).sin() * (3 * x[:, 1]).cos() + (2 * x[:, 2]).sin() * x[:, 3]
    return x, y + 0.1 * torch.randn(2600, generator=generator)


def _drawn(examples: int, inputs: int) -> tuple[Tensor, torch.Generator]:
    """Uniform inputs between -1 and 1, and the generator for what follows."""
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(examples, inputs, generator=generator) - 1, generator


def larger() -> tuple[Tensor, Tensor]:
    """Pairs of digits as two channels, and whether the first is larger."""
    x, y = digits()
    one, other = torch.randint(len(x), (2, 4000), generator=torch.Generator().manual_seed(0))
    apart = y[one] != y[other]
    return torch.cat([x[one], x[other]], 1)[apart], (y[one] > y[other]).long()[apart]


def kinds() -> tuple[Tensor, Tensor]:
    """All clothes, in five kinds: tops, trousers, dresses, shoes, bags."""
    x, y = fashion(tuple(range(10)))
    return x, torch.tensor([0, 1, 0, 2, 0, 3, 0, 3, 4, 3])[y]


def signs() -> tuple[Tensor, Tensor]:
    """Sign of the product of three inputs, among six."""
    x, _ = _drawn(2800, 6)
    return x, (x[:, :3].prod(1) > 0).long()


def stripes() -> tuple[Tensor, Tensor]:
    """Oblique stripes, with soft edges."""
    x, generator = _drawn(2800, 4)
    wave = (4 * x[:, 0] + 3 * x[:, 1]).sin() + 0.2 * torch.randn(2800, generator=generator)
    return x, (wave > 0).long()


def chirps() -> tuple[Tensor, Tensor]:
    """Noisy waves whose frequency falls, stays or rises."""
    x, generator = _drawn(2600, 2)
    y, times = torch.arange(2600) % 3, torch.linspace(0, 1, 20)
    waves = (6 * times * (1 + 0.5 * (y[:, None] - 1) * times) + x[:, :1]).sin() * (1 + 0.3 * x[:, 1:])
    return waves + 0.6 * torch.randn(waves.shape, generator=generator), y


def ripples() -> tuple[Tensor, Tensor]:
    """Height of circular waves, a regression."""
    x, generator = _drawn(2600, 2)
    return x, (5 * x.norm(dim=1)).sin() + 0.1 * torch.randn(2600, generator=generator)
