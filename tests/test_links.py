"""All links of the Markdown files lead somewhere in this tree: files, pictures, and headings by GitHub's anchors."""

import re
from urllib.parse import unquote

import pytest

from tests.process import ROOT
from tests.readme import FILES

LINK = re.compile(r"\]\(\s*<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\s*\)")  # of images too
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*<?([^>\s]+)", re.MULTILINE)
ATTRIBUTE = re.compile(r"\b(?:src|srcset|href)=\"([^\"\s]+)\"")


def prose(path):
    """The text without blocks and spans of code."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)


def anchors(path):
    """GitHub's anchors of the headings: lower case, no punctuation, spaces as hyphens, a number where two are equal."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    seen = {}
    for heading in re.findall(r"^#{1,6} +(.+?)(?: +#+)?$", text, re.MULTILINE):
        heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link counts by its text
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = seen[anchor] = seen.get(anchor, -1) + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(path):
    text = prose(path)
    targets = [target for pattern in (LINK, REFERENCE, ATTRIBUTE) for target in pattern.findall(text)]
    lost = [target for target in targets if not resolves(path, target)]
    assert not lost, f"{path.relative_to(ROOT)} links to {lost}"


def resolves(path, target):
    if re.match(r"https?://|mailto:", target):
        return True  # the tests ask no network
    name, _, anchor = unquote(target).partition("#")
    to = path.parent / name if name else path
    if name.startswith("/") or not to.exists() or not to.resolve().is_relative_to(ROOT):
        return False
    if not anchor:
        return True
    if to.suffix == ".md":
        return anchor in anchors(to)
    line = re.fullmatch(r"L(\d+)", anchor)
    return to.is_file() and bool(line) and int(line[1]) <= len(to.read_text(encoding="utf-8").splitlines())


def test_anchors_follow_github(tmp_path):
    path = tmp_path / "a.md"
    path.write_text(
        "# `kit`, and *more*!\n## A [link](x.md) & B_c\n## Twice\n```bash\n# no heading\n```\n### Twice ##\n"
    )
    assert anchors(path) == {"kit-and-more", "a-link--b_c", "twice", "twice-1"}
    path.write_text('[a](b.md) `[b](c.md)` ![c](<d.png>)\n<img src="e.png">\n[f]: g.md\n```\n[h](i.md)\n```\n')
    text = prose(path)
    assert [LINK.findall(text), ATTRIBUTE.findall(text), REFERENCE.findall(text)] == [
        ["b.md", "d.png"],
        ["e.png"],
        ["g.md"],
    ]
    assert not resolves(path, "none.md")
    assert not resolves(path, "#none")
