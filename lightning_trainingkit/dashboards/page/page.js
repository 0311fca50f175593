"use strict";
// The page itself: builds it, listens, and draws each panel when it comes into view.

const byId = (id) => document.getElementById(id);
const panels = new Map();  // by id: its description, figure, plot, and whether it must be drawn anew
const waiting = new Set();  // panels in view that are to be drawn, one at a time
let drawing = false;  // from the first of them to the last

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
    await new Promise((resolve) => setTimeout(resolve));  // what was pressed comes first
    const [panel] = waiting;
    waiting.delete(panel);
    if (!panel.visible || !panel.stale) continue;
    try {
      await draw(panel);
    } catch (error) {
      console.error(`${panel.title}:`, error);  // the other panels are drawn all the same
    }
  }
  drawing = false;
}

async function draw(panel) {
  panel.stale = false;
  if (panel.kind === "table") {
    keepFocus(() => drawTable(panel));
    return;
  }
  const colours = view.colours(), found = figures[panel.kind](panel, view.drawn(), colours);
  panel.caption.textContent = found.note;
  panel.caption.classList.toggle("warning", Boolean(found.warning));
  const css = getComputedStyle(document.documentElement), ink = css.getPropertyValue("--text"), line = css.getPropertyValue("--line");
  const axis = { exponentformat: "e", gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const { xaxis, yaxis, margin, ...rest } = found.layout;
  const layout = {
    margin: { l: 60, r: 15, t: 10, b: 45, ...margin }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, sans-serif", size: 12 }, showlegend: false, hovermode: "closest",
    // A zoom stays while runs come and go, and goes where the axis itself changes.
    uirevision: `${xaxis?.type} ${yaxis?.type} ${xaxis?.title?.text}`, hoverlabel: { namelength: 40 }, modebar: { bgcolor: "rgba(0,0,0,0)", color: ink, activecolor: ink },
    ...rest, xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis },
  };
  panel.plot.hidden = !found.traces.length;
  // By name: one of Plotly's own defaults sends the chart to its makers.
  const buttons = [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const options = {
    responsive: true, displaylogo: false, modeBarButtons: buttons, displayModeBar: "step" === xaxis?.title?.text ? "hover" : false,
  };
  await Plotly.react(panel.plot, found.traces, layout, options);
  panel.figure.dataset.drawn = String(Number(panel.figure.dataset.drawn || 0) + 1);
}

function drawTable(panel) {
  const runs = view.drawn(), settings = [...new Set([...view.data.hyperparameters, ...view.data.settings])].filter((name) => {
    return new Set(runs.map((run) => words(run.config[name]))).size > 1;
  }).slice(0, 20);
  const columns = [
    ["run", (run) => run.name], ["group", (run) => run.group], ["state", (run) => run.state], ["best", (run) => run.best],
    ["minutes", (run) => run.seconds && Number((run.seconds / 60).toPrecision(3))], ...settings.map((name) => [name, (run) => run.config[name]]),
  ];
  const chosen = columns.find(([name]) => name === view.order.column) || columns[3];
  const up = view.order.down ? -1 : 1, best = view.ranked().find((run) => run.best !== null);
  runs.sort((a, b) => {
    const one = chosen[1](a), other = chosen[1](b);
    if (!known(one) || !known(other)) return known(one) ? -1 : known(other) ? 1 : 0;
    return up * (typeof one === "number" && typeof other === "number" ? one - other : words(one).localeCompare(words(other)));
  });
  const head = element("tr", {}, ...columns.map(([name]) => {
    const title = name === "best" ? `best ${view.data.target}` : name;
    const sorted = name === chosen[0];
    const button = element("button", { type: "button", textContent: clipped(title, 40) + (sorted ? (up > 0 ? " ▲" : " ▼") : "") });
    button.onclick = () => {
      view.order = { column: name, down: sorted && !view.order.down };
      changed([panel]);
    };
    return element("th", { scope: "col", "aria-sort": sorted ? (up > 0 ? "ascending" : "descending") : "none" }, button);
  }));
  const rows = runs.slice(0, 500).map((run) => {
    const row = element("tr", {}, ...columns.map(([, value]) => {
      const found = value(run), number = typeof found === "number";
      const cell = element("td", { textContent: found === null || found === undefined ? "" : clipped(words(found), 200) });
      cell.classList.toggle("number", number);
      cell.title = clipped(String(found ?? ""), 500);
      return cell;
    }));
    if (run.note) row.firstChild.append(element("span", { className: "state", textContent: ` (${clipped(run.note, 120)})` }));
    row.classList.toggle("best", best !== undefined && run.key === best.key);
    return row;
  });
  panel.plot.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  panel.caption.textContent = runs.length > 500 ? `The first 500 of ${runs.length} runs.` : "";
  panel.figure.dataset.drawn = String(Number(panel.figure.dataset.drawn || 0) + 1);
}

/** Something has changed: all panels are drawn anew, those out of view when they come into it. */
function changed(which = panels.values()) {
  view.keep();
  for (const panel of which) {
    panel.stale = true;
    if (panel.visible) wait(panel);
  }
}

function addPanel(description, into) {
  const plot = element("div", { className: "plot" }), caption = element("figcaption");
  const top = element("div", { className: "top" }, element("h3", { textContent: clipped(description.title, 120) }));
  const wide = ["parallel", "table"].includes(description.kind);
  const figure = element("figure", { className: wide ? "wide" : "", "data-panel": description.id }, top,
    wide ? element("div", { className: "scroll", tabIndex: 0 }, plot) : plot, caption);
  const panel = { ...description, figure, plot, caption, stale: true, visible: false };
  if (description.kind === "table") plot.className = "";
  if (["curves", "gap"].includes(description.kind)) {
    for (const axis of ["x", "y"]) {
      const pressed = () => (view.logs[panel.id] || {})[axis] ?? Boolean(axis === "y" && panel.log_y);
      const button = element("button", { type: "button", textContent: `log ${axis}`, "aria-pressed": String(pressed()) });
      button.onclick = () => {
        view.logs[panel.id] = { ...view.logs[panel.id], [axis]: !pressed() };
        button.setAttribute("aria-pressed", String(pressed()));
        changed([panel]);
      };
      top.append(button);
    }
  }
  if (description.kind === "dots") {
    const select = element("select", { "aria-label": "Setting" });
    fillSettings(panel, select);
    select.onchange = () => {
      view.dots[panel.id] = select.value;
      changed([panel]);
    };
    top.append(select);
  }
  if (description.kind !== "table") {
    const button = element("button", { type: "button", textContent: "PNG", title: "Save this panel as a picture" });
    button.onclick = () => Plotly.downloadImage(panel.plot, {
      format: "png", scale: 2, width: panel.plot.clientWidth, height: panel.plot.clientHeight,
      filename: panel.title.replace(/[^\w.-]+/g, "_").slice(0, 80) || "panel",
    });
    top.append(button);
  }
  panels.set(panel.id, panel);
  into.append(figure);
  seen.observe(figure);
}

/** What new data say of a panel that is there. */
function renew(description) {
  const panel = Object.assign(panels.get(description.id), description);
  for (const button of panel.figure.querySelectorAll("button")) {
    if (button.textContent === "log y") button.setAttribute("aria-pressed", String(isLogY(panel)));
  }
  const select = panel.figure.querySelector("select");
  if (select) fillSettings(panel, select);
}

function fillSettings(panel, select) {
  const names = view.data.hyperparameters;
  select.replaceChildren(...names.map((name) => element("option", { value: name, textContent: clipped(name) })));
  if (!names.includes(view.dots[panel.id])) delete view.dots[panel.id];
  select.value = view.dots[panel.id] || names[0] || "";
}

function build() {
  const main = byId("main"), nav = byId("sections");
  view.data.sections.forEach((section, place) => {
    let box = byId(`section-${section.id}`);
    if (!box) {
      box = element("section", { id: `section-${section.id}` }, element("h2", { textContent: section.title }),
        element("div", { className: "panels" }));
      main.append(box);
      nav.append(element("a", { href: `#section-${section.id}`, textContent: section.title }));
    }
    const grid = box.querySelector(".panels"), empty = box.querySelector("p");
    for (const panel of section.panels) {
      if (panels.has(panel.id)) renew(panel); else addPanel(panel, grid);
    }
    if (empty && section.panels.length) empty.remove();
    if (!empty && !section.panels.length) box.append(element("p", { textContent: section.empty }));
  });
  byId("made").textContent = view.data.made;
  const skipped = Object.entries(view.data.skipped);
  byId("skipped").hidden = !skipped.length;
  byId("skipped").querySelector("summary").textContent = `${skipped.length} ${skipped.length === 1 ? "file" : "files"} skipped`;
  byId("skipped").querySelector("ul").replaceChildren(...skipped.map(([path, why]) => element("li", { textContent: `${path}: ${why}` })));
}

function fillColours() {
  const select = byId("colour");
  const options = [["group", "group"], ["run", "run"], ["state", "state"], ...view.data.hyperparameters.map((name) => [`=${name}`, name])];
  select.replaceChildren(...options.map(([value, text]) => element("option", { value, textContent: clipped(text) })));
  if (!options.some(([value]) => value === view.colour)) view.colour = "group";
  select.value = view.colour;
}

/** The list of runs by group, each with its colour. */
function list() {
  const found = view.found(), colours = view.colours(), groups = new Map();
  for (const run of found) groups.set(run.group, [...(groups.get(run.group) || []), run]);
  byId("runs").replaceChildren(...[...groups].map(([name, runs]) => {
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
    const title = element("label", { className: "group" }, all, element("span", { className: "name", textContent: clipped(name || "no group", 80) }));
    return element("fieldset", { "aria-label": clipped(name || "no group", 80) }, title, ...runs.map((run) => {
      const box = element("input", { type: "checkbox", checked: view.chosen.has(run.key) });
      box.dataset.run = run.key;
      box.onchange = () => {
        view.chosen[box.checked ? "add" : "delete"](run.key);
        showGroup();
        showCount(found);
        changed();
      };
      const { colour, dash } = colours.of.get(run.key), swatch = element("span", { className: "swatch" });
      swatch.style.borderTopColor = colour;
      swatch.style.borderTopStyle = { solid: "solid", dash: "dashed", dot: "dotted", dashdot: "double" }[dash];
      const label = element("label", { title: clipped(run.name, 500) }, box, swatch, element("span", { className: "name", textContent: clipped(run.name, 120) }));
      if (run.state !== "finished") label.append(element("span", { className: "state", textContent: run.state }));
      return label;
    }));
  }));
  showCount(found);
  showScale(colours.scale);
}

function showCount(found) {
  byId("count").textContent = `${view.drawn().length} of ${view.runs.length} runs drawn` +
    (found.length < view.runs.length ? `, ${found.length} found` : "");
  byId("all").textContent = `Draw all ${found.length}`;
  byId("best").hidden = view.runs.length <= MOST;
}

function showScale(scale) {
  const box = byId("scale");
  box.hidden = !scale || (scale.kinds !== undefined && view.colour === "group");
  if (box.hidden) return;
  if (scale.kinds) {
    box.replaceChildren(...scale.kinds.map(([name, { colour }]) => {
      const swatch = element("span", { className: "swatch" });
      swatch.style.borderTopColor = colour;
      const line = element("label", {}, swatch, ` ${clipped(name)}`);
      line.style.display = "flex";
      line.style.alignItems = "center";
      line.style.gap = ".4rem";
      return line;
    }));
    return;
  }
  const bar = element("div", { className: "bar" });
  bar.style.background = `linear-gradient(to right, ${SCALE.map((_, i) => shade(i / (SCALE.length - 1))).join(",")})`;
  box.replaceChildren(bar, element("div", { className: "ends" }, element("span", { textContent: short(scale.low) }),
    element("span", { textContent: scale.log ? "logarithmic" : "" }), element("span", { textContent: short(scale.high) })));
}

function update() {
  keepFocus(list);
  changed();
}

/** Rebuild a part of the page, and give the focus to what stands where it was. */
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

let later = null;  // what waits for the end of typing or dragging

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
    changed();
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
  list();
  changed();
}

/** While the page is served: take over new runs and rows, and leave the view as it is. */
async function follow(seconds) {
  let tag = null;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    try {
      const answer = await fetch(location.href, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      if (!answer.ok && answer.status !== 304) throw new Error(answer.statusText);
      byId("made").textContent = view.data.made;
      if (answer.ok) {
        tag = answer.headers.get("ETag");
        const text = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("data").textContent;
        const data = JSON.parse(text);
        if (data.made !== view.data.made) show(data);
      }
    } catch {
      byId("made").textContent = `${view.data.made}; no answer from the server since`;
    }
  }
}

const data = JSON.parse(byId("data").textContent);
view.load(data);
document.documentElement.dataset.theme = view.dark() ? "dark" : "light";
byId("search").value = view.query;
byId("bands").checked = view.bands;
byId("theme").value = view.theme;
if (matchMedia("(max-width: 50rem)").matches) byId("controls").open = false;
build();
fillColours();
showSmoothing();
list();
listen();
if (data.follow) follow(data.follow);
