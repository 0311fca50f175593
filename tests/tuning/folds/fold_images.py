"""A small data set for the tests of folds, and transforms for it."""

import torch
from torch.utils.data import Dataset


class Images(Dataset):
    """Example ``i`` is the number ``i``, then the transform."""

    def __init__(self, size=20, transform=None, start=0):
        self.targets = [each % 2 for each in range(size)]
        self.transform, self.start, self.read = transform, start, 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.read += 1
        x = torch.tensor([float(index + self.start)])
        return (x if self.transform is None else self.transform(x)), self.targets[index]


def random_shift(x):
    return x + torch.rand(1) + 0.1


def double(x):
    return 2 * x
