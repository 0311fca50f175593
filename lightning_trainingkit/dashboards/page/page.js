"use strict";
// Build the page, handle its events, and draw each panel when it comes into view.

const byId = (id) => document.getElementById(id);
const panels = new Map();  // by id: description, figure, plot, and whether the panel must be redrawn
const waiting = new Set();  // panels in view that wait to be drawn, one at a time
const touch = matchMedia("(hover: none)");
let drawing = false;  // true from the first waiting panel to the last

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "list") made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const panel = panels.get(entry.target.dataset.panel);
    panel.visible = entry.isIntersecting;
    if (panel.visible && panel.stale) wait(panel);
  }
}, { rootMargin: "250px" });

function wait(panel) {
  waiting.add(panel);
  if (!drawing) drawAll();
}

async function drawAll() {
  drawing = true;
  while (waiting.size) {
    await new Promise((resolve) => setTimeout(resolve));  // events of the user come first
    const [panel] = waiting;
    waiting.delete(panel);
    if (!panel.visible || !panel.stale) continue;
    try {
      await draw(panel);
    } catch (error) {
      console.error(`${panel.title}:`, error);  // the other panels are still drawn
    }
  }
  drawing = false;
}

async function draw(panel) {
  panel.stale = false;
  if (isTable(panel)) {
    keepFocus(() => (panel.kind === "table" ? drawTable : drawChecks)(panel));
    return;
  }
  const colours = view.colours(), found = figures[panel.kind](panel, view.drawn(), colours);
  panel.caption.textContent = found.note;
  if (found.columns) panel.plot.style.minWidth = view.printing ? "" : `${7 * found.columns}rem`;  // its box scrolls
  const css = getComputedStyle(document.documentElement), ink = css.getPropertyValue("--text"), line = css.getPropertyValue("--line");
  const axis = { exponentformat: "e", gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const { xaxis, yaxis, margin, ...rest } = found.layout, steps = xaxis?.title?.text === "step";
  const layout = {
    margin: { l: 60, r: 15, t: 10, b: 45, ...margin }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, sans-serif", size: 12 }, showlegend: false, hovermode: "closest",
    dragmode: touch.matches ? false : "zoom",  // on a touch screen a drag scrolls the page
    // A zoom stays when runs are added or removed. It ends when the axis itself changes.
    uirevision: `${xaxis?.type} ${yaxis?.type} ${xaxis?.title?.text}`, hoverlabel: { namelength: 40 },
    modebar: { bgcolor: css.getPropertyValue("--card"), color: ink, activecolor: ink },
    ...rest, xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis },
  };
  panel.plot.hidden = !found.traces.length;
  // Buttons are named: one of Plotly's default buttons sends the chart to Plotly's server.
  const buttons = [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const options = {
    responsive: true, displaylogo: false, modeBarButtons: buttons, displayModeBar: steps && !touch.matches,
  };
  // Plotly measures a box once, and again when the size of the window changes.
  if (view.printing) Object.assign(layout, { width: panel.plot.clientWidth, height: panel.plot.clientHeight });
  const drawn = Plotly.react(panel.plot, found.traces, layout, options), printed = panel.printed;
  panel.printed = view.printing;
  await drawn;
  if (printed && !view.printing && !panel.plot.hidden) await Plotly.Plots.resize(panel.plot);
  panel.figure.dataset.drawn = String(Number(panel.figure.dataset.drawn || 0) + 1);
}

/** Redraw all panels after a change: panels in view now, other panels when they come into view. */
function changed(which = panels.values()) {
  view.keep();
  for (const panel of which) {
    panel.stale = true;
    if (panel.visible) wait(panel);
  }
}

function build() {
  const main = byId("main"), nav = byId("sections"), ids = new Set(view.data.sections.flatMap((section) => section.panels.map((panel) => panel.id)));
  for (const [id, panel] of panels) {
    if (!ids.has(id)) removePanel(panel);
  }
  view.data.sections.forEach((section, place) => {
    let box = byId(`section-${section.id}`);
    if (!box) {
      box = element("section", { id: `section-${section.id}` }, element("h2", { textContent: section.title }),
        element("div", { className: "panels" }));
      if (section.panels.some((panel) => panel.kind === "table")) box.className = "runs";
      main.append(box);
      nav.append(element("a", { href: `#section-${section.id}`, textContent: section.title }));
    }
    const grid = box.querySelector(".panels"), empty = box.querySelector("p");
    for (const panel of section.panels) {
      if (panels.has(panel.id)) renew(panel); else addPanel(panel, grid);
    }
    empty?.remove();
    if (!section.panels.length) box.append(element("p", { textContent: section.empty }));
    for (const title of [box.querySelector("h2"), nav.querySelector(`[href="#${box.id}"]`)]) title.textContent = section.title;
  });
  byId("made").textContent = madeAt();
  headline();
  const skipped = Object.entries(view.data.skipped);
  byId("skipped").hidden = !skipped.length;
  byId("skipped").querySelector("summary").textContent = `${counted(skipped.length, "file")} skipped`;
  byId("skipped").querySelector("ul").replaceChildren(...skipped.map(([path, why]) => element("li", { textContent: `${path}: ${why}` })));
}

function fillColours() {
  const select = byId("colour");
  const options = [["group", "group"], ["run", "run"], ["state", "state"], ...view.data.hyperparameters.map((name) => [`=${name}`, name])];
  select.replaceChildren(...options.map(([value, text]) => element("option", { value, textContent: clipped(text) })));
  if (!options.some(([value]) => value === view.colour)) view.colour = "group";
  select.value = view.colour;
}

function update() {
  keepFocus(list);
  changed();
}

/** Rebuild a part of the page, and set the focus to the element at the same position. */
function keepFocus(rebuild) {
  const parent = document.activeElement.closest("#runs, figure"), all = () => [...parent.querySelectorAll("input, button, select")];
  const place = parent ? all().indexOf(document.activeElement) : -1;
  rebuild();
  if (place >= 0) all()[place]?.focus();
}

function showTheme() {
  document.documentElement.dataset.theme = view.dark() ? "dark" : "light";
  list();
  changed();
}

function showSmoothing() {
  byId("smoothing").value = view.smoothing;
  byId("smoothing-shown").textContent = view.smoothing ? `${view.smoothing} % of each curve` : "nothing";
}

let later = null;  // the timer that waits for the end of typing or dragging

function soon(call) {
  clearTimeout(later);
  later = setTimeout(() => {
    later = null;
    call();
  }, 150);
}

function listen() {
  byId("search").oninput = (event) => {
    view.query = event.target.value;
    soon(update);
  };
  byId("colour").onchange = (event) => {
    view.colour = event.target.value;
    update();
  };
  byId("smoothing").oninput = (event) => {
    view.smoothing = Number(event.target.value);
    showSmoothing();
    soon(() => changed());
  };
  byId("bands").onchange = (event) => {
    view.bands = event.target.checked;
    update();
  };
  byId("theme").onchange = (event) => {
    view.theme = event.target.value;
    showTheme();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  byId("all").onclick = () => {
    view.found().forEach((run) => view.chosen.add(run.key));
    update();
  };
  byId("best").onclick = () => {
    view.chooseBest();
    update();
  };
  byId("none").onclick = () => {
    view.found().forEach((run) => view.chosen.delete(run.key));
    update();
  };
}

function show(data) {
  view.load(data);
  build();
  fillColours();
  keepFocus(list);
  changed();
}

/** On a served page: add new runs and rows, and keep the view. */
async function follow(seconds) {
  let tag = null;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    try {
      const answer = await fetch(location.href, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      if (!answer.ok && answer.status !== 304) throw new Error(answer.statusText);
      byId("made").textContent = madeAt();
      if (answer.ok) {
        tag = answer.headers.get("ETag");
        const text = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("data").textContent;
        const data = JSON.parse(text);
        if (data.made !== view.data.made) show(data);
      }
    } catch {
      byId("made").textContent = `${madeAt()}; no answer from the server since`;
    }
  }
}

const data = JSON.parse(byId("data").textContent);
view.load(data);
document.documentElement.dataset.theme = view.dark() ? "dark" : "light";
byId("search").value = view.query;
byId("bands").checked = view.bands;
byId("theme").value = view.theme;
if (narrow()) byId("controls").open = false;
build();
fillColours();
showSmoothing();
list();
listen();
printWhole();
if (data.follow) follow(data.follow);
