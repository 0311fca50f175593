import re
import signal
from pathlib import Path

import pytest

from tests import process

SCRIPT = Path(__file__).with_name("endings.py")


def ended(folder, how, status=0):
    """Names and states of the runs on the page that the script has left, and the page."""
    done = process.run(SCRIPT, folder, how, folder=folder, ok=False)
    assert done.returncode == status, done.stderr
    page = (folder / "page.html").read_text(encoding="utf-8")
    return re.findall(r'"state":"(\w+)"', page), page


def slowly(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("how", "status", "state"),
    [
        ("exit", 3, "finished"),
        slowly("by itself", 0, "finished"),
        slowly("a child", 0, "finished"),  # forked in between, which ends first and must leave the run alone
        slowly("error", 1, "finished"),
        slowly("SIGINT", -signal.SIGINT, "finished"),
        ("SIGINT in the fit", 1, "failed"),
        slowly("SIGTERM in the fit", 0, "failed"),
        slowly("exit in the fit", 3, "failed"),
        slowly("error in the fit", 1, "failed"),
    ],
)
def test_the_page_is_complete_however_the_process_ends(tmp_path, how, status, state):
    states, page = ended(tmp_path, how, status)
    assert states == ["finished", state]
    assert '"test_acc_of_False"' in page
    assert ('"test_acc_of_True"' in page) == (state == "finished")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_the_page_is_complete_after_ranks_that_lightning_starts(tmp_path, strategy):
    states, page = ended(tmp_path, strategy)
    assert states == ["finished", "finished"]
    assert '"val_loss_epoch"' in page
