"""How the page looks: what is told apart, what is cut, what overlaps."""

import itertools
import time

import numpy as np
import pytest

from lightning_trainingkit.dashboards.read.record import Curve
from tests.dashboards.made import grid, run

pytestmark = pytest.mark.slow

LONG = "validation/multiclass_average_precision_macro_over_all_the_classes_there_are"


def test_forty_runs_are_told_apart(opened):
    page = opened([run(n, 0.003 * 1.05**n, group="", name=f"n{n}") for n in range(40)])
    page.show("curves val/loss")
    look = "return [...panels.get('curves val/loss').figure.querySelectorAll('%s')].map((p) => %s)"
    dashes = page.js(look % (".scatterlayer path.js-line", "p.style.stroke + ' ' + p.style.strokeDasharray"))
    assert len(dashes) == 40
    assert len(set(dashes)) == 8 * 4
    dots = page.js(look % (".scatterlayer .points path", "p.style.fill + ' ' + p.getAttribute('d')"))
    assert len(set(dots)) == 40
    swatches = page.js("return [...document.querySelectorAll('#runs .swatch')].map((s) => s.innerHTML)")
    assert len(set(swatches)) == 40
    each = "panels.get('dots One dot a run').figure.querySelectorAll('.scatterlayer .points path')"
    page.show("dots One dot a run")
    assert len(set(page.js(f"return [...{each}].map((p) => p.style.fill + p.getAttribute('d'))"))) == 40


def ticks(page, panel, axis):
    page.show(panel)
    return page.js(
        "return [...panels.get(arguments[0]).figure.querySelectorAll(arguments[1])].map((text) => text.textContent)",
        panel,
        f".{axis}tick text",
    )


AXES = {  # lowest and highest value, and labels that must be there
    "lr-a": (0.3, 2.6, {"0.5", "1", "2"}),
    "lr-b": (0.04, 2, {"0.05", "0.1", "0.2", "0.5", "1", "2"}),
    "lr-c": (1e-5, 0.008, {"1e-5", "1e-4", "1e-3", "5e-3"}),
    "lr-d": (1e-7, 0.03, {"0.01", "1e-3", "1e-7"}),
    "lr-e": (0.1, 0.1, {"0.1"}),
}


def test_a_logarithmic_axis_has_whole_numbers(opened):
    def logarithmic(data):
        (section,) = (each for each in data["sections"] if each["title"] == "Learning rate")
        for panel in section["panels"]:
            panel["log_y"] = True

    (one,) = runs = [run(0)]
    one.curves = {name: Curve(np.arange(60.0), np.geomspace(high, low, 60)) for name, (low, high, _) in AXES.items()}
    page = opened(runs, logarithmic)
    for name, (low, high, shown) in AXES.items():
        found = [text.replace("\u2212", "-") for text in ticks(page, f"curves {name}", "y")]
        assert shown <= set(found), name
        assert len(found) == len(set(found)) <= 13, name
        digits = {text.split("e")[0].strip("0.") for text in found}
        assert digits <= {"1", "2", "5"} or high / low < 10, (name, found)
        heights = page.js(
            "return [...panels.get(arguments[0]).figure.querySelectorAll('.ytick text')]"
            ".map((t) => t.getBoundingClientRect()).map((box) => [box.top, box.bottom]).sort((a, b) => a[0] - b[0])",
            f"curves {name}",
        )
        assert all(below[0] >= above[1] - 2 for above, below in itertools.pairwise(heights)), (name, found)


OVERLAPS = """
const found = [], box = (e) => e.getBoundingClientRect();
const all = [...arguments[0].querySelectorAll('.main-svg text')];
const texts = all.filter((t) => t.textContent.trim() && box(t).width);
const outer = box(arguments[0]), caption = box(arguments[0].querySelector('figcaption'));
texts.forEach((a, i) => {
  const one = box(a);
  const cut = one.left < outer.left - 1 || one.right > outer.right + 1 || one.top < outer.top;
  if (cut) found.push(['cut', a.textContent]);
  if (caption.height && one.bottom > caption.top + 8) found.push(['caption', a.textContent]);
  for (const b of texts.slice(i + 1)) {
    const other = box(b), x = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    const y = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
    if (x > 2 && y > 3) found.push([a.textContent, b.textContent]);
  }
});
return found;
"""


def long_names():
    runs = [run(n, 0.001 * 2 ** (n % 6), name=f"a long name of a run, its seed being {n}") for n in range(8)]
    for n, each in enumerate(runs):
        each.config["model.encoder.layers.attention.number_of_heads_in_each"] = n % 3
        each.curves[LONG] = each.curves["val/acc"]
        each.curves["val/loss"].values[3] = np.nan
    return runs


def crowded(page):
    """Texts that overlap, are cut, or stand in the caption, panel by panel; parallel axes scroll in their box."""
    found = {}
    for panel in page.js("return [...panels.values()].filter((p) => p.kind !== 'table').map((p) => p.id)"):
        page.show(panel)
        figure = page.js("return panels.get(arguments[0]).figure", panel)
        if wrong := [each for each in page.js(OVERLAPS, figure) if "parallel" not in panel or each[0] != "cut"]:
            found[panel] = wrong
    return found


def test_no_label_is_cut_or_covered_on_a_laptop(opened):
    page = opened(long_names(), target=LONG, better="max")
    assert crowded(page) == {}
    grey = page.js("return getComputedStyle(document.getElementById('made')).color")
    assert set(
        page.js("return [...document.querySelectorAll('figcaption')].map((c) => getComputedStyle(c).color)")
    ) == {grey}


def test_a_phone_shows_the_runs_first_and_cuts_nothing(phone, opened):
    page = opened(long_names(), target=LONG, better="max")
    assert crowded(page) == {}
    assert page.js("return document.documentElement.scrollWidth") == 390
    tops = page.js(
        "return ['#headline', '#runs', '.runs table', '[data-panel=\"curves train/loss\"]']"
        ".map((place) => document.querySelector(place).getBoundingClientRect().top)"
    )
    assert tops == sorted(tops)
    assert page.js("const b = document.querySelector('.runs figure .scroll'); return b.scrollWidth > b.clientWidth")
    page.js("document.getElementById('controls').open = true")
    small = page.js(
        "return [...document.querySelectorAll('button, select, #runs label, summary, nav a, #search, #smoothing')]"
        ".filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 40).map((e) => e.outerHTML)"
    )
    assert small == []
    assert page.js("return panels.get('curves train/loss').plot._fullLayout.dragmode") is False


def test_mean_and_deviation_of_many_long_runs_on_a_logarithmic_axis(opened):
    runs = [run(n, steps=2000, group=f"g{n % 3}") for n in range(200)]
    for each in runs:
        each.curves = {"val/loss": Curve(np.arange(2000.0), abs(each.curves["train/loss"].values) + 1e-3)}
    page = opened(runs)
    page.choose("colour", "run")
    page.js("document.getElementById('all').click()")
    page.settle()
    before = time.monotonic()
    page.choose("bands", True)
    page.show("curves val/loss")
    seconds = time.monotonic() - before
    assert page.js("return panels.get('curves val/loss').plot._fullLayout.yaxis.type") == "log"
    assert len(page.lines("curves val/loss")) >= 3
    assert page.js("return panels.get('curves val/loss').plot.data[1].text[0]") == "g0, mean of 67"
    swatches = page.js("return [...document.querySelectorAll('#runs .swatch')].map((s) => s.innerHTML)")
    assert len(set(swatches)) == 3  # the list says whose band is whose
    assert page.problems() == []
    assert seconds < 4  # under 1 s on an idle core
    assert page.js("return numbers.extent(new Array(500000).fill(2))") == [2, 2]


def test_two_panels_with_one_id_are_both_drawn(opened):
    def doubled(data):
        loss = data["sections"][0]
        loss["panels"].append({**loss["panels"][0], "metric": "train/acc"})
        data["sections"].append({**data["sections"][1], "panels": []})

    page = opened(grid(), doubled)
    assert len(page.lines("curves train/loss")) == len(page.lines("curves train/loss #2")) == 12
    assert page.js("return panels.get('curves train/loss #2').plot._fullLayout.yaxis.title.text") == "train/acc"
    assert (
        page.js(
            "const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); return ids.length - new Set(ids).size"
        )
        == 0
    )


@pytest.mark.parametrize("kind", ["one run", "equal names", "only evaluations", "all NaN", "long names"])
def test_odd_projects_are_drawn(opened, kind):
    runs = {
        "one run": lambda: [run(0)],
        "equal names": lambda: [run(n, 0.01 * (n + 1), name="same") for n in range(4)],
        "only evaluations": lambda: [run(n, job_type="tta", curves={}, name=f"views {n}") for n in range(3)],
        "all NaN": lambda: [run(n, 0.01 * (n + 1)) for n in range(3)],
        "long names": lambda: [run(n, 0.01 * (n + 1), name="x" * 300 + str(n)) for n in range(3)],
    }[kind]()
    if kind == "all NaN":
        for each in runs:
            for curve in each.curves.values():
                curve.values[:] = np.nan
    page = opened(runs)
    for panel in page.js("return [...panels.keys()]"):
        page.show(panel)
    page.choose("bands", True)
    page.show("table All runs")
    assert page.js("return document.querySelectorAll('[data-panel^=table] tbody tr').length") == len(runs)
    assert page.js("return document.documentElement.scrollWidth <= window.innerWidth")
    assert page.problems() == []
