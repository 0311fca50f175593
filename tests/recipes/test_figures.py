"""The table of the lecture's figures: from the newest runs, and rows of claims without a run stay."""

import json
import os
import runpy
import sys

import pytest

from tests.process import ROOT

SCRIPT = ROOT / "recipes/reproduce/figures.py"


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Run the script in an empty folder, in this process: nothing in it needs torch."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["figures.py", *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def put(folder, age, *claims):
    """A run, with its claims of figure 2."""
    (folder).mkdir(parents=True)
    names = ("figure", "claim", "measured", "verdict", "command")
    figures = [dict(zip(names, (2, text, said, "holds", "python x.py"), strict=True)) for text, said in claims]
    (folder / "results.json").write_text(json.dumps({"figures": figures}))
    os.utime(folder / "results.json", (age, age))


def test_the_newest_measurement_of_a_claim_counts(write, tmp_path, capsys):
    put(tmp_path / "runs/x", 200, ("calmer", "4 +- 1"))
    put(tmp_path / "runs/x-2", 100, ("calmer", "3 +- 1"), ("easier", "8 +- 1"))
    (tmp_path / "runs/quickstart").mkdir()
    (tmp_path / "runs/quickstart/results.json").write_text('{"metrics": {}}')
    write()
    lines = capsys.readouterr().out.splitlines()
    assert "| 2 | Before and after normalization | calmer | 4 ± 1 | **holds** | `python x.py` |" in lines
    assert "| 2 | Before and after normalization | easier | 8 ± 1 | **holds** | `python x.py` |" in lines
    assert [line for line in lines if "| 7 |" in line] == [
        "| 7 | Random search against grid search | | not yet measured | | |"
    ]
    assert len(lines) == 2 + 8 + 1


def test_rows_of_claims_without_a_run_stay(write, tmp_path, capsys):
    file = tmp_path / "page.md"
    file.write_text(
        "# Gallery\n<!-- figures -->\n| 6 | Early | x | 1 | y | z |\n| 2 | Before | easier | 8 | y | z |\n"
        "| 2 | Before | calmer | 8 | y | z |\n| 7 | Search | | not yet measured | | |\n<!-- end of figures -->\nrest\n"
    )
    put(tmp_path / "runs/x", 100, ("calmer", "3 +- 1"))
    write("--write", "page.md")
    text = file.read_text()
    assert text.startswith("# Gallery\n<!-- figures -->\n| | Figure |")
    assert text.endswith("|\n<!-- end of figures -->\nrest\n")
    assert "\n| 6 | Early | x | 1 | y | z |\n" in text
    assert "| calmer | 3 ± 1 |" in text
    assert "\n| 2 | Before | easier | 8 | y | z |\n" in text
    assert "| calmer | 8 |" not in text
    assert text.count("not yet measured") == 6  # 1, 3, 4, 5, 7, 8
    assert "page.md: figures 2 from runs" in capsys.readouterr().out
    write("--write", "page.md")
    assert file.read_text() == text


def test_a_file_without_the_marks_is_refused(write, tmp_path, capsys):
    (tmp_path / "page.md").write_text("# Gallery\n")
    with pytest.raises(SystemExit):
        write("--write", "page.md")
    assert "must name a file with <!-- figures -->" in capsys.readouterr().err


def test_the_gallery_has_a_row_for_each_figure():
    figures = runpy.run_path(str(SCRIPT))["FIGURES"]
    page = (ROOT / "recipes/README.md").read_text()
    for number, title in figures.items():
        assert f"\n| {number} | {title} |" in page
