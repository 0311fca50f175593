"""What every test shares: one thread, no network, nothing written outside its own folder."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_ERROR_REPORTING"] = "false"

import pytest
import torch
from hypothesis import settings

settings.register_profile("kit", database=None, deadline=None, max_examples=50)
settings.load_profile("kit")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
