"use strict";
// What each kind of panel draws: traces and layout for Plotly, and a line of text below.

const DOTS = 6000;  // real points that one panel shows; more can't be told apart
const SCORED = 12;  // runs beside each other, whose names can still be read

const figures = {
  curves(panel, drawn, colours) {
    const curves = drawn.map((run) => [run, run.curves[panel.metric]]).filter(([, raw]) => raw !== undefined)
      .map(([run, raw]) => [run, numbers.curve(raw)]);
    return overSteps(panel, curves, colours, panel.metric);
  },

  gap(panel, drawn, colours) {
    const curves = [];
    for (const run of drawn) {
      const one = run.curves[panel.one], other = run.curves[panel.other];
      if (one === undefined || other === undefined) continue;
      const a = numbers.curve(one), b = numbers.curve(other), x = [], y = [];
      // At the steps of the metric that was logged less often; the other is noisy, and its average is looked up there.
      const [rare, often, sign] = a.points.x.length <= b.points.x.length ? [a, b, 1] : [b, a, -1];
      rare.means.x.forEach((step, i) => {
        const value = numbers.at(often.means, step);
        if (value !== null) {
          x.push(step);
          y.push(sign * (rare.means.y[i] - value));
        }
      });
      curves.push([run, { points: { x, y }, means: { x, y, counts: null }, odd: [] }]);
    }
    return overSteps(panel, curves, colours, `${panel.one} − ${panel.other}`);
  },

  dots(panel, drawn, colours) {
    const name = view.dots[panel.id] || view.data.hyperparameters[0];
    const runs = drawn.filter((run) => run.best !== null && known(run.config[name]));
    const xs = runs.map((run) => run.config[name]), numeric = xs.every((x) => typeof x === "number");
    return {
      traces: [{
        type: "scatter", mode: "markers", x: numeric ? xs : xs.map((x) => plain(words(x))), y: runs.map((run) => run.best),
        text: runs.map((run) => plain(run.name)), hovertemplate: `%{text}<br>%{x}: %{y:.5g}<extra></extra>`,
        marker: { size: 9, color: runs.map((run) => colours.of.get(run.key).colour) },
      }],
      layout: {
        xaxis: { title: { text: plain(name) }, type: numeric ? (isLog(xs) ? "log" : "linear") : "category" },
        yaxis: { title: { text: plain(`best ${view.data.target}`) } },
      },
      note: runs.length ? "" : `No run that is drawn has ${name} and ${view.data.target}.`,
    };
  },

  parallel(panel, drawn) {
    const runs = drawn.filter((run) => run.best !== null);
    const weights = new Map(importances(runs));
    const differs = (name) => new Set(runs.map((run) => words(run.config[name]))).size > 1;
    const names = view.data.hyperparameters.filter(differs).sort((a, b) => (weights.get(b) || 0) - (weights.get(a) || 0)).slice(0, 10);
    const dimensions = names.map((name) => dimension(name, runs.map((run) => run.config[name])));
    const values = runs.map((run) => run.best);
    dimensions.push(dimension(`best ${view.data.target}`, values));
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--text");
    const scale = SCALE.map((_, i) => [i / (SCALE.length - 1), shade(i / (SCALE.length - 1))]);
    return {
      traces: runs.length ? [{
        type: "parcoords", dimensions, labelfont: { size: 12, color: ink }, tickfont: { size: 11, color: ink },
        rangefont: { size: 10, color: ink }, unselected: { line: { opacity: 0.08 } },
        line: { color: numbers.ranks(values), colorscale: scale, reversescale: view.data.better === "min" },
      }] : [],
      layout: { margin: { l: 70, r: 70, t: 50, b: 25 } },
      note: runs.length ? `${runs.length} runs, the better the brighter. Drag along an axis to choose; a click lets go.`
        : `No run that is drawn has ${view.data.target}.`,
    };
  },

  importance(panel, drawn) {
    const runs = drawn.filter((run) => run.best !== null);
    const found = importances(runs).sort((a, b) => a[1] - b[1]).slice(-15);
    const direction = new Map(found.map(([name]) => [name, slope(runs, name)]));
    const counts = new Map(found.map(([name]) => [name, runs.filter((run) => known(run.config[name])).length]));
    const least = Math.min(runs.length, ...counts.values()), few = least < 20 ? ` Below 20 runs this is a guess.` : "";
    const count = (name) => (counts.get(name) < runs.length ? ` (n = ${counts.get(name)})` : "");
    return {
      traces: found.length ? [{
        type: "bar", orientation: "h", x: found.map(([, share]) => 100 * share), y: found.map(([name]) => plain(name, 28) + count(name)),
        text: found.map(([name]) => direction.get(name)), textposition: "auto", marker: { color: COLOURS[0] },
        hovertemplate: "%{y}: %{x:.0f} %<extra></extra>",
      }] : [],
      layout: {
        xaxis: { title: { text: `% of the variance of ${plain(view.data.target)}, in ranks` }, range: [0, 100] },
        yaxis: { automargin: true }, margin: { l: 120 },
      },
      note: (found.length ? `n = ${runs.length} runs, each setting by itself; r: Spearman's correlation, near 0 for a U.`
        : `n = ${runs.length} runs: too few that differ in a setting.`) + (found.length ? few : ""),
      warning: found.length > 0 && least < 20,
    };
  },

  scores(panel, drawn, colours) {
    const value = (run) => panel.metrics.map((name) => run.summary[name]).find((each) => each !== undefined);
    const up = panel.better === "max" ? 1 : -1, averages = (run) => (run.job_type || "train") !== "train";
    const all = drawn.filter((run) => value(run) !== undefined).sort((a, b) => up * (value(a) - value(b)));
    // What was averaged is what the panel is for, be it better or worse than the best that were not.
    const first = new Set([...all.filter(averages).reverse(), ...all.filter((run) => !averages(run)).reverse()].slice(0, SCORED));
    const runs = all.filter((run) => first.has(run));
    // Equal names are different runs.
    const seen = new Map(), labels = runs.map((run) => {
      const name = plain(run.job_type && run.job_type !== "train" ? `${run.name} (${run.job_type})` : run.name, 32);
      seen.set(name, (seen.get(name) || 0) + 1);
      return seen.get(name) > 1 ? `${name} #${seen.get(name)}` : name;
    });
    const symbols = ["circle", "diamond-open", "square-open"];
    return {
      traces: panel.metrics.map((name, place) => {
        const there = runs.map((run, i) => [run, labels[i]]).filter(([run]) => run.summary[name] !== undefined);
        return {
          type: "scatter", mode: "markers", name: plain(name), x: there.map(([run]) => run.summary[name]),
          y: there.map(([, label]) => label), hovertemplate: "%{y}<br>%{x:.5g}<extra></extra>",
          marker: { size: 10, symbol: symbols[place % symbols.length], color: there.map(([run]) => colours.of.get(run.key).colour) },
        };
      }).filter((trace) => trace.x.length),
      layout: {
        yaxis: { type: "category", categoryarray: labels, automargin: true, dtick: 1, range: [-0.6, labels.length - 0.4] },
        margin: { l: 120, t: 40 }, showlegend: true, legend: { orientation: "h", y: 1, yanchor: "bottom" },
      },
      note: all.length > runs.length ? `${runs.length} of ${all.length}: evaluations first, then the best.`
        : all.length ? "" : `No run that is drawn has ${panel.metrics.join(" or ")}.`,
    };
  },
};

function known(value) {
  return value !== null && value !== undefined;
}

function importances(runs) {
  return view.data.hyperparameters.map((name) => {
    const there = runs.filter((run) => known(run.config[name]));
    return [name, numbers.importance(there.map((run) => run.config[name]), there.map((run) => run.best))];
  }).filter(([, share]) => share !== null);
}

function slope(runs, name) {
  const there = runs.filter((run) => typeof run.config[name] === "number");
  if (there.length < 3 || there.length < runs.length) return "";
  const r = numbers.spearman(there.map((run) => run.config[name]), there.map((run) => run.best));
  return r === null ? "" : `r = ${r.toFixed(2).replace("-", "−")}`;
}

function dimension(name, values) {
  const numeric = values.filter(known).every((value) => typeof value === "number");
  const label = plain(name, 24);
  if (!numeric) {
    const kinds = [...new Set(values.map(words))];
    return {
      label, values: values.map((value) => kinds.indexOf(words(value))), tickvals: kinds.map((_, i) => i),
      ticktext: kinds.map((kind) => clipped(kind, 16)), range: [-0.3, kinds.length - 0.7],
    };
  }
  const there = values.filter(known), log = isLog(there), scaled = (value) => (log ? Math.log10(value) : value);
  const low = Math.min(...there), high = Math.max(...there), distinct = [...new Set(there)].sort((a, b) => a - b);
  const all = distinct.length <= 6 ? distinct
    : [0, 0.25, 0.5, 0.75, 1].map((part) => scaled(low) + part * (scaled(high) - scaled(low))).map((x) => (log ? 10 ** x : x));
  const none = scaled(low) - 0.15 * (scaled(high) - scaled(low) || Math.abs(scaled(low)) || 1);  // below all that is known
  const found = { label, values: values.map((value) => (known(value) ? scaled(value) : none)) };
  const ticks = all.map((tick) => [scaled(tick), short(Number(tick.toPrecision(3)))]);
  if (there.length < values.length) ticks.unshift([none, "none"]);
  return { ...found, tickvals: ticks.map(([place]) => place), ticktext: ticks.map(([, text]) => text) };
}

function isLogY(panel) {
  return Boolean((view.logs[panel.id] || {}).y ?? panel.log_y);
}

/** What a logarithmic axis can't show. */
function hidden(curves, axis, log) {
  const count = log ? curves.reduce((sum, [, curve]) => sum + curve.points[axis].filter((each) => each <= 0).length, 0) : 0;
  return count ? `${count} ${count === 1 ? "point" : "points"} with ${axis === "x" ? "a step" : "a value"} of 0 or less not shown: log ${axis}.` : "";
}

/** Dots, moving averages or bands, and marks where a value was no number. */
function overSteps(panel, curves, colours, title) {
  const smooth = panel.smooth !== false, share = smooth ? view.smoothing / 100 : 0;
  const lines = curves.map(([run, curve]) => [run, share > 0 || view.bands ? numbers.average(curve.means, share, curve.odd)
    : numbers.broken(curve.points.x, curve.points.y, curve.odd), curve]);
  const traces = [];
  let ended = false;
  if (!view.bands) {
    const each = Math.max(20, Math.floor(DOTS / Math.max(1, curves.length))), x = [], y = [], color = [], text = [];
    for (const [run, curve] of curves) {
      const points = numbers.thin(curve.points, each), { colour } = colours.of.get(run.key), name = plain(run.name);
      points.x.forEach((step, i) => {
        x.push(step);
        y.push(points.y[i]);
        color.push(colour);
        text.push(name);
      });
    }
    const faint = share > 0 && curves.some(([, curve]) => curve.points.x.length > 40);
    traces.push({
      type: "scatter", mode: "markers", name: "values", x, y, text, marker: { size: 4, color, opacity: faint ? 0.35 : 0.9 },
      hovertemplate: "%{text}<br>step %{x}: %{y:.5g}<extra></extra>",
    });
    for (const [run, line] of lines) {
      const { colour, dash } = colours.of.get(run.key);
      traces.push({
        type: "scatter", mode: "lines", name: plain(run.name), x: line.x, y: line.y, line: { color: colour, dash, width: 1.8 },
        hoverinfo: "skip",
      });
    }
  } else {
    const groups = new Map();
    for (const [run, line] of lines) {
      const clean = { x: line.x.filter((_, i) => line.y[i] !== null), y: line.y.filter((value) => value !== null) };
      const key = run.group || "no group";
      groups.set(key, [...(groups.get(key) || []), clean]);
    }
    const names = [...new Set(view.runs.map((run) => run.group || "no group"))];
    for (const [name, members] of groups) {
      const band = numbers.band(members), { colour, dash } = style(names.indexOf(name));
      ended ||= new Set(band.counts).size > 1;
      // On a logarithmic axis the lower edge ends at the lowest value.
      const floor = isLogY(panel) ? Math.min(...members.flatMap((curve) => curve.y.filter((y) => y > 0))) : -Infinity;
      traces.push({
        type: "scatter", mode: "lines", x: [...band.x, ...[...band.x].reverse()],
        y: [...band.high, ...band.low.map((y) => Math.max(y, floor)).reverse()],
        fill: "toself", fillcolor: colour, opacity: 0.2, line: { width: 0 }, hoverinfo: "skip", name: "deviation",
      });
      traces.push({
        type: "scatter", mode: "lines", name: plain(name), x: band.x, y: band.mean, line: { color: colour, dash, width: 2.2 },
        text: band.counts.map((count) => plain(`${name}, mean of ${count}`)), hovertemplate: "%{text}<br>step %{x}: %{y:.5g}<extra></extra>",
      });
    }
  }
  const marks = curves.flatMap(([run, curve]) => (curve.odd || []).map(([step, kind]) => [run, step, kind]));
  if (marks.length) {
    traces.push({
      type: "scatter", mode: "markers", name: "no number", yaxis: "y2", x: marks.map(([, step]) => step),
      y: marks.map(([, , kind]) => (kind === "Infinity" ? 0.98 : 0.02)),
      text: marks.map(([run, step, kind]) => `${plain(run.name)}<br>step ${step}: ${kind}`), hovertemplate: "%{text}<extra></extra>",
      marker: { symbol: "x", size: 8, color: marks.map(([run]) => colours.of.get(run.key).colour) },
    });
  }
  const kinds = new Set(marks.map(([, , kind]) => kind));
  const logs = view.logs[panel.id] || {};
  return {
    traces,
    layout: {
      xaxis: { title: { text: "step" }, type: logs.x ? "log" : "linear" },
      yaxis: { title: { text: plain(title) }, type: isLogY(panel) ? "log" : "linear" },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
    },
    note: !curves.length ? `No run that is drawn has logged ${title}.`
      : [marks.length ? `✕ marks ${[...kinds].sort().join(", ")}; the line is broken there.` : "",
        ended ? "Where runs have ended, mean and deviation are those of the runs that go on." : "",
        hidden(curves, "y", isLogY(panel)), hidden(curves, "x", logs.x)].filter(Boolean).join(" "),
  };
}
