// Figures as text. A value that is missing is an en dash, never 0.

export const NONE = "–";
const missing = (value) => value === null || value === undefined || Number.isNaN(value);

/** `1.234`, `0.00120`, `1.20e-5`, `12,345`: four significant digits, as short as can be. */
export function number(value, digits = 4) {
  if (missing(value)) return NONE;
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) {
    return value.toExponential(digits - 2).replace("e+", "e").replaceAll("-", "−");
  }
  const whole = size === 0 ? 1 : Math.floor(Math.log10(size)) + 1;
  const places = Number.isInteger(value) ? 0 : Math.max(0, Math.min(5, digits - Math.max(whole, 1)));
  return grouped(value, places);
}

function grouped(value, places) {
  return value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", "−");
}

/** `12,345`. */
export const count = (value) => (missing(value) ? NONE : grouped(Math.round(value), 0));

/** `1.2 M`, `16.0 T`: for axes and FLOPs. */
export function short(value) {
  if (missing(value)) return NONE;
  const size = Math.abs(value);
  for (const [unit, scale] of [["E", 1e18], ["P", 1e15], ["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (size >= scale * 0.9995) return `${number(value / scale, 3)} ${unit}`;
  }
  return number(value, 3);
}

/** `81.4 %` of a share between 0 and 1; `digits` after the point. */
export const percent = (share, digits = 1) => (missing(share) ? NONE : `${grouped(100 * share, digits)} %`);

/** `+0.012`, `−0.012`. */
export const signed = (value, digits = 3) => (missing(value) ? NONE : `${value > 0 ? "+" : ""}${number(value, digits)}`);

/** `3 min 12 s`, `2 h 05 min`, `4.2 s`. */
export function duration(seconds) {
  if (missing(seconds)) return NONE;
  if (seconds < 9.95) return `${grouped(seconds, 1)} s`;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  const two = (value) => String(value).padStart(2, "0");
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 60 * 48) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

/** `12 s ago` of seconds since 1970. */
export function ago(epochSeconds) {
  if (missing(epochSeconds)) return NONE;
  const seconds = Math.max(0, Date.now() / 1000 - epochSeconds);
  if (seconds < 2) return "now";
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}

/** `22 Nov 23:59:58` of an ISO time or seconds since 1970, in the reader's time zone. */
export function clock(time) {
  if (missing(time)) return NONE;
  const date = typeof time === "number" ? new Date(time * 1000) : new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  const options = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  return date.toLocaleString("en-GB", options).replace(",", "");
}

/** `learning_rate` → `learning rate`. */
export const words = (name) => String(name).replaceAll("_", " ");

// What a source of data has unasked; written only where it differs.
const SOURCE = { weight: 1, format: "auto", columns: {}, split: "train", subset: null, streaming: false, max_rows: null };

const isSource = (value) => value !== null && typeof value === "object" && typeof value.path === "string";

function sourceText(source) {
  const extras = Object.entries(source).filter(([name, value]) => name !== "path" && JSON.stringify(value) !== JSON.stringify(SOURCE[name] ?? null));
  return [source.path, ...extras.map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`)].join(", ");
}

/** `value` as text: sources of data by their path, texts without quotes, the rest as JSON. */
export function valueText(value) {
  if (value === null || value === undefined) return "null";
  if (typeof value === "string") return value === "" ? '""' : value;
  if (Array.isArray(value) && value.length && value.every(isSource)) return value.map(sourceText).join("; ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A title with the whole value, where `valueText` left something out; else null. */
export const wholeText = (value) => (Array.isArray(value) && value.some(isSource) ? JSON.stringify(value, null, 1) : null);
