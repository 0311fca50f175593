"""Small nets of every kind, and what members of them must give and leave, for the tests of ensembles."""

import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations


def seeded(make, seed):
    torch.manual_seed(seed)
    net = make()
    for each in net.modules():
        if isinstance(each, nn.BatchNorm2d):  # as if it had been trained
            each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2)
    return net.eval()


def small():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3)]
    return nn.Sequential(*layers)


def other():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))


def resnet():
    return torchvision.models.resnet18(num_classes=5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        return self.last(self.second(self.first(x.flatten(1)).relu()))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.last = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.lstm(x[:, 0])[0][:, -1])


def parametrised():
    return nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 8)), nn.Linear(8, 3))


def images(n=6, channels=1, size=8, seed=0):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def explicit(nets, x, weights=None):
    with torch.no_grad():
        probabilities = torch.stack([net(x).float().softmax(1) for net in nets])
        weights = torch.tensor(weights) if weights else torch.full((len(nets),), 1 / len(nets))
        return (probabilities * weights[:, None, None]).sum(0)


def found(module):
    """What must be as it was: the tensors themselves, where their data lie, and the modes."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        "tensors": {name: (id(t), t.data_ptr(), t.stride(), t.dtype, t.requires_grad) for name, t in tensors.items()},
        "values": {name: t.detach().flatten().view(torch.uint8).numpy().tobytes() for name, t in tensors.items()},
        "modes": [each.training for each in module.modules()],
    }
