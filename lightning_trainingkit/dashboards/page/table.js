"use strict";
// The table of runs: state, best value, scores, duration, and the settings that differ.

const ROWS = 500, SETTINGS = 20, PRINTED = 4;  // largest numbers; a sheet of paper has space for fewer settings

/** Columns with the values that sort them and the text that they show. */
function columns(runs) {
  const differ = [...new Set([...view.data.hyperparameters, ...view.data.settings])]
    .filter((name) => new Set(runs.map((run) => words(run.config[name]))).size > 1);
  const settings = differ.slice(0, view.printing ? PRINTED : SETTINGS), labels = tails(settings);
  const scores = (view.data.scores || []).filter((name) => name !== view.data.target);
  const column = (id, title, value, text = words) => ({ id, title, value, text });
  const found = [
    column("run", "run", (run) => run.name, (name) => middle(view.short(name), 48)),
    column("best", `best ${view.data.target}`, (run) => run.best),
    ...scores.map((name) => column(`score ${name}`, view.data.best_scores.includes(name) ? `best ${name}` : name, (run) => (run.scores || {})[name])),
    column("state", "state", (run) => run.state),
    ...(new Set(view.runs.map((run) => run.group)).size > 1 ? [column("group", "group", (run) => run.group, (name) => middle(name, 32))] : []),
    column("duration", "duration", (run) => run.seconds, duration),
    ...settings.map((name) => ({ ...column(`=${name}`, labels.get(name), (run) => run.config[name], (value) => middle(words(value), 28)), full: name })),
  ];
  const left = differ.length - settings.length;
  return { found, note: left ? `${counted(left, "more setting differs", "more settings differ")}.` : "" };
}

function drawTable(panel) {
  const runs = view.drawn(), colours = view.colours(), { found, note } = columns(runs);
  const sorted = found.find(({ id }) => id === view.order.column) || found.find(({ id }) => id === "best");
  const down = view.order.down ?? view.data.better === "max";  // the best run first, until another order is chosen
  const up = (sorted.id === view.order.column && down) ? -1 : 1, best = view.best();
  runs.sort((a, b) => {
    const one = sorted.value(a), other = sorted.value(b);
    if (!known(one) || !known(other)) return known(one) ? -1 : known(other) ? 1 : 0;
    return up * (typeof one === "number" && typeof other === "number" ? one - other : words(one).localeCompare(words(other)));
  });
  const head = element("tr", {}, ...found.map((column) => {
    const here = column === sorted;
    const button = element("button", {
      type: "button", textContent: middle(column.title, 28) + (here ? (up > 0 ? " ▲" : " ▼") : ""), title: clipped(column.full || column.title, 500),
    });
    button.onclick = () => {
      view.order = { column: column.id, down: here && up > 0 };
      changed([panel]);
    };
    return element("th", { scope: "col", "aria-sort": here ? (up > 0 ? "ascending" : "descending") : "none" }, button);
  }));
  const numeric = new Set(found.filter(({ value }) => runs.map(value).filter(known).every((each) => typeof each === "number")));
  found.forEach((column, i) => head.children[i].classList.toggle("number", numeric.has(column)));
  const rows = runs.slice(0, ROWS).map((run) => {
    const row = element("tr", {}, ...found.map((column) => {
      const value = column.value(run);
      const cell = element("td", { textContent: known(value) ? column.text(value) : "", title: clipped(String(value ?? ""), 500) });
      cell.classList.toggle("number", numeric.has(column));
      return cell;
    }));
    row.firstChild.prepend(swatch(colours.of.get(run.key)), " ");
    if (run.note) row.firstChild.append(element("span", { className: "state", textContent: ` (${clipped(run.note, 120)})` }));
    row.classList.toggle("best", best !== undefined && run.key === best.key);
    row.classList.toggle("marked", run.key === view.marked);
    return row;
  });
  panel.plot.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  panel.caption.textContent = [runs.length > ROWS ? `The first ${ROWS} of ${runs.length} runs.` : "", note].filter(Boolean).join(" ");
  panel.figure.dataset.drawn = String(Number(panel.figure.dataset.drawn || 0) + 1);
}
