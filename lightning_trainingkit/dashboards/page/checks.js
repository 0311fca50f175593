"use strict";
// Tables of verdicts: what each check says about a run, and the tuning playbook about a search. A sign and a word name
// the verdict, its colour repeats it.

const SIGNS = { pass: "✓", warn: "!", fail: "✗" };

const unfolded = new Set();  // cells whose whole text is shown

/** The parts of a text that begins with "pass.", "warn." or "fail.": this word, the first words or sentence, the rest. */
function verdictParts(text) {
  const [, kind = "", reason = text] = text.match(/^(pass|warn|fail)\. ?([^]*)$/) || [];
  const [, head, rest = ""] = reason.match(/^([^:]{1,60}): ([^]*)$/) || reason.match(/^([^]*?\.) (?=[A-Z`])([^]*)$/) || [reason, reason];
  return { kind, head, rest };
}

/** A verdict as a badge with the first words, and the rest below, folded. */
function verdictCell(text, key) {
  if (!text) return element("td", { className: "verdict" }, element("span", { className: "state", textContent: "–", title: "not checked" }));
  const { kind, head, rest } = verdictParts(text);
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
  const runs = [...(panel.kind === "searches" ? view.data.judged : []), ...view.drawn()].filter((run) => Object.keys(verdicts(run)).length)
    .sort((a, b) => severity(verdicts(a)) - severity(verdicts(b)));
  const head = element("tr", {}, ...[panel.kind === "checks" ? "run" : "search", ...titles.map(([, title]) => title)].map((title) => element("th", { scope: "col", textContent: title })));
  const rows = runs.slice(0, ROWS).map((run) => {
    const look = colours.of.get(run.key), title = look ? [swatch(look), " ", view.short(run.title)] : [run.title];  // a search has no curves
    const name = element("td", { title: clipped(run.title, 500) }, ...title.slice(0, -1), middle(title.at(-1), 48));
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
