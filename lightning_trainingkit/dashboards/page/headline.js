"use strict";
// The headline: the best run, the number of runs in each state, and what the newest search says.

const STATES = ["finished", "running", "failed", "killed"];

/** Say when the page was made. */
function madeAt() {
  const { made, counted: all } = view.data;
  return `Made ${made.endsWith(`: ${all}`) ? made.slice(0, -all.length - 2) : made}`;
}

function headline() {
  choice();
  const best = view.best(), sentence = ` ${counts()}`;
  if (!best) {
    const none = view.runs.length ? `No run has a value of ${middle(view.data.target, 80)} yet.` : "";
    byId("headline").replaceChildren(none + sentence);
    return;
  }
  const name = element("button", {
    type: "button", textContent: middle(best.title, 80), title: clipped(best.title, 500), "aria-pressed": String(view.marked === best.key),
  });
  name.onclick = () => mark(best);
  byId("headline").replaceChildren(searched() ? "Best single run: " : "Best: ", name, ` with ${middle(view.data.target, 80)} ${short(best.best)}${tied(best)}.${sentence}`);
}

function searched() {
  return view.data.trials || view.data.judged.length > 0;
}

/** What the newest search says. The best single run may be one of its short trials, or a lucky one. */
function choice() {
  const box = byId("choice"), newest = view.data.judged.at(-1);
  box.hidden = !searched();
  if (!newest) {
    box.textContent = "A single run may be a short trial, or lucky. The search says at its end what it found.";
    return;
  }
  const said = clipped(verdictParts(newest.searches.search || "").head.replaceAll("`", ""), 400);
  box.replaceChildren("A single run may be a short trial, or lucky. ", element("b", { textContent: `Search ${middle(newest.title, 80)}:` }), ` ${said} `,
    element("a", { href: "#section-hyperparameters", textContent: "All verdicts" }), " stand below. If the seven steps ran, their choice stands in report.md and best.yaml.");
}

function tied(best) {
  const equal = view.runs.filter((run) => run.best === best.best).length;
  return equal > 1 ? ` (${equal} runs tie)` : "";
}

function counts() {
  const states = numbers.grouped(view.runs, (run) => run.state), all = view.runs.length;
  if (!all) return "No runs yet.";
  if (states.size === 1) return `${counted(all, "run")}, ${all > 1 ? "all " : ""}${view.runs[0].state}.`;
  const order = [...STATES.filter((state) => states.has(state)), ...[...states.keys()].filter((state) => !STATES.includes(state))];
  return `${counted(all, "run")}: ${order.map((state) => `${states.get(state).length} ${state}`).join(", ")}.`;
}

/** Emphasise one run until the button is pressed again. */
function mark(run) {
  view.marked = view.marked === run.key ? null : run.key;
  if (view.marked) {
    view.chosen.add(run.key);
    if (!view.found().includes(run)) byId("search").value = view.query = "";
    byId("listed").open = true;
  }
  byId("headline").querySelector("button").setAttribute("aria-pressed", String(view.marked === run.key));
  update();
  if (view.marked) document.querySelector("#runs .marked")?.scrollIntoView({ block: "nearest" });
}
