"use strict";
// Calculations of the panels: decoding, moving averages, thinning, bands, importance.

const numbers = {
  /** Decode the little-endian numbers that Python wrote as base64. */
  decode(text, kind) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return Array.from(new kind(bytes.buffer));
  },

  /** Lowest and highest value; a call with thousands of arguments would overflow the stack. */
  extent(values) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  },

  /** The values of each key, in the order of the keys' first values. */
  grouped(values, key) {
    const groups = new Map();
    values.forEach((value, i) => {
      const name = key(value, i);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(value);
    });
    return groups;
  },

  /** A curve: its logged points, and the values for its moving average (all values, or means of equal shares). */
  curve(raw) {
    if (raw.points === undefined) {
      const steps = raw.wide ? Float64Array : Float32Array;
      const x = numbers.decode(raw.x, steps), y = numbers.decode(raw.y, Float32Array);
      raw.points = { x, y };
      raw.means = raw.mx === undefined
        ? { x, y, counts: null }
        : {
          x: numbers.decode(raw.mx, steps), y: numbers.decode(raw.my, Float32Array),
          counts: numbers.decode(raw.mc, Uint32Array),
        };
    }
    return raw;
  },

  /**
   * Centred moving average over a share of the curve, from means weighted by their numbers of values.
   * The line is broken at values that are NaN or infinite.
   */
  average(means, share, odd) {
    const n = means.x.length;
    const half = Math.floor((share * n) / 2);
    const sums = [0], weights = [0];
    for (let i = 0; i < n; i++) {
      const weight = means.counts ? means.counts[i] : 1;
      sums.push(sums[i] + weight * means.y[i]);
      weights.push(weights[i] + weight);
    }
    const y = means.y.map((value, i) => {
      if (half === 0) return value;
      // Equally many values on both sides: otherwise the ends would be biased to one side.
      const reach = Math.min(half, i, n - 1 - i), from = i - reach, to = i + reach + 1;
      return (sums[to] - sums[from]) / (weights[to] - weights[from]);
    });
    return numbers.broken(means.x, y, odd);
  },

  /** Points with gaps at the steps of `odd`, which are in order. */
  broken(xs, ys, odd) {
    if (!odd || !odd.length) return { x: xs, y: ys };
    const x = [], y = [];
    let next = 0;
    xs.forEach((step, i) => {
      if (next < odd.length && odd[next][0] <= step) {
        x.push(odd[next][0]);
        y.push(null);
        while (next < odd.length && odd[next][0] <= step) next++;
      }
      x.push(step);
      y.push(ys[i]);
    });
    return { x, y };
  },

  /** Reduce the points to about `most`: the lowest and the highest of each share, so that no spike is lost. */
  thin(points, most) {
    const n = points.x.length;
    if (n <= most) return points;
    const shares = Math.max(1, Math.floor(most / 2)), x = [], y = [];
    for (let share = 0; share < shares; share++) {
      const from = Math.floor((share * n) / shares), to = Math.floor(((share + 1) * n) / shares);
      let low = from, high = from;
      for (let i = from; i < to; i++) {
        if (points.y[i] < points.y[low]) low = i;
        if (points.y[i] > points.y[high]) high = i;
      }
      for (const i of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
        x.push(points.x[i]);
        y.push(points.y[i]);
      }
    }
    return { x, y };
  },

  /** Value of a curve at a step between its first and last steps; null outside. */
  at(points, step) {
    const { x, y } = points;
    if (!x.length || step < x[0] || step > x[x.length - 1]) return null;
    let low = 0, high = x.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (x[middle] <= step) low = middle; else high = middle;
    }
    if (x[high] === x[low] || step <= x[low]) return y[low];
    const part = (step - x[low]) / (x[high] - x[low]);
    return y[low] + part * (y[high] - y[low]);
  },

  /** Mean, standard deviation and number of curves, at 200 steps from the first to the last. */
  band(curves) {
    const ends = curves.filter((curve) => curve.x.length);
    if (!ends.length) return { x: [], mean: [], low: [], high: [], counts: [] };
    const [from] = numbers.extent(ends.map((curve) => curve.x[0]));
    const [, to] = numbers.extent(ends.map((curve) => curve.x[curve.x.length - 1]));
    const found = { x: [], mean: [], low: [], high: [], counts: [] };
    for (let i = 0; i < 200; i++) {
      const step = from + ((to - from) * i) / 199;
      const values = ends.map((curve) => numbers.at(curve, step)).filter((value) => value !== null);
      if (!values.length) continue;
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      const spread = values.length < 2
        ? 0 : Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
      found.x.push(step);
      found.mean.push(mean);
      found.low.push(mean - spread);
      found.high.push(mean + spread);
      found.counts.push(values.length);
    }
    return found;
  },

  /** Ranks from 1. Equal values share the mean of their ranks. */
  ranks(values) {
    const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
    const found = new Array(values.length);
    for (let i = 0; i < order.length;) {
      let end = i;
      while (end < order.length && values[order[end]] === values[order[i]]) end++;
      for (let k = i; k < end; k++) found[order[k]] = (i + end + 1) / 2;
      i = end;
    }
    return found;
  },

  /** Spearman's correlation; null if one side does not vary. */
  spearman(xs, ys) {
    const a = numbers.ranks(xs), b = numbers.ranks(ys), middle = (xs.length + 1) / 2;
    let both = 0, one = 0, other = 0;
    a.forEach((rank, i) => {
      both += (rank - middle) * (b[i] - middle);
      one += (rank - middle) ** 2;
      other += (b[i] - middle) ** 2;
    });
    return one && other ? both / Math.sqrt(one * other) : null;
  },

  /**
   * Share of the variance of a metric's ranks that a single setting explains, corrected for chance: epsilon squared of
   * a one-way analysis of variance over its values, or over equally full bins if there are many. It finds a U shape too.
   * Kelley, "An unbiased correlation ratio measure", PNAS 1935.
   *
   * Returns null if there are too few runs.
   */
  importance(xs, ys) {
    const n = xs.length, numeric = xs.every((x) => typeof x === "number");
    let labels = xs.map(String);
    if (numeric && new Set(xs).size > 6) {
      const bins = Math.max(2, Math.min(6, Math.floor(Math.sqrt(n))));
      labels = numbers.ranks(xs).map((rank) => Math.min(bins - 1, Math.floor(((rank - 0.5) * bins) / n)));
    }
    const ranks = numbers.ranks(ys), middle = (n + 1) / 2, groups = numbers.grouped(ranks, (_, i) => labels[i]);
    const k = groups.size, all = ranks.reduce((sum, rank) => sum + (rank - middle) ** 2, 0);
    if (k < 2 || n <= k || !all) return null;
    let between = 0;
    for (const group of groups.values()) {
      between += group.length * (group.reduce((a, b) => a + b, 0) / group.length - middle) ** 2;
    }
    const noise = ((all - between) / (n - k)) * (k - 1);
    return Math.max(0, (between - noise) / all);
  },
};
