"use strict";
// One panel of the page: make, update and remove its box with title and buttons.

/** Whether a panel is rows of text. Plotly draws all other panels. */
function isTable(panel) {
  return ["table", "checks", "searches"].includes(panel.kind);
}

function addPanel(description, into) {
  const plot = element("div", { className: "plot" }), caption = element("figcaption");
  const top = element("div", { className: "top" }, element("h3", { textContent: clipped(description.title, 120) }));
  const wide = description.kind === "parallel" || isTable(description);
  const figure = element("figure", { className: wide ? "wide" : "", "data-panel": description.id }, top,
    wide ? element("div", { className: "scroll", tabIndex: 0 }, plot) : plot, caption);
  const panel = { ...description, figure, plot, caption, stale: true, visible: false };
  if (isTable(description)) plot.className = "";
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
  if (!isTable(description)) {
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

function removePanel(panel) {
  seen.unobserve(panel.figure);
  waiting.delete(panel);
  panels.delete(panel.id);
  Plotly.purge(panel.plot);
  panel.figure.remove();
}

/** Update an existing panel from new data. */
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
