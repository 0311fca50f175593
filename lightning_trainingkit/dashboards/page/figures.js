"use strict";
// Each kind of panel as traces and layout for Plotly, with a line of text below.

const SCORED = 12;  // largest number of runs side by side with readable names
const AXES = 10;  // largest number of settings side by side
const EDGE = { opacity: 1, line: { width: 0 } };  // by default dots of several sizes are pale and have a white edge

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
      // At the steps of the metric that was logged less often. The other metric is noisy: its moving average is read there.
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
    const runs = drawn.filter((run) => run.best !== null && known(run.config[name])), looks = runs.map((run) => colours.of.get(run.key));
    const ys = runs.map((run) => run.best), xs = runs.map((run) => run.config[name]), numeric = xs.every((x) => typeof x === "number");
    const kinds = new Map([...new Set(xs.map(words))].map((kind) => [kind, plainMiddle(kind, narrow() ? 16 : 32)]));
    const same = new Set(kinds.values()).size < kinds.size;  // different texts must stay different when they are cut
    return {
      traces: [{
        type: "scatter", mode: "markers", x: numeric ? xs : xs.map((x) => (same ? plain(words(x), 200) : kinds.get(words(x)))), y: ys,
        text: runs.map((run) => plainMiddle(run.title, 80)), hovertemplate: `%{text}<br>%{x}: %{y:.5g}<extra></extra>`,
        marker: {
          size: runs.map((run) => (run.key === view.marked ? 16 : 10)), color: looks.map((look) => look.colour),
          symbol: looks.map((look) => look.symbol), ...EDGE,
        },
      }],
      layout: {
        xaxis: { title: { text: plainMiddle(name, 36) }, ...(!numeric ? { type: "category" } : isLog(xs) ? logAxis(xs, "x") : { type: "linear" }) },
        yaxis: { title: { text: axisTitle(`best ${view.data.target}`) }, ...(isLog(ys) ? logAxis(ys, "y") : {}) },
      },
      note: runs.length ? "" : `No run that is drawn has ${name} and ${view.data.target}.`,
    };
  },

  parallel(panel, drawn) {
    const runs = drawn.filter((run) => run.best !== null);
    const weights = new Map(importances(runs));
    const differs = (name) => new Set(runs.map((run) => words(run.config[name]))).size > 1;
    const names = view.data.hyperparameters.filter(differs).sort((a, b) => (weights.get(b) || 0) - (weights.get(a) || 0));
    const shown = names.slice(0, view.printing ? 5 : AXES), labels = tails(names);
    const dimensions = shown.map((name) => dimension(labels.get(name), runs.map((run) => run.config[name])));
    const values = runs.map((run) => run.best);
    dimensions.push(dimension(`best ${view.data.target}`, values));
    const some = shown.length < names.length ? ` ${shown.length} of ${names.length} settings, those that explain most.` : "";
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--text");
    const scale = SCALE.map((_, i) => [i / (SCALE.length - 1), shade(i / (SCALE.length - 1))]);
    return {
      traces: runs.length ? [{
        type: "parcoords", dimensions, labelfont: { size: 12, color: ink }, tickfont: { size: 11, color: ink },
        rangefont: { size: 10, color: ink }, unselected: { line: { opacity: 0.08 } },
        line: { color: numbers.ranks(values), colorscale: scale, reversescale: view.data.better === "min" },
      }] : [],
      layout: { margin: { l: 70, r: 70, t: 50, b: 25 } },
      columns: dimensions.length,
      note: runs.length ? `${counted(runs.length, "run")}, the better the brighter.${some}${view.printing ? "" : " Drag along an axis to choose; a click lets go."}`
        : `No run that is drawn has ${view.data.target}.`,
    };
  },

  importance(panel, drawn) {
    const runs = drawn.filter((run) => run.best !== null);
    const found = importances(runs).sort((a, b) => a[1] - b[1]).slice(-15);
    const direction = new Map(found.map(([name]) => [name, slope(runs, name)]));
    const counts = new Map(found.map(([name]) => [name, runs.filter((run) => known(run.config[name])).length]));
    const [least] = numbers.extent([runs.length, ...counts.values()]), labels = tails(found.map(([name]) => name)), few = least < 20 ? ` Below 20 runs this is a guess.` : "";
    const count = (name) => (counts.get(name) < runs.length ? ` (n = ${counts.get(name)})` : "");
    return {
      traces: found.length ? [{
        type: "bar", orientation: "h", x: found.map(([, share]) => 100 * share), y: found.map(([name]) => plainMiddle(labels.get(name), narrow() ? 18 : 28) + count(name)),
        text: found.map(([name]) => direction.get(name)), textposition: "auto", marker: { color: COLOURS[0] },
        hovertemplate: "%{y}: %{x:.0f} %<extra></extra>",
      }] : [],
      layout: {
        xaxis: { title: { text: "variance explained, %" }, range: [0, 100] },
        yaxis: { automargin: true }, margin: { l: 20 },
      },
      note: found.length
        ? `n = ${counted(runs.length, "run")}, each setting by itself, of the ranks of ${view.data.target}. r: Spearman's correlation, near 0 for a U.${few}`
        : `n = ${counted(runs.length, "run")}: too few that differ in a setting.`,
    };
  },

  scores(panel, drawn, colours) {
    const value = (run) => panel.metrics.map((name) => run.summary[name]).find((each) => each !== undefined);
    const up = panel.better === "max" ? 1 : -1, averages = (run) => (run.job_type || "train") !== "train";
    const all = drawn.filter((run) => value(run) !== undefined).sort((a, b) => up * (value(a) - value(b)));
    // The panel is about averages: they come first, also if plain runs are better.
    const first = new Set([...all.filter(averages).reverse(), ...all.filter((run) => !averages(run)).reverse()].slice(0, SCORED));
    const runs = all.filter((run) => first.has(run));
    // Runs with equal names stay different.
    const seen = new Map(), labels = runs.map((run) => {
      const name = plainMiddle(run.job_type && run.job_type !== "train" ? `${run.title} (${run.job_type})` : run.title, narrow() ? 20 : 32);
      seen.set(name, (seen.get(name) || 0) + 1);
      return seen.get(name) > 1 ? `${name} #${seen.get(name)}` : name;
    });
    const [low, high] = numbers.extent(runs.flatMap((run) => panel.metrics.map((name) => run.summary[name]).filter(known)));
    // Equal values would stand in the middle of an axis from -1 to 1.
    const range = low === high ? { range: [low - 0.1 * (Math.abs(low) || 1), low + 0.1 * (Math.abs(low) || 1)] } : {};
    const metrics = panel.metrics.filter((name) => runs.some((run) => run.summary[name] !== undefined));
    return {
      traces: metrics.map((name, place) => {
        const there = runs.map((run, i) => [run, labels[i]]).filter(([run]) => run.summary[name] !== undefined);
        const looks = there.map(([run]) => colours.of.get(run.key));
        return {
          type: "scatter", mode: "markers", name: plain(name), x: there.map(([run]) => run.summary[name]),
          y: there.map(([, label]) => label), hovertemplate: "%{y}<br>%{x:.5g}<extra></extra>",
          // The first metric is filled, the second one open.
          marker: {
            size: there.map(([run]) => (run.key === view.marked ? 15 : 10)), color: looks.map((look) => look.colour),
            symbol: looks.map((look) => (place ? `${look.symbol}-open` : look.symbol)), ...(place ? { opacity: 1 } : EDGE),
          },
        };
      }),
      layout: {
        xaxis: { ...range, title: { text: metrics.length === 1 ? plainMiddle(metrics[0], 36) : "" } },
        yaxis: { type: "category", categoryarray: labels, automargin: true, dtick: 1, range: [-0.6, labels.length - 0.4] },
        margin: { l: 20, t: metrics.length > 1 ? 40 : 10 },
        showlegend: metrics.length > 1, legend: { orientation: "h", y: 1, yanchor: "bottom" },
      },
      note: all.length > runs.length ? `${runs.length} of ${all.length}: evaluations first, then the best.`
        : all.length ? "" : `No run that is drawn has ${panel.metrics.join(" or ")}.`,
    };
  },
};

/** Whether a panel has the width of a phone, or of half a sheet of paper. */
function narrow() {
  return view.printing || matchMedia("(max-width: 50rem)").matches;
}

/** Cut a name to the height of its axis. */
function axisTitle(name) {
  return plainMiddle(name, view.printing ? 22 : 34);
}

/** A logarithmic axis: whole numbers as labels (0.02, not a small 2), and at most three in a decade. */
function logAxis(values, letter) {
  const [low, high] = numbers.extent(values.filter((value) => value > 0 && Number.isFinite(value))), decades = Math.log10(high / low);
  if (!(decades >= 0)) return { type: "log" };
  if (decades > (letter === "x" ? 2 : 4)) return { type: "log", nticks: 8 };  // powers of ten only
  return { type: "log", tickformat: low < 1e-4 ? "~e" : ".6~g", nticks: decades < 0.9 ? 4 : Math.ceil(decades / 0.6) };
}

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
  const label = plainMiddle(name, 15);  // as wide as the space at an axis
  if (!numeric) {
    const kinds = [...new Set(values.map(words))];
    return {
      label, values: values.map((value) => kinds.indexOf(words(value))), tickvals: kinds.map((_, i) => i),
      ticktext: kinds.map((kind) => middle(kind, 14)), range: [-0.3, kinds.length - 0.7],
    };
  }
  const there = values.filter(known), log = isLog(there), scaled = (value) => (log ? Math.log10(value) : value);
  const [low, high] = numbers.extent(there), distinct = [...new Set(there)].sort((a, b) => a - b);
  const apart = distinct.every((value, i) => !i || scaled(value) - scaled(distinct[i - 1]) > 0.06 * (scaled(high) - scaled(low)));
  const all = distinct.length <= 6 && apart ? distinct
    : [0, 0.25, 0.5, 0.75, 1].map((part) => scaled(low) + part * (scaled(high) - scaled(low))).map((x) => (log ? 10 ** x : x));
  const none = scaled(low) - 0.15 * (scaled(high) - scaled(low) || Math.abs(scaled(low)) || 1);  // for unknown values: below all known values
  const found = { label, values: values.map((value) => (known(value) ? scaled(value) : none)) };
  const ticks = all.map((tick) => [scaled(tick), short(Number(tick.toPrecision(3)))]);
  if (there.length < values.length) ticks.unshift([none, "none"]);
  return { ...found, tickvals: ticks.map(([place]) => place), ticktext: ticks.map(([, text]) => text) };
}
