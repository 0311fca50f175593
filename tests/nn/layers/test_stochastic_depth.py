import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth as TorchvisionLayer

from lightning_trainingkit.nn.layers.noisy_forward import RatedAttribute
from lightning_trainingkit.nn.layers.stochastic_depth import BranchDrop, BranchSkip, depth_rates
from tests.toy import Branch


class Block(Branch):
    """Adds in place."""

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += x
        return torch.relu(y)


def skip(block, rate=0.5, drops=()):
    names = [("conv", "weight"), ("conv", "bias"), ("norm", "weight"), ("norm", "bias")]
    parameters = [(getattr(block, owner), name) for owner, name in names]
    return BranchSkip([block.conv, block.norm], parameters, drops, rate, by="StochasticDepth")


def test_rows_are_dropped_as_torchvisions_layer_drops_them():
    block, x = Block(3), torch.randn(50, 3, 4, 4)
    branch = block.norm(block.conv(x))
    noise = BranchDrop(block.norm, 0.3, by="StochasticDepth")
    torch.manual_seed(2)
    y = block(x)
    torch.manual_seed(2)
    torch.testing.assert_close(y, torch.relu(x + TorchvisionLayer(0.3, "row")(branch)))
    noise.remove()
    assert "forward" not in vars(block.norm)


def test_a_skipped_branch_is_the_identity_with_gradients_of_zero_and_without_statistics():
    block, x = Block(3), torch.randn(5, 3, 4, 4, requires_grad=True)
    mean = block.norm.running_mean.clone()
    noise = skip(block)
    noise.number = 0.49
    y = block(x)
    assert torch.equal(y, torch.relu(x))
    y.sum().backward()
    assert all(torch.equal(each.grad, torch.zeros_like(each)) for each in block.parameters())
    assert torch.equal(x.grad, (x > 0).float())
    assert torch.equal(block.norm.running_mean, mean)


def test_a_kept_branch_is_scaled_and_has_its_gradients():
    block, x = Block(3), torch.randn(5, 3, 4, 4)
    branch = block.norm(block.conv(x))
    noise = skip(block, rate=0.2)
    noise.number = 0.2
    torch.testing.assert_close(block(x), torch.relu(x + branch / 0.8))
    block(x).sum().backward()
    assert block.conv.weight.grad.abs().sum() > 0


def test_the_skipped_modules_do_not_run():
    block, ran = Block(3), []
    skip(block).number = 0.0
    block.conv.register_forward_hook(lambda module, args, output: ran.append(output.abs().sum()))
    block(torch.randn(2, 3, 4, 4))
    block(torch.randn(2, 3, 4, 4))
    assert ran == [0, 0]
    weights = []
    block.conv._conv_forward = lambda *args: weights.append(args)
    block(torch.randn(2, 3, 4, 4))  # a shape that is known already
    assert weights == []


def test_without_numbers_torchs_generator_decides_for_a_whole_batch():
    torch.manual_seed(0)
    block, x = Block(3).eval(), torch.randn(4, 3, 2, 2)
    noise = skip(block, rate=0.25)
    plain = block(x)
    noise.training = True  # as in a pass of Monte-Carlo dropout: the noise is on, and BatchNorm in eval mode
    mean = block.norm.running_mean.clone()
    skipped = [torch.equal(block(x), torch.relu(x)) for _ in range(400)]
    assert sum(skipped) / 400 == pytest.approx(0.25, abs=0.08)
    assert torch.equal(block.norm.running_mean, mean)
    noise.training = False
    assert torch.equal(block(x), plain)


def test_layers_for_stochastic_depth_in_the_branch_are_off_until_removal():
    drop = TorchvisionLayer(0.4, "row")
    block = Block(3)
    noise = skip(block, drops=[RatedAttribute(drop, "p")])
    assert drop.p == 0
    noise.remove()
    assert drop.p == 0.4
    assert not any("forward" in vars(each) for each in block.modules())


def test_frozen_branches_and_copies():
    block, x = Block(3), torch.randn(4, 3, 2, 2, requires_grad=True)
    noise = skip(block)
    noise.number = 0.0
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(twin(x), torch.relu(x))
        twin(x).sum().backward()
        assert twin.conv.weight.grad is not None
    assert block.conv.weight.grad is None
    block.requires_grad_(False)
    block(x).sum().backward()
    assert all(each.grad is None for each in block.parameters())


@pytest.mark.parametrize("number", [0.0, 0.9])
def test_gradient_checkpointing_recomputes_the_same_call(number):
    class Checkpointed(Block):
        def forward(self, x):
            y = self.norm(checkpoint(self.conv, x, use_reentrant=True))
            y += x
            return torch.relu(y)

    block, x = Block(3), torch.randn(4, 3, 2, 2, requires_grad=True)
    twin = Checkpointed(3)
    twin.load_state_dict(block.state_dict())
    for each in (block, twin):
        skip(each).number = number
        each(x).square().sum().backward()
    assert all(
        torch.equal(one.grad, other.grad) for one, other in zip(block.parameters(), twin.parameters(), strict=True)
    )


def test_the_first_module_of_attention_and_its_tuple():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.attention = nn.LayerNorm(4), nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            y = self.norm(x)
            y, _ = self.attention(y, y, y, need_weights=False)
            return x + y

    block, x = Attention(), torch.randn(2, 3, 4)
    noise = BranchSkip([block.norm, block.attention], [(block.norm, "weight")], [], 0.5, by="StochasticDepth")
    noise.number = 0.0
    assert torch.equal(block(x), x)
    noise.remove()
    BranchDrop(block.attention, 0.999, by="StochasticDepth")
    assert torch.equal(block(x), x)


def test_the_linear_decay_law():
    assert depth_rates(0.5, 2) == [0.25, 0.5]
    assert depth_rates(0.0, 2) == [0.0, 0.0]
