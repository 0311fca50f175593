"""What only a GPU can show: the callbacks together, in mixed precision, on the device."""

import pytest
import torch

from lightning_trainingkit import InitOverride, best_path
from lightning_trainingkit.nn.weights.checkpoint import load_weights
from tests.contract.table import CALLBACKS, RESIDUAL, build, write_members
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_all_callbacks_train_on_a_gpu_and_restore_the_best(precision, tmp_path):
    write_members(tmp_path)
    module = ToyModule()
    callbacks = [callback for name in CALLBACKS if name not in ("InitOverride", *RESIDUAL) for callback in build(name)]
    callbacks.append(InitOverride({"head": "normal(0.01)"}, verbose=False))  # what the first phase trains
    trainer = toy_trainer(*callbacks, accelerator="gpu", devices=1, precision=precision, max_epochs=4)
    trainer.fit(module, *toy_loaders())
    best = load_weights(best_path(trainer.checkpoint_callback.dirpath))
    parameters = {name: value.detach().cpu() for name, value in module.named_parameters()}
    # Not the statistics of BatchNorm: ReestimateBatchNorm has the last word on them.
    assert difference(parameters, {name: best[name] for name in parameters}) == 0
    assert torch.isfinite(torch.tensor(trainer.checkpoint_callback.best_model_score.item()))
