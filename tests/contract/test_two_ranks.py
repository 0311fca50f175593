"""Two real processes on gloo, seeded differently: after a fit every callback leaves the ranks equal."""

import json
from pathlib import Path

import pytest

from tests import process
from tests.contract.table import CASES, SCHEDULED, write_members


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_ranks")
    write_members(folder)
    process.run_ranks(Path(__file__).with_name("two_ranks.py"), folder, folder=folder)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("case", [*CASES, SCHEDULED])
def test_ranks_end_equal(found, case):
    assert found[case]["weights"] == 0
    assert found[case]["steps"]
    assert found[case]["noises"]
    assert found[case]["state"]
    assert found[case]["summaries"]


@pytest.mark.parametrize("name", ["early_stopping_and_top_3", "metric_in_the_name"])
def test_ranks_that_disagree_on_what_was_best_restore_the_same(found, name):
    assert found[name]["weights"] == 0


def test_rank_zero_alone_writes(found):
    assert found["CommandCenter"]["runs"] == 1
    assert len(found["EarlyStopping"]["files"]) == 1
    assert len(found["BestCheckpoint"]["files"]) == 2


def test_initialised_weights_are_equal_before_the_first_step(found):
    assert found["InitOverride"]["at_start"] == 0
