"""Figures: the lecture's eight pictures, each with its claims, the measurements and the verdicts, as a Markdown table.

The scripts beside this one write claims into their ``results.json``. This script collects them; of a claim that several
runs have measured, the newest counts.

Expected: the table of recipes/README.md
Cost:     1 s
Command:  python recipes/reproduce/figures.py
          python recipes/reproduce/figures.py --write recipes/README.md
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

FIGURES = {
    1: "Six layers of 4096",
    2: "Before and after normalization",
    3: "Sigmoid's gradient, the zig-zag",
    4: "ReLU against tanh and sigmoid",
    5: "Ensembles of 1 to K",
    6: "Early stopping",
    7: "Random search against grid search",
    8: "Training side and testing side",
}
HEAD = "| | Figure | Claim in the lecture | Measured here | Verdict | Command |\n|---|---|---|---|---|---|"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"


def main() -> None:
    """Print the table, or put it into a Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", default="runs", help="folder of the runs (%(default)s)")
    help_text = "Markdown file whose table to refresh, between two marks; claims without a run keep their rows"
    parser.add_argument("--write", type=Path, metavar="FILE", help=help_text)
    args = parser.parse_args()
    found = collect(args.runs)
    if args.write is None:
        print(table(found, {}))
        return
    before, begun, rest = args.write.read_text(encoding="utf-8").partition(BEGIN)
    old, ended, after = rest.partition(END)
    if not begun or not ended:
        parser.error(f"--write must name a file with {BEGIN.strip()} and {END}, got {args.write}. Add both lines.")
    text = table(found, earlier_rows(old))
    args.write.write_text(f"{before}{begun}{text}\n{ended}{after}", encoding="utf-8")
    print(f"Wrote {args.write}: figures {', '.join(map(str, sorted(found))) or 'none'} from {args.runs}.")


def collect(runs: Path) -> dict[int, list[dict[str, Any]]]:
    """The claims of each figure, in the order of the scripts."""
    newest: dict[tuple[int, str], dict[str, Any]] = {}
    for file in sorted(runs.glob("*/results.json"), key=lambda path: path.stat().st_mtime):
        for each in json.loads(file.read_text(encoding="utf-8")).get("figures", []):
            newest[each["figure"], each["claim"]] = each
    found: dict[int, list[dict[str, Any]]] = {}
    for (figure, _), each in newest.items():
        found.setdefault(figure, []).append(each)
    return found


def earlier_rows(text: str) -> dict[int, list[str]]:
    """The rows of an earlier table by figure."""
    found: dict[int, list[str]] = {}
    for line in text.splitlines():
        if number := re.match(r"\| (\d+) ", line):
            found.setdefault(int(number[1]), []).append(line)
    return found


def table(found: dict[int, list[dict[str, Any]]], earlier: dict[int, list[str]]) -> str:
    """The Markdown table: a row for each claim, new or earlier. A figure without claims says so."""
    lines = [HEAD]
    for number, title in FIGURES.items():
        rows = [
            f"| {number} | {title} | {each['claim']} | {each['measured'].replace('+-', '±')} | **{each['verdict']}** "
            f"| `{each['command']}` |"
            for each in found.get(number, [])
        ]
        claims = {each["claim"] for each in found.get(number, [])}
        rows += [row for row in earlier.get(number, []) if row.split(" | ")[2] not in claims and "not yet" not in row]
        lines += rows or [f"| {number} | {title} | | not yet measured | | |"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
