"""Gradients that add up over the steps of an optimizer, and accumulation on purpose."""

import pytest
import torch

from tests.callbacks.diagnostics.checked_fit import ManualNet, Net, fit, kinds


class NeverCleared(Net):
    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        pass


class ClearedToZero(Net):
    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)


class Gan(Net):
    """The generator's pass leaves gradients in the discriminator, which are cleared before its own pass."""

    clear_second = True

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        first.zero_grad()
        self.manual_backward(self.loss(batch))
        first.step()
        if self.clear_second:
            second.zero_grad()
        self.manual_backward(self.loss(batch))
        second.step()

    def configure_optimizers(self):
        head = torch.optim.SGD(self.head.parameters(), lr=0.01)
        return torch.optim.Adam([*self.body.parameters(), *self.middle.parameters()]), head


class GanUncleared(Gan):
    clear_second = False


class OwnGradients(ManualNet):
    """Writes the gradients itself, in the place of the old ones."""

    def training_step(self, batch, batch_idx):
        parameters = list(self.parameters())
        gradients = torch.autograd.grad(self.loss(batch), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizers().step()


@pytest.mark.parametrize(
    ("module", "where"),
    [(lambda: ManualNet("backward", "step"), "SGD"), (NeverCleared, "SGD"), (GanUncleared, "SGD 1")],
)
def test_found(module, where):
    checked = fit(module())
    assert [(finding.kind, finding.where) for finding in checked.final] == [("gradients_not_cleared", where)]
    # Lightning itself clears all gradients before each of the 3 validations.
    assert "still had the gradients of its previous step in 21 of 24 steps" in checked.final[0].message
    assert checked.early


@pytest.mark.parametrize(
    "module",
    [
        Net,
        ClearedToZero,
        Gan,
        OwnGradients,
        lambda: ManualNet("zero", "backward", "backward", "step"),
        lambda: ManualNet("keep zeros", "backward", "step"),
        lambda: ManualNet("backward", "step", "zero"),
        lambda: ManualNet("backward", "backward", "step", "keep zeros"),
    ],
)
def test_no_finding(module):
    assert kinds(module()) == []


def test_no_finding_with_accumulation_and_clipping():
    assert kinds(Net(), accumulate_grad_batches=4, gradient_clip_val=0.1) == []
    assert kinds(ClearedToZero(), accumulate_grad_batches=4) == []


def test_no_finding_with_bfloat16():
    assert kinds(Net(), precision="bf16-mixed") == []


def test_no_finding_with_a_closure_that_runs_several_times():
    class Lbfgs(Net):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    assert kinds(Lbfgs()) == []
