"""The sentence at the top of the page."""

import numpy as np
import pytest

from tests.dashboards.made import grid, run

pytestmark = pytest.mark.slow


def headline(page):
    return page.js("return document.getElementById('headline').textContent").strip()


def test_the_headline_names_the_best_run_and_counts_states(opened):
    runs = grid()
    for each, state in zip(runs, ("killed", "running", "failed", "running"), strict=False):
        each.state = state
    best = min(runs, key=lambda each: each.curves["val/loss"].values.min())
    best.name = "the best"
    page = opened(runs)
    value = best.curves["val/loss"].values.min()
    assert headline(page) == (
        f"Best: the best with val/loss {value:.5g}. 12 runs: 8 finished, 2 running, 1 failed, 1 killed."
    )
    assert page.js("return document.getElementById('made').textContent").startswith("Made 20")
    most = max(runs, key=lambda each: each.curves["val/acc"].values.max())
    value = most.curves["val/acc"].values.max()
    assert headline(opened(runs, target="val/acc")).startswith(
        f"Best: {most.group}: {most.name} with val/acc {value:.5g} (3 runs tie)."
    )


def test_the_headline_where_there_is_no_best_run(opened):
    failed = [run(n, curves={}, summary={}, state="failed") for n in range(2)]
    assert headline(opened(failed)) == "No run has a value of val/loss yet. 2 runs, all failed."
    nothing = run(0, state="running")
    nothing.curves["val/loss"].values[:] = np.nan
    assert headline(opened([nothing])) == "No run has a value of val/loss yet. 1 run, running."
    assert headline(opened([run(0)])).endswith("1 run, finished.")


def test_the_best_run_of_a_search_is_called_a_single_run_beside_what_the_search_says(opened):
    runs = [run(n, name=f"trial {n}", config={"lr": 0.01 * n, "trial.study": "refine"}) for n in (1, 2)]
    said = "return ['hidden', 'textContent'].map((name) => document.getElementById('choice')[name])"
    page = opened(runs)
    assert headline(page).startswith("Best single run: trial ")
    assert page.js(said) == [
        False,
        "A single run may be a short trial, or lucky. The search says at its end what it found.",
    ]
    verdict = {"search.search": "warn. The best of 2 trials has val/loss 0.5 with `lr=0.02`. Train more."}
    page = opened([*runs, run(3, name="refine", curves={}, summary={}, config=verdict)])
    assert headline(page).endswith("2 runs, all finished.")
    hidden, text = page.js(said)
    assert not hidden
    assert "Search refine: The best of 2 trials has val/loss 0.5 with lr=0.02. All verdicts stand below." in text
    page.show("searches Searches")
    assert page.js("return panels.get('searches Searches').figure.querySelectorAll('tr').length") == 2
    assert page.problems() == []
    assert opened(grid()).js(said)[0]


def test_the_best_run_is_shown_before_all_others(opened):
    page = opened(grid())
    page.choose("search", "optimizer=AdamW" if page.js("return view.ranked()[0].config.optimizer") == "SGD" else "SGD")

    def widths():
        page.show("curves val/loss")
        return page.js("return panels.get('curves val/loss').plot.data.slice(1).map((t) => t.line.width)")

    def marked():
        page.show("table All runs")
        return page.js("return [...document.querySelectorAll('label.marked, tr.marked')].map((e) => e.tagName)")

    def press():
        page.js("document.querySelector('#headline button').click()")
        page.settle()

    press()
    assert widths() == [1.8] * 11 + [4]
    assert sorted(marked()) == ["LABEL", "TR"]
    page.browser.refresh()
    page.loaded()
    assert widths() == [1.8] * 11 + [4]
    press()
    assert widths() == [1.8] * 12
    assert marked() == []
