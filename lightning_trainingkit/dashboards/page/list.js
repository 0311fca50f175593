"use strict";
// The list of runs by group, each run with its line style, and the legend of the colours.

const STROKES = { solid: "", dash: "6 3", dot: "2 2.5", dashdot: "7 2.5 2 2.5" };
const SHAPES = {  // centred at (14, 6)
  circle: "M10.5 6a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0", "triangle-up": "M14 1.5L18.2 9.5H9.8Z", square: "M10.8 2.8H17.2V9.2H10.8Z",
  diamond: "M14 1.3L18.7 6L14 10.7L9.3 6Z", cross: "M12.6 1.8H15.4V4.6H18.2V7.4H15.4V10.2H12.6V7.4H9.8V4.6H12.6Z",
};

/** A short line in a run's colour, dash and symbol. */
function swatch({ colour, dash, symbol }) {
  const drawn = (tag, properties, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  return drawn("svg", { class: "swatch", viewBox: "0 0 28 12", width: 28, height: 12, "aria-hidden": "true" },
    drawn("path", { d: "M0 6H28", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": STROKES[dash], fill: "none" }),
    drawn("path", { d: SHAPES[symbol], fill: colour }));
}

function groupName(name) {
  return clipped(name || (view.runs.some((run) => run.group) ? "no group" : "all runs"), 80);
}

function list() {
  const found = view.found(), colours = view.colours();
  byId("runs").replaceChildren(...[...numbers.grouped(found, (run) => run.group)].map(([name, runs]) => {
    const all = element("input", { type: "checkbox" });
    const showGroup = () => {
      const on = runs.filter((run) => view.chosen.has(run.key)).length;
      all.checked = on === runs.length;
      all.indeterminate = on > 0 && on < runs.length;
    };
    showGroup();
    all.onchange = () => {
      runs.forEach((run) => view.chosen[all.checked ? "add" : "delete"](run.key));
      update();
    };
    const title = element("label", { className: "group" }, all, element("span", { className: "name", textContent: groupName(name) }));
    return element("fieldset", { "aria-label": groupName(name) }, title, ...runs.map((run) => {
      const box = element("input", { type: "checkbox", checked: view.chosen.has(run.key) });
      box.dataset.run = run.key;
      box.onchange = () => {
        view.chosen[box.checked ? "add" : "delete"](run.key);
        showGroup();
        showCount(found);
        changed();
      };
      const label = element("label", { title: clipped(run.name, 500) }, box, swatch(colours.of.get(run.key)),
        element("span", { className: "name", textContent: clipped(view.short(run.name), 120) }));
      if (run.state !== "finished") label.append(element("span", { className: "state", textContent: run.state }));
      label.classList.toggle("marked", run.key === view.marked);
      return label;
    }));
  }));
  showCount(found);
  showScale(colours.scale);
}

function showCount(found) {
  byId("count").textContent = `${view.drawn().length} of ${counted(view.runs.length, "run")} drawn` +
    (found.length < view.runs.length ? `, ${found.length} found` : "");
  byId("all").textContent = `Draw all ${found.length}`;
  byId("best").hidden = view.runs.length <= MOST;
}

function showScale(scale) {
  const box = byId("scale");
  box.hidden = !scale || (scale.kinds !== undefined && view.by() === "group");
  if (box.hidden) return;
  if (scale.kinds) {
    box.replaceChildren(...scale.kinds.map(([name, look]) => element("div", { className: "kind" }, swatch(look), ` ${clipped(name)}`)));
    return;
  }
  const bar = element("div", { className: "bar" });
  bar.style.background = `linear-gradient(to right, ${SCALE.map((_, i) => shade(i / (SCALE.length - 1))).join(",")})`;
  box.replaceChildren(bar, element("div", { className: "ends" }, element("span", { textContent: short(scale.low) }),
    element("span", { textContent: scale.log ? "logarithmic" : "" }), element("span", { textContent: short(scale.high) })));
}
