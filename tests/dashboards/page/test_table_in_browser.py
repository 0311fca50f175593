"""The table of runs, and the texts that are cut to fit."""

import pytest

from tests.dashboards.made import grid

pytestmark = pytest.mark.slow


def table(page):
    page.show("table All runs")
    return page.js(
        "return [...document.querySelectorAll('[data-panel^=table] tr')].map((row) => "
        "[...row.children].map((cell) => [cell.textContent.trim(), cell.title || cell.firstChild?.title || '']))"
    )


def test_the_table_shows_scores_short_paths_and_durations_that_sort_by_seconds(opened):
    runs = grid()[:5]
    spans = [95, 750, 7300, 119.9, 7100]
    for n, each in enumerate(runs):
        each.seconds = spans[n]
        each.config |= {"data.train.folder": f"/home/me/projects/digits/data/version_{n % 2}", "model.encoder.size": n}

    def scored(data):
        data["scores"] = ["val/loss", "val/acc"]
        for n, each in enumerate(data["runs"]):
            each["scores"] = {"val/acc": 0.5 + n / 100} if n else {}

    page = opened(runs, scored)
    page.js("view.order = {column: 'duration', down: false}; changed()")
    head, *rows = table(page)
    titles = [text for text, _ in head]
    assert titles[:5] == ["run", "best val/loss", "best val/acc", "state", "duration ▲"]
    assert [row[4][0] for row in rows] == ["95 s", "120 s", "12.5 min", "118 min", "2.0 h"]
    assert {row[2][0] for row in rows} == {"", "0.51", "0.52", "0.53", "0.54"}
    assert ["folder", "data.train.folder"] in head
    assert ["size", "model.encoder.size"] in head
    folders = [row[titles.index("folder")] for row in rows]
    assert {text for text, _ in folders} == {"version_0", "version_1"}


def test_texts_are_cut_where_they_say_least(opened):
    page = opened([])
    assert page.js("return [0.25, 119, 120, 7199, 7200, 12240].map(duration)") == [
        *("0.25 s", "119 s", "2 min", "120 min", "2.0 h", "3.4 h")
    ]
    assert page.js("return middle('abcdefghij', 6)") == "ab…hij"
    assert page.js("return [...tails(['a.lr', 'b.lr', 'model.size', 'lr']).values()]") == ["a.lr", "b.lr", "size", "lr"]
    names = "['a-very-long-name-of-an-experiment-lr0.1-seed0', 'a-very-long-name-of-an-experiment-lr0.01-seed0']"
    folders = "['lightning_logs/version_0', 'lightning_logs/version_1']"
    assert page.js(f"return [{names}, {folders}, ['lr=1', 'lr=2'], ['one'], []].map(sharedStart)") == [34, 15, 0, 0, 0]


def test_the_best_run_is_first_and_runs_of_one_name_are_told_by_their_group(opened):
    runs = grid()[:4]
    for n, each in enumerate(runs):
        each.group, each.name = f"lr={n // 2}", f"fold {n % 2}"
    page = opened(runs, target="val/acc")
    (titles, *rows) = table(page)
    assert titles[1][0] == "best val/acc ▼"
    values = [float(row[1][0]) for row in rows]
    assert values == sorted(values, reverse=True)
    best = max(runs, key=lambda each: each.curves["val/acc"].values.max())
    assert page.js("return document.querySelector('#headline button').textContent") == f"{best.group}: {best.name}"
