// Which curves the Run screen shows, and how each looks. Train and val differ by line style too.

function evaluation(key, name, word, style) {
  return { key, of: "evaluations", name, word, on: true, ...style };
}

// Curves of the big chart. `of` says where the points come from.
export const CURVES = [
  { key: "raw", of: "steps", name: "loss", word: "train", colour: 1, width: 1, opacity: 0.4, on: true },
  { key: "smooth", of: "smooth", name: "loss", word: "smoothed", colour: 1, width: 2.4, on: true },
  evaluation("val", "val_loss", "val", { colour: 2, dash: "dash", symbol: "circle" }),
  evaluation("usage", "usage_loss", "usage", { colour: 3, dash: "dot", symbol: "diamond" }),
  evaluation("retain", "retain_loss", "retain", { colour: 4, dash: "dashdot", symbol: "square" }),
  evaluation("probe", "train_probe_loss", "train rows", { colour: 5, dash: "longdash", symbol: "triangle-up", on: false }),
  evaluation("drift", "usage_drift_loss", "usage drift", { colour: 6, dash: "longdashdot", symbol: "cross", on: false }),
];

const AXES = { log: { log: true }, share: { share: true }, from_zero: { zero: true }, values: {} };

/** Small charts, one for each metric that is declared with a chart of its own; `val` is drawn with it. */
export function panelsOf(metrics) {
  return Object.entries(metrics)
    .filter(([name, { panel }]) => panel === name && name !== "loss")
    .map(([name, { of, axis, smooth, format }]) => ({
      name,
      format,
      evaluation: of === "evaluation",
      val: metrics[`val_${name}`]?.panel === name ? `val_${name}` : undefined,
      noisy: smooth,
      y: { ...AXES[axis], large: format === "large" || format === "count" },
    }));
}

export const X_TITLES = { step: "step", tokens: "tokens", time: "time in steps" };

/** The points of one curve of the big chart, or null. */
export function pointsOf(curve, data) {
  if (curve.of === "evaluations") return data.evaluations[curve.name] ?? null;
  const points = data.series[curve.name];
  if (!points) return null;
  return curve.of === "smooth" ? (points.smooth ?? null) : points;
}

/** A curve as charts.js wants it. */
export function lineOf(curve, points) {
  const { word, colour, width, opacity, dash, symbol } = curve;
  return { name: word, x: points.x, y: points.y, colour, width, opacity, dash, symbol, points: curve.of === "evaluations", clipped: curve.of === "steps" };
}

/** The lines of a small chart. */
export function panelLines(panel, data) {
  if (panel.evaluation) {
    const points = data.evaluations[panel.name];
    const style = { colour: 4, dash: "dashdot", symbol: "square", points: true, width: 1.4 };
    return points ? [{ name: panel.name, ...points, ...style }] : [];
  }
  const points = data.series[panel.name];
  if (!points) return [];
  const style = panel.noisy ? { width: 0.8, opacity: 0.4 } : { width: 1.6 };
  const raw = { name: panel.name, x: points.x, y: points.y, colour: 1, clipped: true, ...style };
  const lines = [raw];
  if (panel.noisy && points.smooth) lines.push({ ...raw, name: "smoothed", ...points.smooth, width: 1.8, opacity: 1 });
  const val = panel.val && data.evaluations[panel.val];
  if (val) lines.push({ name: "val", x: val.x, y: val.y, colour: 2, dash: "dash", points: true, width: 1.4 });
  return lines;
}
