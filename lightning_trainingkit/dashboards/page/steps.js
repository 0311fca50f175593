"use strict";
// Curves over the steps of training: dots, moving averages or bands, and marks where a value was no number.

const DOTS = 6000;  // largest number of points in a panel; more can't be told apart

function isLogY(panel) {
  return Boolean((view.logs[panel.id] || {}).y ?? panel.log_y);
}

/** Values that a logarithmic axis can't show. */
function hidden(curves, axis, log) {
  const count = log ? curves.reduce((sum, [, curve]) => sum + curve.points[axis].filter((each) => each <= 0).length, 0) : 0;
  return count ? `${counted(count, "point")} with ${axis === "x" ? "a step" : "a value"} of 0 or less not shown: log ${axis}.` : "";
}

function overSteps(panel, curves, colours, title) {
  const smooth = panel.smooth !== false, share = smooth ? view.smoothing / 100 : 0;
  const lines = curves.map(([run, curve]) => [run, share > 0 || view.bands ? numbers.average(curve.means, share, curve.odd)
    : numbers.broken(curve.points.x, curve.points.y, curve.odd)]);
  const bands = view.bands ? bandTraces(panel, lines) : null, odd = oddTraces(curves, colours);
  const logs = view.logs[panel.id] || {};
  const axis = (letter, log) => (log ? logAxis(curves.flatMap(([, curve]) => numbers.extent(curve.points[letter].filter((each) => each > 0))), letter)
    : { type: "linear" });
  return {
    traces: [...(bands ? bands.traces : lineTraces(curves, lines, colours, share)), ...odd.traces],
    layout: {
      xaxis: { title: { text: "step" }, ...axis("x", logs.x) },
      yaxis: { title: { text: axisTitle(title) }, ...axis("y", isLogY(panel)) },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
    },
    note: !curves.length ? `No run that is drawn has logged ${title}.`
      : [odd.note, bands?.ended ? "After the end of a run, mean and deviation are over the remaining runs." : "",
        hidden(curves, "y", isLogY(panel)), hidden(curves, "x", logs.x)].filter(Boolean).join(" "),
  };
}

/** The logged points of all runs, and a line through each run's moving average. */
function lineTraces(curves, lines, colours, share) {
  const each = Math.max(20, Math.floor(DOTS / Math.max(1, curves.length))), dense = curves.some(([, curve]) => curve.points.x.length > 40);
  const x = [], y = [], color = [], symbol = [], text = [], opacity = [];
  const marked = lines.some(([run]) => run.key === view.marked), last = (run) => Number(run.key === view.marked);
  for (const [run, curve] of curves) {
    const points = numbers.thin(curve.points, each), look = colours.of.get(run.key), name = plainMiddle(run.title, 80);
    points.x.forEach((step, i) => {
      x.push(step);
      y.push(points.y[i]);
      color.push(look.colour);
      symbol.push(look.symbol);
      text.push(name);
      opacity.push((share > 0 && dense ? 0.35 : 0.9) * (marked && !last(run) ? 0.3 : 1));
    });
  }
  const dots = {
    type: "scatter", mode: "markers", name: "values", x, y, text,
    // Below this size a triangle looks like a dot.
    marker: { size: symbol.some((each) => each !== "circle") ? (dense ? 5 : 7) : dense ? 4 : 5, symbol, color, opacity },
    hovertemplate: "%{text}<br>step %{x}: %{y:.5g}<extra></extra>",
  };
  return [dots, ...[...lines].sort(([a], [b]) => last(a) - last(b)).map(([run, line]) => {
    const { colour, dash } = colours.of.get(run.key);
    return {
      type: "scatter", mode: "lines", name: plainMiddle(run.title, 80), x: line.x, y: line.y, hoverinfo: "skip",
      line: { color: colour, dash, width: last(run) ? 4 : 1.8 }, opacity: marked && !last(run) ? 0.3 : 1,
    };
  })];
}

/** Mean and deviation of each group. */
function bandTraces(panel, lines) {
  const groups = numbers.grouped(lines, ([run]) => run.group || "no group");
  const names = [...new Set(view.runs.map((run) => run.group || "no group"))];
  let ended = false;
  const traces = [...groups].flatMap(([name, members]) => {
    const curves = members.map(([, line]) => ({ x: line.x.filter((_, i) => line.y[i] !== null), y: line.y.filter((value) => value !== null) }));
    const band = numbers.band(curves), { colour, dash } = style(names.indexOf(name));
    ended ||= new Set(band.counts).size > 1;
    // On a logarithmic axis the lower edge ends at the lowest value.
    const [floor] = isLogY(panel) ? numbers.extent(curves.flatMap((curve) => curve.y.filter((y) => y > 0))) : [-Infinity];
    return [{
      type: "scatter", mode: "lines", x: [...band.x, ...[...band.x].reverse()],
      y: [...band.high, ...band.low.map((y) => Math.max(y, floor)).reverse()],
      fill: "toself", fillcolor: colour, opacity: 0.2, line: { width: 0 }, hoverinfo: "skip", name: "deviation",
    }, {
      type: "scatter", mode: "lines", name: plain(name), x: band.x, y: band.mean, line: { color: colour, dash, width: 2.2 },
      text: band.counts.map((count) => plain(`${name}, mean of ${count}`)), hovertemplate: "%{text}<br>step %{x}: %{y:.5g}<extra></extra>",
    }];
  });
  return { traces, ended };
}

/** Marks at the steps where a value was NaN or infinite. */
function oddTraces(curves, colours) {
  const marks = curves.flatMap(([run, curve]) => (curve.odd || []).map(([step, kind]) => [run, step, kind]));
  if (!marks.length) return { traces: [], note: "" };
  const kinds = [...new Set(marks.map(([, , kind]) => kind))].sort();
  return {
    traces: [{
      type: "scatter", mode: "markers", name: "no number", yaxis: "y2", x: marks.map(([, step]) => step),
      y: marks.map(([, , kind]) => (kind === "Infinity" ? 0.98 : 0.02)),
      text: marks.map(([run, step, kind]) => `${plainMiddle(run.title, 80)}<br>step ${step}: ${kind}`), hovertemplate: "%{text}<extra></extra>",
      marker: { symbol: "x", size: 8, color: marks.map(([run]) => colours.of.get(run.key).colour) },
    }],
    note: `✕ marks ${kinds.join(", ")}; the line is broken there.`,
  };
}
