"use strict";
// The headline: the best run, and the number of runs in each state.

const STATES = ["finished", "running", "failed", "killed"];

/** Say when the page was made. */
function madeAt() {
  const { made, counted: all } = view.data;
  return `Made ${made.endsWith(`: ${all}`) ? made.slice(0, -all.length - 2) : made}`;
}

function headline() {
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
  byId("headline").replaceChildren("Best: ", name, ` with ${middle(view.data.target, 80)} ${short(best.best)}${tied(best)}.${sentence}`);
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
