"""What every test shares: one thread, no network, nothing written outside its own folder."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_ERROR_REPORTING"] = "false"

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.process import share_a_server

settings.register_profile("kit", database=None, deadline=None, max_examples=50)
settings.load_profile("kit")
torch.set_num_threads(1)
# A shell that starts pytest in the background ignores Ctrl-C, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pytest_configure(config):
    if stop := share_a_server():
        config.add_cleanup(stop)


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        named = {Path(arg.partition("::")[0]).resolve() for arg in config.args}
        slow = [item for item in items if "slow" in item.keywords and item.path not in named]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
