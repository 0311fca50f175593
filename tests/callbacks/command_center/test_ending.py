import re
import signal
from pathlib import Path

import pytest

from tests import process

SCRIPT = Path(__file__).with_name("endings.py")
# How the process ends, its exit status, and how the second of its two fits is recorded.
ENDS = {
    "by itself": (0, "finished"),
    "exit": (3, "finished"),
    "error": (1, "finished"),
    "SIGINT": (-signal.SIGINT, "finished"),
    "exit in the fit": (3, "failed"),
    "error in the fit": (1, "failed"),
    "SIGINT in the fit": (1, "failed"),
    "SIGTERM in the fit": (0, "failed"),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Exit status and page of each end."""
    root = tmp_path_factory.mktemp("ended")
    started = {}
    for end in ENDS:
        folder = root / end.replace(" ", "-")
        folder.mkdir()
        started[end] = (folder, process.Process(SCRIPT, folder, end, folder=folder))
    done = {end: (folder, running.wait()) for end, (folder, running) in started.items()}
    return {end: (each, (folder / "page.html").read_text(encoding="utf-8")) for end, (folder, each) in done.items()}


@pytest.mark.parametrize("end", ENDS)
def test_the_page_is_complete_however_the_process_ends(ended, end):
    status, state = ENDS[end]
    done, page = ended[end]
    assert done.returncode == status, done.stderr
    assert re.findall(r'"state":"(\w+)"', page) == ["finished", state]
    assert '"test_acc_of_False"' in page
    assert ('"test_acc_of_True"' in page) == (state == "finished")
