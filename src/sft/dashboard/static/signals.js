// What /api/runs/ID/guards tells of a signal, shaped for reading: sentences, figures, a chart.

import { NONE, number, percent, signed } from "./format.js";

export const GUARDS = {
  overfitting: ["Overfitting", "Is held-out loss rising while training loss falls?"],
  format_collapse: ["Format collapse", "Do completions open alike whatever is asked?"],
  distribution_mismatch: ["Distribution mismatch", "Do the training rows cover what the model will be asked?"],
  forgetting: ["Forgetting", "Does the model lose what the base model could do?"],
  health: ["Health", "Is the optimisation itself sound?"],
};

const ACTIONS = {
  off: "An alarm does nothing",
  warn: "An alarm is reported, training goes on",
  stop: "An alarm ends the training",
  restore_best: "An alarm ends the training and the best evaluation is handed back",
};

export const actionText = (action) => ACTIONS[action] ?? (action ? `On alarm: ${action}` : "What an alarm does was not recorded");

/** Names of guards as they are listed: the known ones in their order, then others. */
export function guardNames(answer) {
  const known = Object.keys(GUARDS);
  const judged = [...answer.verdicts, ...answer.findings].map((finding) => finding.guard);
  const others = [...new Set(judged)].filter((name) => !known.includes(name)).sort();
  return [...known.filter((name) => judged.includes(name) || name in (answer.actions ?? {})), ...others];
}

/** `format_collapse` → `Format collapse`. */
export const title = (guard) => GUARDS[guard]?.[0] ?? guard.replaceAll("_", " ").replace(/^./, (c) => c.toUpperCase());

const SHARES = new Set(["share", "fraction", "distinct share of rows", "fraction of tokens"]);
const CHANGES = /^nats/;

/** A value with the digits and the sign that its unit calls for; without the unit. */
export function figure(value, unit) {
  if (value === null || value === undefined) return NONE;
  if (SHARES.has(unit)) return percent(value);
  if (unit === "probability") return number(value, 5);
  if (CHANGES.test(unit) && Math.abs(value) < 1e-3) return value.toFixed(4).replace("-", "−").replace(/^−?0\.0000$/, "0");
  return CHANGES.test(unit) ? signed(value, 4) : number(value);
}

/** The unit as it is written after a figure. */
export const unitText = (unit) => (SHARES.has(unit) ? "" : unit === "nats/token" ? "nats per token" : unit ?? "");

// How far above its threshold (rise), below it (fall) or from 0 (level) a signal's mde is counted;
// see the guards' modules. Signals not named here have none that means a value of the chart.
const COUNTED = {
  "overfitting.paired_rise": "rise",
  "forgetting.retention": "rise",
  "forgetting.drift": "rise",
  "distribution_mismatch.harm": "rise",
  "distribution_mismatch.slices": "rise",
  "distribution_mismatch.transfer": "fall",
  "distribution_mismatch.coverage": "level",
  "format_collapse.opener": "capped",
};

/** The value of `point.statistic` that would be detected 4 times in 5; null where unknown. */
export function detectable(name, point) {
  const how = COUNTED[name];
  if (!how || point?.mde === null || point?.mde === undefined) return null;
  if (how === "level") return point.mde;
  if (point.threshold === null || point.threshold === undefined) return null;
  if (how === "capped" && point.threshold + point.mde > 1) return null; // no probability is so high
  return how === "fall" ? point.threshold - point.mde : point.threshold + point.mde;
}

/** The minimum detectable effect as a sentence; empty where it is not known. */
export function detectableText(name, point, unit) {
  if (point?.mde === null || point?.mde === undefined) return "";
  const often = "would be detected 4 times in 5";
  const value = detectable(name, point);
  const amount = (size) => `${figure(size, unit).replace(/^\+/, "")} ${unitText(unit)}`.trim();
  if (value === null) return COUNTED[name] ? "" : `An effect of ${amount(point.mde)} ${often}.`;
  if (COUNTED[name] === "fall") return `A ${unitText(unit)} of ${number(value)} or less ${often}.`;
  if (COUNTED[name] === "level") return `A share of ${amount(value)} or more ${often}.`;
  if (COUNTED[name] === "capped") return `A ${unitText(unit)} of ${number(value)} or more ${often}.`;
  return `A rise of ${amount(value)} or more ${often}.`;
}

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** Whether there is anything to draw. */
export const drawable = (signal) => Boolean(signal?.points?.some((point) => known(point.statistic)));

/** The signal a card shows first: that of the verdict where it can be drawn, else a primary one. */
export function firstSignal(guard, verdict, signals) {
  const names = Object.keys(signals).filter((name) => name.startsWith(`${guard}.`) && drawable(signals[name]));
  const wanted = `${guard}.${verdict?.signal}`;
  if (names.includes(wanted)) return wanted;
  return names.find((name) => signals[name].primary) ?? names[0] ?? null;
}

/** Name of the line of `detectable` in a chart. */
export const DETECTABLE = "minimum detectable effect";

/** Options of charts.js for one signal: the statistic, its band, the threshold, the minimum detectable effect. */
export function chartOptions(name, signal) {
  const points = signal.points;
  const x = points.map((point) => point.step);
  const column = (key) => points.map((point) => point[key] ?? null);
  const hasBand = points.some((point) => known(point.low) && known(point.high));
  const series = [{
    name: "statistic", x, y: column("statistic"), colour: 1, points: true, width: 2,
    ...(hasBand ? { low: column("low"), high: column("high") } : {}),
  }];
  const alone = points.filter((point) => known(point.statistic));
  if (hasBand && alone.length === 1) { // a band of one evaluation has no width
    const { step, low, high } = alone[0];
    series.unshift({ name: "95 %", x: [step, step], y: [low, high], colour: 1, width: 6, opacity: 0.35 });
  }
  const seen = points.map((point) => detectable(name, point));
  if (seen.some(known)) series.push({ name: DETECTABLE, x, y: seen, colour: "quiet", dash: "dot", width: 1 });
  const limits = column("threshold").filter(known);
  const last = limits[limits.length - 1];
  const steady = limits.every((value) => value === last);
  if (limits.length && !steady) series.push({ name: "threshold", x, y: column("threshold"), colour: "error", dash: "dash", width: 1.5 });
  return {
    label: `${name.replaceAll("_", " ")} by step, with its 95 % interval and its threshold`,
    series,
    x: { title: "step", whole: true },
    y: { title: unitText(signal.unit) || (SHARES.has(signal.unit) ? "share" : ""), share: SHARES.has(signal.unit) },
    limits: limits.length && steady ? [{ y: last, text: "threshold", tone: "error" }] : [],
  };
}

/** The last point of a signal. */
export const lastPoint = (signal) => signal?.points?.[signal.points.length - 1] ?? null;

/** `+0.012 to +0.034`, or an empty text. */
export function interval(low, high, unit) {
  return known(low) && known(high) ? `${figure(low, unit)} to ${figure(high, unit)}` : "";
}
