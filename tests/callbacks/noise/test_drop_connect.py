import pytest
import timm.layers
import torch
from torch import nn

from lightning_trainingkit import DropConnect, MonteCarloDropout
from lightning_trainingkit._lightning import L
from tests.toy import ToyModule, toy_loaders, toy_trainer


class NoDropout(ToyModule):
    """Keeps two outputs for each batch of the training and of the validation."""

    def __init__(self):
        super().__init__()
        self.net[4].p = 0.0
        self.pairs = {"training": [], "validation": []}

    def training_step(self, batch, batch_idx):
        self.pairs["training"].append([self.net[5](torch.ones(1, 16)).detach() for _ in range(2)])
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.pairs["validation"].append([self(batch[0]) for _ in range(2)])


def fit(module, *callbacks, **options):
    trainer = toy_trainer(*callbacks, **options)
    trainer.fit(module, *toy_loaders())
    return trainer


@pytest.mark.parametrize("mask", ["batch", "sample"])
def test_training_alone_has_dropped_weights_and_the_trained_weights_stay(mask):
    module, keys = NoDropout(), list(ToyModule().state_dict())
    callback = DropConnect({"head": 0.5}, mask=mask, verbose=False)
    fit(module, callback)
    assert not any(torch.equal(*pair) for pair in module.pairs["training"])
    assert all(torch.equal(*pair) for pair in module.pairs["validation"])
    assert list(module.state_dict()) == keys
    assert "forward" not in vars(module.net[5])
    assert [row.layer for row in callback.report] == ["net.5"]


def test_the_schedule_sets_the_rates():
    class Rates(L.Callback):
        seen: list[float]

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.seen = [*getattr(self, "seen", []), callback.present_rates["net.0"]]

    callback, rates = DropConnect({"*": 0.4, "head": 0.2}, schedule="fall", verbose=False), Rates()
    fit(NoDropout(), callback, rates)
    assert rates.seen == pytest.approx([0.4 * (1 - step / 8) for step in range(8)])


def test_monte_carlo_dropout_averages_the_masks():
    module, noise, average = NoDropout(), DropConnect({"*": 0.5}, verbose=False), MonteCarloDropout(passes=3)
    plain, averaged = (
        toy_trainer(*each).test(module, toy_loaders()[1], verbose=False) for each in ([], [noise, average])
    )
    assert plain[0]["test/loss"] != averaged[0]["test/loss"]


@pytest.mark.parametrize("rate", [1, -0.1, "0.5", float("nan")])
def test_a_bad_rate(rate):
    with pytest.raises((TypeError, ValueError), match=r"`rates\['head'\]` must be"):
        DropConnect({"head": rate})


def test_bad_arguments():
    with pytest.raises(TypeError, match="`rates` must be a dict"):
        DropConnect(0.5)
    with pytest.raises(ValueError, match="`mask` must be one of"):
        DropConnect({"head": 0.5}, mask="row")


def test_a_pattern_without_a_match_names_the_nearest_layers():
    with pytest.raises(ValueError, match=r"match a linear or convolutional layer, got 'net\.1'.*net\.0"):
        fit(ToyModule(), DropConnect({"net.1": 0.5}))


def test_a_mask_for_each_example_of_a_convolution_is_refused_with_its_size():
    with pytest.raises(ValueError, match=r"'sample' and `net\.0`, where each example would need its own copy of 40"):
        fit(ToyModule(), DropConnect({"*": 0.5}, mask="sample"))


def test_the_linear_layer_of_timm_is_an_ordinary_one():
    module = NoDropout()
    module.net[5] = timm.layers.Linear(16, 2)
    fit(module, DropConnect({"head": 0.5}, verbose=False))
    assert not any(torch.equal(*pair) for pair in module.pairs["training"])


def test_layers_with_a_forward_of_their_own_are_refused():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return self._conv_forward(x, weight, self.bias)

    module = ToyModule()
    module.net[0] = Standardized(1, 4, 3)
    with pytest.raises(ValueError, match="got Standardized, which uses its weight in its own way"):
        fit(module, DropConnect({"net.0": 0.5}))


def test_a_layer_whose_weight_a_function_uses_is_refused_after_the_first_batch():
    class Functional(ToyModule):
        def forward(self, x):
            return nn.functional.linear(self.net[:5](x), self.net[5].weight)

    with pytest.raises(ValueError, match=r"the first batch did not call: net\.5"):
        fit(Functional(), DropConnect({"net.5": 0.5}, verbose=False))


def test_surgery_twice_on_one_layer_and_tied_weights():
    from lightning_trainingkit import DropoutOverride

    with pytest.raises(ValueError, match=r"`net\.5` must be a layer without another surgery"):
        fit(ToyModule(), DropoutOverride({"net.5": 0.5}, verbose=False), DropConnect({"net.5": 0.5}, verbose=False))
    module = ToyModule()
    module.net.append(nn.Linear(2, 2, bias=False))
    module.net.append(nn.Linear(2, 2, bias=False))
    module.net[7].weight = module.net[6].weight
    fit(module, DropConnect({"net.6": 0.5}, verbose=False))
    assert module.net[7].weight is module.net[6].weight


def test_attention_that_is_left_as_it_is_stands_in_the_report():
    class Attends(ToyModule):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    callback = DropConnect({"*": 0.1}, verbose=False)
    fit(Attends(), callback, max_epochs=1)
    left = {row.layer for row in callback.report if row.after.startswith("left as it is")}
    assert left == {"attention"}
