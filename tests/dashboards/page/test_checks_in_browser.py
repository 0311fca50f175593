"""The table of checks, as a person sees it."""

import pytest

from tests.dashboards.made import grid, run

pytestmark = pytest.mark.slow

PANEL = "checks Verdicts"
LONG = "warn. parameters_not_trained in net.0: " + "3 layers are in no optimizer. " * 30
LOOK = """
const badge = [...document.querySelectorAll('.badge')].find((each) => each.classList.contains(arguments[0]));
const style = getComputedStyle(badge);
return [badge.textContent, style.color, style.backgroundColor, style.borderTopStyle];
"""


def checked():
    """Five runs without curves: two with verdicts, one with a long one, two with none."""
    runs = grid()[:5]
    for each in runs:
        each.curves, each.summary = {}, {"val/loss": 0.1}
    runs[1].config |= {
        "check.health": "pass. Nothing wrong.",
        "check.initial_loss": "pass. The loss begins at <b>2.3</b>.",
    }
    runs[2].config |= {"check.health": LONG}
    runs[3].config |= {"check.health": "fail. dead_units in net.1: All units are zero. Use LeakyReLU."}
    return runs


def rows(page):
    page.show(PANEL)
    return page.js(
        "return [...document.querySelectorAll('table.checks tr')].map((row) => "
        "[...row.children].map((cell) => cell.innerText.trim().replace(/\\s+/g, ' ')))"
    )


def test_rows_are_runs_and_the_worst_verdict_comes_first(opened):
    page = opened(checked())
    head, *body = rows(page)
    assert head == ["run", "initial loss", "health"]
    assert [row[0] for row in body] == ["lr=0.03", "lr=0.01", "lr=0.001"]
    assert body[0] == ["lr=0.03", "\u2013", "✗ fail dead_units in net.1"]
    assert body[2] == ["lr=0.001", "✓ pass The loss begins at <b>2.3</b>.", "✓ pass Nothing wrong."]
    page.js("document.querySelectorAll('table.checks tr')[1].querySelector('summary').click()")
    whole = "✗ fail dead_units in net.1 All units are zero. Use LeakyReLU."
    assert rows(page)[1][2] == whole
    page.js("changed()")
    assert rows(page)[1][2] == whole  # a redrawn table keeps what is unfolded
    assert "2 drawn runs have no check." in page.js("return panels.get(arguments[0]).caption.textContent", PANEL)
    page.choose("search", "health=fail")
    assert [row[0] for row in rows(page)[1:]] == ["lr=0.03"]
    assert page.problems() == []


def test_searches_have_their_own_table_among_the_hyperparameters(opened):
    runs = checked()
    runs[4].config |= {
        "search.search": "warn. The best of 8 trials has val/loss 0.1. Train more.",
        "search.edges": "fail. At an end.",
    }
    page = opened(runs)
    page.show("searches Searches")
    table = page.js(
        "return [...panels.get('searches Searches').figure.querySelectorAll('tr')].map((row) => "
        "[...row.children].map((cell) => cell.innerText.trim().replace(/\\s+/g, ' ')))"
    )
    assert table[0] == ["search", "search", "edge of the space"]
    assert table[1][1:] == ["! warn The best of 8 trials has val/loss 0.1.", "✗ fail At an end."]
    assert page.problems() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_verdicts_differ_by_sign_and_word_and_not_by_colour_alone(opened, theme):
    page = opened(checked())
    page.choose("theme", theme)
    page.show(PANEL)
    looks = [page.js(LOOK, kind) for kind in ("pass", "warn", "fail")]
    assert [look[0] for look in looks] == ["✓ pass", "! warn", "✗ fail"]
    assert len({tuple(look[1:]) for look in looks}) == 3
    assert looks[1][3] == "dashed"
    for _, colour, background, _ in looks:  # text against its own background, or the card's
        card = page.js("return getComputedStyle(document.querySelector('figure')).backgroundColor")
        assert contrast(colour, card if background == "rgba(0, 0, 0, 0)" else background) >= 4.5


def contrast(one, other):
    """The contrast of two colours, as WCAG defines it."""

    def luminance(colour):
        channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_on_a_phone_the_table_scrolls_and_the_page_does_not(opened, phone):
    runs = [run(n, name=f"n{n}", config={"check.health": LONG, "check.initial_loss": LONG}) for n in range(20)]
    page = opened(runs)
    page.show(PANEL)
    wide, tall = page.js(
        "const box = document.querySelector('table.checks').closest('.scroll');"
        "return [document.documentElement.scrollWidth <= innerWidth, box.scrollHeight > box.clientHeight]"
    )
    assert wide
    assert tall
