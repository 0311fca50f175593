import json
import threading

import numpy as np
import pytest
from scipy import stats

from lightning_trainingkit.dashboards.page.page_data import page_data
from lightning_trainingkit.dashboards.page.render import render
from lightning_trainingkit.dashboards.page.serving import PageServer
from lightning_trainingkit.dashboards.panels import command_center
from lightning_trainingkit.dashboards.read.record import Curve
from tests.dashboards.browser import Page, log_in
from tests.dashboards.made import grid, run

pytestmark = pytest.mark.slow

SECTIONS = ["Loss", "Accuracy", "Learning rate", "Checks", "Hyperparameters", "Averaging", "Runs", "Other metrics"]


@pytest.fixture
def page(opened):
    return opened(grid())


def with_others():
    runs = grid()
    for each in runs:
        each.curves["my/metric"] = each.curves["train/acc"]
    return runs


def test_every_section_draws_without_an_error_or_a_network(opened):
    page = opened(with_others(), skipped={"/runs/broken.wandb": "it is empty."})
    assert page.js("return [...document.querySelectorAll('section h2')].map((h) => h.textContent)") == SECTIONS
    for panel in page.js("return [...panels.keys()]"):
        page.show(panel)
        drawn = "return panels.get(arguments[0]).figure.querySelectorAll(%s).length"
        assert page.js(drawn % "'path.js-line, .points path, .bars path, canvas, tbody tr'", panel) > 0, panel
    assert "/runs/broken.wandb: it is empty." in page.js("return document.getElementById('skipped').textContent")
    assert page.problems() == []


def test_search_and_boxes_change_what_is_drawn(page):
    assert len(page.lines("curves val/loss")) == 12
    page.choose("search", "lr=0.0003")
    assert len(page.lines("curves val/loss")) == 3
    page.choose("search", "LARGE sgd")
    assert len(page.lines("curves val/loss")) == 2
    page.show("table All runs")
    assert len(page.js("return [...document.querySelectorAll('[data-panel^=table] tbody tr')]")) == 2
    page.choose("search", "")
    page.js("document.querySelector('#runs input[data-run]').click()")
    page.settle()
    assert len(page.lines("curves val/loss")) == 11
    page.js("document.querySelector('#runs fieldset label.group input').click()")
    page.settle()
    assert len(page.lines("curves val/loss")) == 12
    page.js("document.querySelector('#runs fieldset label.group input').click()")
    page.settle()
    assert len(page.lines("curves val/loss")) == 6


def test_colours_follow_a_setting(page):
    by_group = {colour for colour, _ in page.lines("curves val/loss")}
    assert len(by_group) == 2
    page.choose("colour", "=lr")
    by_rate = [colour for colour, _ in page.lines("curves val/loss")]
    assert len(set(by_rate)) == 4
    assert by_rate[0] == by_rate[4] == by_rate[8]
    assert "logarithmic" in page.js("return document.getElementById('scale').textContent")
    page.choose("colour", "=optimizer")
    assert len({colour for colour, _ in page.lines("curves val/loss")}) == 2
    assert page.js("return document.getElementById('scale').textContent.trim().split(/\\s+/)") == ["SGD", "AdamW"]
    assert len(set(page.dots("curves train/loss"))) == 2


def roughness(path):
    """How much a drawn line goes up and down."""
    heights = [float(point.split(",")[1]) for point in path[1:].split("L")]
    return float(np.abs(np.diff(heights, 2)).sum())


def test_the_moving_average_is_drawn_over_real_points(page):
    page.choose("smoothing", 0)
    raw = page.lines("curves train/loss")
    shown = page.js("return panels.get('curves train/loss').plot.data[0].y")
    assert sorted(shown) == pytest.approx(
        sorted(np.concatenate([r.curves["train/loss"].values for r in grid()])), rel=1e-6
    )
    page.choose("smoothing", 20)
    smooth = page.lines("curves train/loss")
    assert roughness(smooth[0][1]) < 0.3 * roughness(raw[0][1])
    assert page.js("return panels.get('curves train/loss').plot.data[0].y") == shown
    line = page.js("return panels.get('curves train/loss').plot.data[1].y")
    values = grid()[0].curves["train/loss"].values
    reach = [min(6, i, 59 - i) for i in range(60)]
    assert line == pytest.approx([values[i - r : i + r + 1].mean() for i, r in enumerate(reach)], rel=1e-5)


def test_log_axes_change_the_drawing_and_its_scale(page):
    kind = "return panels.get('curves val/loss').plot._fullLayout[arguments[0]].type"
    assert [page.js(kind, "yaxis"), page.js(kind, "xaxis")] == ["log", "linear"]  # losses begin so
    before = page.lines("curves val/loss")
    page.press("curves val/loss", "log y")
    assert page.js(kind, "yaxis") == "linear"
    assert page.lines("curves val/loss") != before
    page.press("curves val/loss", "log y")
    assert page.lines("curves val/loss") == before
    page.press("curves val/loss", "log x")
    assert page.js(kind, "xaxis") == "log"
    page.press("curves val/loss", "log x")
    assert page.lines("curves val/loss") == before


def test_bands_are_mean_and_deviation_of_each_group(page):
    page.choose("bands", True)
    drawn = page.js("return panels.get('curves val/loss').plot.data.map((t) => [t.name, t.x, t.y])")
    assert [name for name, _, _ in drawn] == ["deviation", "small", "deviation", "large"]
    members = [r.curves["val/loss"] for r in grid() if r.group == "small"]
    averaged = page.js(
        "return view.runs.slice(0, 6).map((r) => numbers.average(r.curves['val/loss'].means, 0.05, []).y)"
    )
    at = [np.interp(drawn[1][1], curve.steps, y) for curve, y in zip(members, averaged, strict=True)]
    assert drawn[1][2] == pytest.approx(np.mean(at, axis=0), rel=1e-5)
    upper = drawn[0][2][:200]
    assert upper == pytest.approx(np.mean(at, axis=0) + np.std(at, axis=0, ddof=1), rel=1e-5)


def test_bands_say_of_how_many_runs_they_are_and_stay_on_a_logarithmic_axis(opened):
    runs = [run(n, group="small", steps=60 if n else 20) for n in range(3)]
    for each, value in zip(runs, (0.01, 0.01, 3.0), strict=True):  # the deviation is more than the mean; one ends early
        each.curves["val/loss"].values[:] = value
    page = opened(runs)
    page.choose("bands", True)
    page.show("curves val/loss")
    band, mean = page.js("return panels.get('curves val/loss').plot.data.map((t) => [t.y, t.text || []])")
    assert min(band[0]) == pytest.approx(0.01)
    assert (mean[1][0], mean[1][-1]) == ("small, mean of 3", "small, mean of 2")
    assert any("After the end of a run" in text for text in page.texts("curves val/loss"))


def test_without_smoothing_a_line_goes_through_the_real_points(opened):
    runs = [run(n, steps=5000) for n in range(2)]
    for each in runs:
        each.curves["train/loss"].values[:] = np.where(np.arange(5000) % 2, 3.0, 1.0)
        each.curves["lr-SGD"].values[:] = np.where(np.arange(5000) % 2, 0.9, 0.1)
    page = opened(runs)
    page.choose("smoothing", 0)
    for panel, ends in (("curves train/loss", [1, 3]), ("curves lr-SGD", [0.1, 0.9])):
        page.show(panel)
        line = page.js("return panels.get(arguments[0]).plot.data[1].y", panel)
        assert len(line) > 1000
        assert [min(line), max(line)] == pytest.approx(ends)


def test_a_gap_has_a_dot_where_the_rarer_metric_has_a_value(opened):
    (one,) = runs = [run(0)]
    one.curves["val/acc"] = Curve(np.array([0.0, 300.0]), np.array([0.25, 0.5]))
    one.curves["train/acc"] = Curve(np.arange(0, 600.0, 10), np.full(60, 0.75))
    page = opened(runs)
    page.show("gap Training above validation")
    found = page.js("const {x, y} = panels.get('gap Training above validation').plot.data[0]; return [x, y]")
    assert found == [[0, 300], [0.5, 0.25]]


def test_a_metric_with_one_value_is_a_dot_and_a_target_of_ones_own_is_drawn(opened):
    runs = grid()
    for each in runs:
        each.curves = {"val/f1": Curve(np.array([7.0]), np.array([each.config["lr"]]))}
    page = opened(runs, target="val/f1", better="max")
    assert len(page.dots("curves val/f1")) == 12
    assert page.js("return view.data.better") == "max"
    assert page.js("return view.ranked()[0].best") == 0.03


def test_what_a_logarithmic_axis_hides_is_said(opened):
    runs = grid()
    runs[0].curves["val/loss"].values[2] = -1.0
    page = opened(runs)
    assert not any("not shown" in text for text in page.texts("curves val/loss"))
    page.press("curves val/loss", "log y")
    assert "1 point with a value of 0 or less not shown: log y." in page.texts("curves val/loss")
    page.press("curves val/loss", "log x")
    assert any("12 points with a step of 0 or less not shown: log x." in text for text in page.texts("curves val/loss"))


def test_importance_counts_the_runs_of_each_setting(opened):
    runs = [run(n, 0.001 * 2 ** (n % 6)) for n in range(25)]
    for n, each in enumerate(runs[:6]):
        each.config["rare"] = n % 2
    page = opened(runs)
    words = page.texts("importance What each setting explains")
    assert {"rare (n = 6)", "lr"} <= set(words)
    assert any("Below 20 runs this is a guess." in text for text in words)


def test_settings_that_all_share_are_found(opened):
    runs = grid()
    for each in runs:
        each.config["seed"] = 1
    runs.append(run(50, job_type="tta", curves={}, config={}))
    page = opened(runs)
    page.choose("search", "seed=1")
    assert page.js("return view.found().length") == 12


def test_what_is_no_number_is_a_gap_with_a_mark(opened):
    runs = grid()
    values = runs[0].curves["train/loss"].values
    values[30], values[40] = np.nan, np.inf
    page = opened(runs)
    assert len(page.lines("curves train/loss")) == 12 + 2  # a path for each part
    assert "✕ marks Infinity, NaN; the line is broken there." in page.texts("curves train/loss")
    marks = page.js("return panels.get('curves train/loss').plot.data.at(-1)")
    assert (marks["x"], marks["y"], marks["marker"]["symbol"]) == ([300, 400], [0.02, 0.98], "x")


HOSTILE = (
    "<img src=x onerror=window.hacked=1>",
    "</script><script>window.hacked=2</script>",
    "\"'`;window.hacked=3//",
    "<b>&lt;b&gt;</b> %{x} ${hacked} {{data}}",
    "\U0001f9ea\U0001f680 name",
    "<a href='javascript:window.hacked=4'>x</a>" + "y" * 10_000,
)


def test_evaluations_are_beside_the_best_trainings_however_bad_they_are(opened):
    runs = [run(n, 0.003 * 2**n) for n in range(20)]
    runs += [run(50, name="views", job_type="tta", curves={}, config={}, summary={"test/acc": 0.1})]
    page = opened(runs)
    words = page.texts("scores Test accuracy")
    assert "views (tta)" in words
    assert "lr=0.003" in words
    assert "12 of 21: evaluations first, then the best." in words
    assert len(page.dots("scores Test accuracy")) == 12


def test_a_setting_that_a_run_lacks_is_apart_from_all_values(opened):
    runs = grid()
    for each in runs[:3]:
        del each.config["lr"]
    page = opened(runs)
    page.show("parallel All settings of each run")
    axes = page.js("return panels.get('parallel All settings of each run').plot.data[0].dimensions")
    (rates,) = [axis for axis in axes if axis["label"] == "lr"]
    assert rates["ticktext"] == ["none", "0.0003", "0.001", "0.01", "0.03"]
    none, lowest = rates["tickvals"][:2]
    assert none < lowest
    assert rates["values"][:3] == [none] * 3
    assert none not in rates["values"][3:]


def test_hostile_names_and_settings_are_text(opened):
    runs = [
        run(
            n, 0.01 * (n + 1), name=text, group=text, tags=[text], job_type=text, project=text, note=text,
            config={"lr": 0.01 * (n + 1), text: text if n % 2 else "a", f"k{n}": text, "shared": HOSTILE[n % 2]},
        )
        for n, text in enumerate(HOSTILE)
    ]  # fmt: skip
    for each in runs:
        each.curves |= dict.fromkeys(HOSTILE, each.curves["val/acc"])
    page = opened(runs, skipped={HOSTILE[0]: HOSTILE[1]})
    for panel in page.js("return [...panels.keys()]"):
        page.show(panel)
    for colour in page.js("return [...document.getElementById('colour').options].map((option) => option.value)"):
        page.choose("colour", colour)
    assert page.js("return window.hacked") is None
    assert page.js("return document.querySelectorAll('img, main a, main b, aside b, script').length") == 3  # its own
    shown = page.js("return [...document.querySelectorAll('#runs label:not(.group) .name')].map((n) => n.textContent)")
    assert shown[:5] == list(HOSTILE[:5])
    assert len(shown[5]) == 120
    page.choose("colour", "run")
    assert any(HOSTILE[0][:10] in text for text in page.texts("scores Test accuracy"))
    assert page.js("return document.documentElement.scrollWidth <= window.innerWidth + 1")
    assert page.problems() == []


@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString", "hasOwnProperty"])
def test_names_that_javascript_knows_are_names(opened, name):
    runs = grid()
    runs[0].curves[name] = runs[0].curves["val/acc"]
    runs[1].config[name] = 3
    runs[2].config[name] = 4
    page = opened(runs)
    assert len(page.lines(f"curves {name}")) == 1
    for panel in page.js("return [...panels.keys()]"):
        page.show(panel)
    page.choose("colour", f"={name}")
    assert page.problems() == []


def test_secrets_stay_off_the_page(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    runs = grid()
    for n, each in enumerate(runs):
        each.config |= {
            "wandb.api_key": f"hunter{n}",
            "db_password": f"hunter{n}",
            "note": f"{n}" + "f" * 40,
            "tokens": n,
            "token_dim": 2 * n,
            "author": f"me{n % 2}",
            "sort_key": f"by{n % 2}",
            "key_dim": 3 * n,
            "openai_key": f"hunter{n}",
            "auth": f"hunter{n}",
            "aws.private_key": f"hunter{n}",
            "hf.token": f"hunter{n}",
            "storage": f"postgresql://me:hunter{n}@db/x",
            "header": f"Bearer hunter{n}",
        }
    text = json.dumps(page_data(runs, command_center()))
    assert "hunter" not in text
    assert "f" * 40 not in text
    assert all(f'"{name}"' in text for name in ("tokens", "token_dim", "author", "sort_key", "key_dim"))


def test_no_runs_and_runs_without_anything_make_a_page(opened):
    page = opened([])
    assert page.js("return document.getElementById('headline').textContent").strip() == "No runs yet."
    assert page.js("return document.querySelector('main').textContent").count("No runs yet.") == len(SECTIONS) - 1
    page = opened(
        [run(0, curves={}, summary={}, config={}), run(1, curves={"a": Curve(np.array([1.0]), np.array([2.0]))})]
    )
    assert page.js("return document.querySelectorAll('#runs input[data-run]').length") == 2
    assert page.problems() == []


def test_the_best_fifty_are_drawn_first_and_all_on_demand(opened):
    page = opened([run(n, 0.003 * 1.05**n, name=f"n{n}") for n in range(60)])
    assert len(page.lines("curves val/loss")) == 50
    assert page.js("return document.getElementById('count').textContent") == "50 of 60 runs drawn"
    best = page.js("return view.drawn().map((run) => run.best)")
    assert max(best) <= min(page.js("return view.ranked().slice(50).map((run) => run.best)"))
    page.js("document.getElementById('all').click()")
    page.settle()
    assert len(page.lines("curves val/loss")) == 60


def test_the_view_survives_a_reload(page):
    page.choose("colour", "=lr")
    page.choose("search", "small")
    page.press("curves val/loss", "log y")
    before = page.lines("curves val/loss")
    page.browser.refresh()
    page.loaded()
    page.settle()
    assert page.lines("curves val/loss") == before
    assert page.js("return document.getElementById('search').value") == "small"


def test_a_reload_keeps_what_was_chosen_and_draws_what_is_new(opened):
    page = opened(grid())
    page.js("document.getElementById('none').click()")
    page.settle()
    page.browser.refresh()
    page.loaded()
    assert page.js("return view.drawn().length") == 0
    page = opened([*grid(), run(99, name="new")])  # the same file, written anew
    assert page.js("return view.drawn().map((each) => each.name)") == ["new"]


def test_a_served_page_follows_what_changes_in_a_panel(browser):
    runs = [run(n, 0.01, config={"lr": [0.1, 0.2][n % 2]}) for n in range(4)]
    data = {"now": page_data(runs, command_center())}

    def collect():
        if isinstance(data["now"], Exception):
            raise data["now"]
        return data["now"]

    with PageServer(collect, lambda found: render(found, follow=0.2), seconds=0.0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            log_in(browser, server)
            page = Page(browser, server.url)
            page.show("dots One dot a run")
            data["now"] = OSError("the folder is gone")
            page.until("return document.getElementById('made').textContent.includes('no answer')")
            for n, each in enumerate(runs):
                each.config = {"wd": n}
                each.curves["val/loss"].values[1] = -1.0
            data["now"] = page_data(runs, command_center())
            page.until("return view.data.hyperparameters[0] === 'wd'")
            assert not page.js("return document.getElementById('made').textContent.includes('no answer')")
            page.show("dots One dot a run")
            title = "return panels.get('dots One dot a run').plot._fullLayout.xaxis.title.text"
            assert page.js(title) == "wd"
            assert page.js("return panels.get('dots One dot a run').figure.querySelector('select').value") == "wd"
            page.show("curves val/loss")
            assert page.js("return panels.get('curves val/loss').plot._fullLayout.yaxis.type") == "linear"
        finally:
            server.shutdown()
            thread.join()


def test_a_served_page_takes_new_rows_over_and_keeps_the_view(browser):
    runs = grid()
    data = {"now": page_data(runs, command_center())}
    with PageServer(lambda: data["now"], lambda found: render(found, follow=0.3), seconds=0.0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            log_in(browser, server)
            page = Page(browser, server.url)
            page.choose("search", "small")
            page.press("curves val/loss", "log y")
            assert len(page.lines("curves val/loss")) == 6
            page.js("window.same = 1")
            later = grid()
            later[0].curves["val/loss"].values[3] = 9.0
            later.append(run(99, 0.02, group="small", name="new"))
            data["now"] = page_data(later, command_center())
            page.until("return view.runs.length === 13")
            page.settle()
            assert len(page.lines("curves val/loss")) == 7
            assert 9.0 in page.js("return panels.get('curves val/loss').plot.data[0].y")
            assert page.js("return panels.get('curves val/loss').plot._fullLayout.yaxis.type") == "linear"
            assert page.js("return [window.same, document.getElementById('search').value]") == [1, "small"]
        finally:
            server.shutdown()
            thread.join()
    assert [text for text in page.problems() if server.url not in text] == []


def test_a_served_page_that_was_opened_before_any_run_says_what_the_runs_lack(browser):
    runs = grid()
    for each in runs:
        each.curves = {"val_f1": each.curves["val/acc"]}
    data = {"now": page_data([], command_center())}
    with PageServer(lambda: data["now"], lambda found: render(found, follow=0.3), seconds=0.0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            log_in(browser, server)
            page = Page(browser, server.url)
            data["now"] = page_data(runs, command_center("val_f1", ["val_f1"]), "val_f1")
            page.until("return view.runs.length === 12")
            page.settle()
            said = page.js("return document.querySelector('main').textContent")
            assert "No runs yet." not in said
            assert "No run has logged a learning rate." in said
            titles = page.js("return [...document.querySelectorAll('h2, nav a')].map((each) => each.textContent)")
            assert titles.count("Scores") == 2
        finally:
            server.shutdown()
            thread.join()


def test_importance_sees_a_u_and_says_how_many_runs_it_rests_on(page):
    words = page.texts("importance What each setting explains")
    assert any("n = 12 runs" in text and "Below 20 runs this is a guess." in text for text in words)
    rates = [r.config["lr"] for r in grid()]
    best = [float(r.curves["val/loss"].values.min()) for r in grid()]
    share, correlation = page.js(
        "return [numbers.importance(...arguments), numbers.spearman(...arguments)]", rates, best
    )
    assert correlation == pytest.approx(stats.spearmanr(rates, best).statistic)
    assert abs(correlation) < 0.6
    assert share > 0.7
    assert share == pytest.approx(epsilon_squared(rates, best))
    draw = np.random.default_rng(0)
    noise = [
        page.js("return numbers.importance(...arguments)", rates, draw.normal(size=12).tolist()) for _ in range(50)
    ]
    assert np.mean(noise) < 0.15
    assert page.js("return numbers.importance([1, 2, 3], [1, 2, 3])") is None


def epsilon_squared(xs, ys):
    ranks = stats.rankdata(ys)
    groups = [ranks[np.array(xs) == x] for x in sorted(set(xs))]
    f = stats.f_oneway(*groups).statistic
    k, n = len(groups), len(ys)
    return ((f - 1) * (k - 1)) / ((f - 1) * (k - 1) + n - 1) * (n - 1) / (n - 1) if f > 1 else 0.0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes_change_the_page_and_its_pictures(page, theme):
    page.choose("theme", theme)
    page.show("curves val/loss")
    back = page.js("return getComputedStyle(document.body).backgroundColor")
    ink = page.js("return document.querySelector('[data-panel=\"curves val/loss\"] .xtick text').style.fill")
    light = [sum(int(part) for part in colour[4:-1].split(",")) > 384 for colour in (back, ink)]
    assert light == ([True, False] if theme == "light" else [False, True])


def test_a_phone_shows_it_without_scrolling_sideways(browser, opened):
    browser.set_window_size(500, 800)  # Chromium's smallest
    try:
        page = opened(grid())
        assert not page.js("return document.getElementById('controls').open")
        for panel in page.js("return [...panels.keys()]"):
            page.show(panel)
        assert page.js("return document.documentElement.scrollWidth <= window.innerWidth")
    finally:
        browser.set_window_size(1400, 1000)


def test_everything_is_reached_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    reached = set()
    for _ in range(60):
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(page.js("const e = document.activeElement; return e.id || e.dataset.run || e.textContent.trim()"))
    assert {"colour", "smoothing", "bands", "theme", "search", "none", "log x", "log y", "PNG"} <= reached
    assert {r["key"] for r in page.js("return view.runs.map((run) => ({key: run.key}))")} <= reached
    page.js("document.querySelector('#runs input[data-run]').focus()")
    page.browser.switch_to.active_element.send_keys(Keys.SPACE)
    page.settle()
    assert len(page.lines("curves val/loss")) == 11
    for place in ("#runs .group input", "table button"):
        page.show("table All runs")
        page.js("document.querySelector(arguments[0]).focus()", place)
        page.browser.switch_to.active_element.send_keys(Keys.SPACE)
        page.settle()
        assert page.js("return document.activeElement === document.querySelector(arguments[0])", place)


def test_each_panel_has_a_name_and_controls_have_labels(page):
    assert page.js("return [...document.querySelectorAll('figure')].every((f) => f.querySelector('h3').textContent)")
    nameless = page.js(
        "return [...document.querySelectorAll('main button, aside button, select, input')]"
        ".filter((c) => !c.textContent.trim() && !c.labels?.length && !c.ariaLabel).map((c) => c.outerHTML)"
    )
    assert nameless == []
