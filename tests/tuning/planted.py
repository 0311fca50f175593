"""Plain Lightning modules and data of the two steps, healthy and with planted faults."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_trainingkit._lightning import L

CPU = {"accelerator": "cpu"}


class Plain(L.LightningModule):
    """A module that knows nothing of the kit."""

    def __init__(self, net, loss=cross_entropy, lr=0.05):
        super().__init__()
        self.net, self.loss, self.lr = net, loss, lr

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9, weight_decay=1e-4)


def net(classes=4, width=32):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))


def points(size=64, classes=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 8, generator=generator)
    return x, torch.randint(classes, (size,), generator=generator)


class Points(Dataset):
    """Examples with changes at each access."""

    def __init__(self, x, y, change_x=lambda x: x, change_y=lambda y: y):
        self.x, self.y, self.change_x, self.change_y = x, y, change_x, change_y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.change_x(self.x[index]), self.change_y(self.y[index])


def loader(x, y, batch_size=8, **options):
    return DataLoader(TensorDataset(x, y), batch_size, **{"shuffle": True, **options})
