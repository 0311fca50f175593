"""Printing: what the PDF that Chromium makes holds."""

import base64
import io

import pytest

from tests.dashboards.made import grid

pytestmark = pytest.mark.slow


@pytest.fixture
def page(opened):
    runs = grid()
    for each in runs:
        each.curves["my/metric"] = each.curves["train/acc"]
    return opened(runs, skipped={"/runs/broken.wandb": "it is empty."})


def printed(page):
    pypdf = pytest.importorskip("pypdf")
    pages = pypdf.PdfReader(io.BytesIO(base64.b64decode(page.browser.print_page()))).pages
    # Each dot is a form of its own, of which pypdf reads some thousands; their text is all there is to read.
    return [(sheet.extract_text().replace("ﬁ", "fi"), sheet) for sheet in pages]


def test_the_pdf_holds_every_panel_though_none_was_scrolled_to(page):
    page.choose("smoothing", 0)
    page.choose("theme", "dark")
    titles = page.js("return [...panels.values()].map((panel) => panel.title)")
    steps = page.js("return [...panels.values()].filter((p) => ['curves', 'gap'].includes(p.kind)).length")
    assert page.js("return [...panels.values()].filter((panel) => panel.stale).length") > 3
    sheets = printed(page)
    text = "\n".join(words for words, _ in sheets)
    lines = text.splitlines()
    assert all(title in text for title in titles)
    assert lines.count("step") == steps  # the axis of each picture of curves
    axes = ("best val/loss", "variance explained, %", "test/acc", "test/loss", "test/ece", "weight_decay")
    assert all(axis in lines for axis in axes)
    # The parallel coordinates are neither text nor paths.
    images = [image.image.convert("RGB") for _, sheet in sheets for image in sheet.images]
    assert any(len(image.getcolors(image.width * image.height)) > 10 for image in images)
    assert not any(control in text for control in ("log x", "PNG", "Draw all", "Colour by", "Moving average"))
    assert "12 runs, all finished." in text
    assert text.count("lr=0.0003") >= 3  # the list, which says what each line is, and the table
    assert page.problems() == []


def test_what_is_printed_fits_a_sheet_and_the_page_is_as_before(page):
    page.choose("theme", "dark")
    before = page.lines("curves val/loss")
    page.js("dispatchEvent(new Event('beforeprint'))")
    found = page.js(
        "const over = (e, f) => Math.max(e.right - f.right, e.bottom - f.bottom);"
        "const box = (e) => e.getBoundingClientRect();"
        "const drawn = (p) => [...p.plot.querySelectorAll('.main-svg, canvas, table')];"
        "return [...panels.values()].map((p) => [p.id, Math.max(...drawn(p).map((e) => over(box(e), box(p.figure))))])"
    )
    assert {panel: over for panel, over in found if not over <= 1} == {}
    assert page.js("return document.body.scrollWidth") <= 700
    assert page.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.js("dispatchEvent(new Event('afterprint'))")
    page.settle()
    assert page.lines("curves val/loss") == before
    assert page.js("return document.documentElement.dataset.theme") == "dark"
