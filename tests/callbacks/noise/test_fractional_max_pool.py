import pytest
import torch
from torch import nn

from lightning_trainingkit import FractionalMaxPool, MonteCarloDropout
from lightning_trainingkit.nn.layers.fractional_pool import FractionalRegions
from tests.toy import ResidualModule, ToyModule, toy_loaders, toy_trainer


class Spy(ResidualModule):
    """Keeps two outputs of the pooling for each batch of the training and of the validation."""

    def __init__(self):
        super().__init__()
        self.pairs = {"training": [], "validation": []}

    def training_step(self, batch, batch_idx):
        self.pairs["training"].append([self.net[3](torch.arange(64.0).view(1, 1, 8, 8)) for _ in range(2)])
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.pairs["validation"].append([self.net[3](torch.arange(64.0).view(1, 1, 8, 8)) for _ in range(2)])


def fit(module, *callbacks):
    toy_trainer(*callbacks).fit(module, *toy_loaders())


def test_training_alone_has_random_regions():
    torch.manual_seed(0)
    module = Spy()
    callback = FractionalMaxPool(verbose=False)
    fit(module, callback)
    assert not all(torch.equal(*pair) for pair in module.pairs["training"])
    plain = nn.functional.max_pool2d(torch.arange(64.0).view(1, 1, 8, 8), 2)
    assert all(torch.equal(pair[0], plain) for pair in module.pairs["validation"])
    assert [row.layer for row in callback.report] == ["net.3"]
    assert "forward" not in vars(module.net[3])


def test_monte_carlo_dropout_averages_the_regions():
    average = MonteCarloDropout(passes=3)
    toy_trainer(FractionalMaxPool(verbose=False), average).test(Spy(), toy_loaders()[1], verbose=False)


def test_functions_are_refused_by_name():
    class Functional(nn.Module):
        def forward(self, x):
            return nn.functional.max_pool2d(x, 2)

    module = ToyModule()
    module.net.insert(3, nn.Sequential(Functional()))
    module.net[-1] = nn.Linear(4, 2)
    with pytest.raises(ValueError, match=r"the forward of net\.3\.0 calls max pooling as a function"):
        fit(module, FractionalMaxPool())


def test_bad_layers():
    with pytest.raises(TypeError, match="`layers` must be a name pattern"):
        FractionalMaxPool(2)
    with pytest.raises(ValueError, match=r"match an nn.MaxPool2d, got 'pool'.*net\.3"):
        fit(ResidualModule(), FractionalMaxPool("pool"))
    with pytest.raises(ValueError, match=r"match an nn\.MaxPool2d"):
        fit(ToyModule(), FractionalMaxPool())
    module = ResidualModule()
    module.net[3] = nn.MaxPool2d(2, padding=1)
    with pytest.raises(ValueError, match=r"`net\.3` must have regions that can move .* in the border"):
        fit(module, FractionalMaxPool())


def test_images_have_regions_of_their_own_in_compiled_code():
    """Torch's own draws are wrong there (pytorch #183249): the same regions for every image and batch."""
    pool = nn.MaxPool2d(2)
    FractionalRegions(pool, by="FractionalMaxPool")
    compiled = torch.compile(pool, backend="aot_eager")
    x = torch.arange(64.0).view(1, 1, 8, 8).repeat(64, 1, 1, 1)
    assert len(compiled(x).unique(dim=0)) > 1
