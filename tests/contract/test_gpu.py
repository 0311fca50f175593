"""What only a GPU can show: the callbacks together, in mixed precision, on the device."""

import pytest
import torch

from lightning_trainingkit import best_path
from lightning_trainingkit.nn.checkpoint import load_weights
from tests.contract.table import CALLBACKS, build
from tests.toy import ToyModule, difference, toy_loaders, toy_trainer


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_all_callbacks_train_on_a_gpu_and_restore_the_best(precision, tmp_path):
    module = ToyModule()
    trainer = toy_trainer(*map(build, CALLBACKS), accelerator="gpu", devices=1, precision=precision, max_epochs=4)
    trainer.fit(module, *toy_loaders())
    best = best_path(trainer.checkpoint_callback.dirpath)
    assert difference({name: value.cpu() for name, value in module.state_dict().items()}, load_weights(best)) == 0
    assert torch.isfinite(torch.tensor(trainer.checkpoint_callback.best_model_score.item()))
