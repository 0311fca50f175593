"use strict";
// The view: runs, selected runs and colours. The tab stores it, so that a reload shows the same view.

const MOST = 50;  // largest number of runs that are drawn at first
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#808891"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "triangle-up", "square", "diamond", "cross"];  // 5 symbols and 4 dashes: their pairs repeat after 20 runs
const SCALE = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];

const view = {
  data: null, runs: [], chosen: new Set(), query: "", colour: "group", smoothing: 5, bands: false, theme: "auto",
  logs: {}, dots: {}, order: { column: "best", down: null }, marked: null, printing: false, start: 0,

  load(data) {
    const known = new Set(view.runs.map((run) => run.key)), first = view.data === null;
    view.data = data;
    unique(data.sections);
    unique(data.sections.flatMap((section) => section.panels));
    view.runs = data.runs;
    const names = numbers.grouped(view.runs, (run) => run.name);
    view.start = sharedStart([...names.keys()]);
    for (const run of view.runs) {
      // Folds have equal names in each group.
      run.title = run.group && names.get(run.name).length > 1 ? `${run.group}: ${run.name}` : run.name;
      // A metric may be named `constructor`: a run that lacks it must not give the object's own.
      for (const named of [run.curves, run.summary, run.config, run.checks, run.searches || {}, run.scores || {}]) Object.setPrototypeOf(named, null);
      run.text = [run.name, run.group, run.job_type, run.state, run.project, run.id, ...run.tags,
        ...data.settings.map((name) => `${name}=${words(run.config[name])}`),
        ...Object.entries(data.shared).filter(([name]) => !run.lacks.includes(name)).map(([name, value]) => `${name}=${words(value)}`),
        ...Object.entries(run.checks).map(([name, text]) => `${name}=${text}`),
      ].join("\n").toLowerCase();
    }
    for (const { searches } of data.judged) Object.setPrototypeOf(searches, null);
    if (first) {
      view.restore();
    } else {
      for (const run of view.runs) {
        if (!known.has(run.key) && view.chosen.size < MOST) view.chosen.add(run.key);
      }
    }
    if (view.marked) view.marked = view.best()?.key ?? null;  // the best run may have changed
  },

  /** A run's name without the beginning that all names share. */
  short(name) {
    return view.start ? `…${name.slice(view.start)}` : name;
  },

  /** Runs from the best to the worst. Runs without the target come last. */
  ranked() {
    const up = view.data.better === "max" ? -1 : 1;
    const value = (run) => (run.best === null ? Infinity : up * run.best);
    return [...view.runs].sort((a, b) => value(a) - value(b) || 0);
  },

  best() {
    return view.ranked().find((run) => run.best !== null);
  },

  /** The setting that colours the runs. Bands are coloured by group. */
  by() {
    return view.bands ? "group" : view.colour;
  },

  chooseBest() {
    view.chosen = new Set(view.ranked().slice(0, MOST).map((run) => run.key));
  },

  found() {
    const asked = view.query.toLowerCase().split(/\s+/).filter(Boolean);
    return view.runs.filter((run) => asked.every((word) => run.text.includes(word)));
  },

  drawn() {
    return view.found().filter((run) => view.chosen.has(run.key));
  },

  keep() {
    const { query, colour, smoothing, bands, theme, logs, dots, order, marked } = view;
    const known = view.runs.map((run) => run.key);
    const kept = { chosen: [...view.chosen], known, query, colour, smoothing, bands, theme, logs, dots, order, marked };
    try {
      sessionStorage.setItem(`trainingkit ${location.pathname}`, JSON.stringify(kept));
    } catch { /* storage is not allowed: the view is lost with the page */ }
  },

  restore() {
    let kept = {};
    try {
      kept = JSON.parse(sessionStorage.getItem(`trainingkit ${location.pathname}`)) || {};
    } catch { /* no stored view */ }
    const keys = new Set(view.runs.map((run) => run.key)), known = new Set(kept.known);
    const { chosen, known: _, ...rest } = kept;
    Object.assign(view, rest);
    view.chooseBest();
    if (chosen && view.runs.some((run) => known.has(run.key))) {
      const fresh = [...view.chosen].filter((key) => !known.has(key));  // runs that are new since then
      view.chosen = new Set([...chosen.filter((key) => keys.has(key)), ...fresh]);
    }
    const groups = new Set(view.runs.map((run) => run.group));
    if (!kept.colour) view.colour = groups.size > 1 ? "group" : "run";
  },

  dark() {
    if (view.printing) return false;
    return view.theme === "dark" || (view.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  },

  /** Colour, dash and symbol of each run, and the legend of the colours. */
  colours() {
    const of = new Map(), drawn = view.drawn(), by = view.by();
    if (by === "run") {
      // By position among all runs, so that a filter changes no colour.
      view.runs.forEach((run, i) => of.set(run.key, style(i)));
      return { of, scale: null };
    }
    const value = by === "group" ? (run) => run.group || "no group"
      : by === "state" ? (run) => run.state : (run) => run.config[by.slice(1)];
    const values = view.runs.map(value), there = values.filter((each) => each !== null && each !== undefined);
    const numeric = there.length && there.every((each) => typeof each === "number") && new Set(there).size > 2;
    if (!numeric) {
      const kinds = [...new Set(values.map(words))];
      view.runs.forEach((run, i) => of.set(run.key, style(kinds.indexOf(words(values[i])))));
      const shown = new Set(drawn.map((run) => words(value(run))));
      return { of, scale: { kinds: kinds.filter((kind) => shown.has(kind)).map((kind) => [kind, style(kinds.indexOf(kind))]) } };
    }
    const [low, high] = numbers.extent(there), log = isLog(there);
    const place = log ? (x) => Math.log(x / low) / Math.log(high / low) : (x) => (x - low) / (high - low);
    view.runs.forEach((run, i) => of.set(run.key, values[i] === null || values[i] === undefined
      ? { colour: "#808891", dash: "dot", symbol: "circle" } : { colour: shade(place(values[i])), dash: "solid", symbol: "circle" }));
    return { of, scale: { low, high, log } };
  },
};

/** Change the second of two equal ids, so that each id stands for one run. */
function unique(described) {
  const ids = new Set();
  for (const each of described) {
    const id = each.id;
    for (let count = 2; ids.has(each.id); count++) each.id = `${id} #${count}`;
    ids.add(each.id);
  }
}

function style(place) {
  const round = Math.floor(place / COLOURS.length);
  return {
    colour: COLOURS[place % COLOURS.length], dash: DASHES[round % DASHES.length], symbol: SYMBOLS[round % SYMBOLS.length],
  };
}

/** Viridis, without the end that is invisible on the page's background. */
function shade(part) {
  const at = (view.dark() ? 0.22 + 0.78 * part : 0.88 * part) * (SCALE.length - 1);
  const low = Math.min(SCALE.length - 2, Math.floor(at)), mix = at - low;
  const channel = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mixed = [0, 1, 2].map((i) => Math.round(channel(SCALE[low], i) * (1 - mix) + channel(SCALE[low + 1], i) * mix));
  return `rgb(${mixed.join(",")})`;
}

/** Whether values are positive and span more than a factor of 20. */
function isLog(values) {
  const [low, high] = numbers.extent(values);
  return values.length > 0 && low > 0 && high / low >= 20;
}
