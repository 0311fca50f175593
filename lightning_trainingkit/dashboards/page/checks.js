"use strict";
// Tables of verdicts: what each check says about a run, and the tuning playbook about a search. A sign and a word name
// the verdict, its colour repeats it.

const SIGNS = { pass: "✓", warn: "!", fail: "✗" };

const unfolded = new Set();  // cells whose whole text is shown

/** A verdict as a badge with the first words, and the rest below, folded. Texts begin with "pass.", "warn." or "fail.". */
function verdictCell(text, key) {
  if (!text) return element("td", { className: "verdict" }, element("span", { className: "state", textContent: "–", title: "not checked" }));
  const [, kind = "", reason = text] = text.match(/^(pass|warn|fail)\. ?([^]*)$/) || [];
  // Up to a colon, or the first sentence.
  const [, head, rest = ""] = reason.match(/^([^:]{1,60}): ([^]*)$/) || reason.match(/^([^]*?\.) (?=[A-Z`])([^]*)$/) || [reason, reason];
  const first = [clipped(head, 240)];
  if (kind) first.unshift(element("span", { className: `badge ${kind}`, textContent: `${SIGNS[kind]} ${kind}` }), " ");
  if (!rest) return element("td", { className: "verdict" }, ...first);
  const details = element("details", { open: unfolded.has(key) }, element("summary", {}, element("span", {}, ...first)), clipped(rest, 1500));
  details.ontoggle = () => unfolded[details.open ? "add" : "delete"](key);
  return element("td", { className: "verdict" }, details);
}

/** How bad the worst of some verdicts is: runs with a failed check come first. */
function severity(verdicts) {
  const texts = Object.values(verdicts);
  return ["fail.", "warn."].findIndex((kind) => texts.some((text) => text.startsWith(kind))) + 1 || 3;
}

function drawChecks(panel) {
  const colours = view.colours(), titles = Object.entries(view.data[panel.kind] || {});
  const verdicts = (run) => run[panel.kind] || {};
  const runs = view.drawn().filter((run) => Object.keys(verdicts(run)).length)
    .sort((a, b) => severity(verdicts(a)) - severity(verdicts(b)));
  const head = element("tr", {}, ...[panel.kind === "checks" ? "run" : "search", ...titles.map(([, title]) => title)].map((title) => element("th", { scope: "col", textContent: title })));
  const rows = runs.slice(0, ROWS).map((run) => {
    const name = element("td", { title: clipped(run.title, 500) }, swatch(colours.of.get(run.key)), " ", middle(view.short(run.title), 48));
    const row = element("tr", {}, name, ...titles.map(([check]) => verdictCell(verdicts(run)[check], `${run.key} ${check}`)));
    row.classList.toggle("marked", run.key === view.marked);
    return row;
  });
  panel.plot.replaceChildren(element("table", { className: "checks" }, element("thead", {}, head), element("tbody", {}, ...rows)));
  const left = view.drawn().length - runs.length, notes = [];
  if (runs.length > ROWS) notes.push(`The first ${ROWS} of ${runs.length} runs.`);
  if (left && panel.kind === "checks") notes.push(`${counted(left, "drawn run has", "drawn runs have")} no check.`);
  panel.caption.textContent = notes.join(" ");
  panel.figure.dataset.drawn = String(Number(panel.figure.dataset.drawn || 0) + 1);
}
