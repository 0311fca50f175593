import io
from pathlib import Path

from rich.console import Console

from lightning_trainingkit.tuning.searches.search_run import search_result
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_table import TrialTable

SETTINGS = {"step": "coarse_search", "monitor": "val/loss", "epochs": 2}


def test_a_diverged_trial_is_called_so_and_a_choice_of_none_is_shown():
    points = [{"act": None}, {"act": "relu"}, {"act": None}, {"act": None}]
    study = Study(None, "words", Space({"act": [None, "relu"]}), 4, points=points)
    attempts = study.attempts
    attempts.complete(attempts.claim(), 0.5)
    for diverged in (False, True):
        attempts.prune(attempts.claim(), {"diverged": diverged})
    attempts.fail(attempts.claim(), "ValueError: broken")
    found = search_result(study, SETTINGS, Path())
    assert "The best of 4 trials (1 pruned, 1 diverged, 1 failed) has val/loss 0.5 with `act=None`." in found.message
    assert "| 0 | completed | 0.5 | 0 | None |" in found.report
    assert "| 2 | diverged |  | 0 | None |" in found.report
    assert "| `act` | None | 1 | 0.5 |" in found.report
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, width=200)
    with TrialTable(study, "val/loss", 2, console) as table:
        table.show([], study.results(), study.counts())
    assert "words: 4 of 4 trials, 1 pruned, 1 diverged, 1 failed" in printed.getvalue()
    assert "act=None" in printed.getvalue()


def test_a_search_that_runs_has_not_failed():
    study = Study(None, "running", Space({"act": [None, "relu"]}), 3)
    running = search_result(study, SETTINGS, Path(), ended=False)
    assert (running.verdict, running.advice) == ("warn", "")
    assert running.message == "None of 3 trials was finished yet (3 not trained yet)."
    assert search_result(study, SETTINGS, Path()).verdict == "fail"
