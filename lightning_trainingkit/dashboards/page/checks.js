"use strict";
// The table of checks: what each check says about a run. A sign and a word name the verdict, its colour repeats it.

const SIGNS = { pass: "✓", warn: "!", fail: "✗" };

/** A verdict as a badge, and below it the reason. Texts of a check begin with "pass.", "warn." or "fail.". */
function verdictCell(text) {
  if (!text) return element("td", { className: "verdict" }, element("span", { className: "state", textContent: "–", title: "not checked" }));
  const [, kind = "", reason = text] = text.match(/^(pass|warn|fail)\. ?([^]*)$/) || [];
  const cell = element("td", { className: "verdict", title: clipped(text, 1500) });
  if (kind) cell.append(element("span", { className: `badge ${kind}`, textContent: `${SIGNS[kind]} ${kind}` }));
  cell.append(element("div", { className: "reason", textContent: clipped(reason, view.printing ? 120 : 240) }));
  return cell;
}

/** How bad the worst verdict of a run is: runs with a failed check come first. */
function severity(run) {
  const texts = Object.values(run.checks);
  return ["fail.", "warn."].findIndex((kind) => texts.some((text) => text.startsWith(kind))) + 1 || 3;
}

function drawChecks(panel) {
  const colours = view.colours(), titles = Object.entries(view.data.checks);
  const runs = view.drawn().filter((run) => Object.keys(run.checks).length).sort((a, b) => severity(a) - severity(b));
  const head = element("tr", {}, ...["run", ...titles.map(([, title]) => title)].map((title) => element("th", { scope: "col", textContent: title })));
  const rows = runs.slice(0, ROWS).map((run) => {
    const name = element("td", { title: clipped(run.title, 500) }, swatch(colours.of.get(run.key)), " ", middle(view.short(run.title), 48));
    const row = element("tr", {}, name, ...titles.map(([check]) => verdictCell(run.checks[check])));
    row.classList.toggle("marked", run.key === view.marked);
    return row;
  });
  panel.plot.replaceChildren(element("table", { className: "checks" }, element("thead", {}, head), element("tbody", {}, ...rows)));
  const left = view.drawn().length - runs.length, notes = [];
  if (runs.length > ROWS) notes.push(`The first ${ROWS} of ${runs.length} runs.`);
  if (left) notes.push(`${counted(left, "drawn run has", "drawn runs have")} no check.`);
  panel.caption.textContent = notes.join(" ");
  panel.figure.dataset.drawn = String(Number(panel.figure.dataset.drawn || 0) + 1);
}
