// Ranges and ticks of an axis. Own ones, so that all charts line up and speak one number style.

import { number, percent, short } from "./format.js";

/** The sorted finite numbers among `values`. */
const finite = (values) => values.filter((v) => v !== null && Number.isFinite(v)).sort((a, b) => a - b);

/** The value below which `share` of the sorted numbers lie. */
export function quantile(sorted, share) {
  if (!sorted.length) return null;
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const next = sorted[Math.min(low + 1, sorted.length - 1)];
  return sorted[low] + (place - low) * (next - sorted[low]);
}

/** [low, high] that holds all `lists` with some air; `clip` leaves out what lies beyond p99. */
export function rangeOf(lists, { log = false, clip = false, zero = false } = {}) {
  let low = Infinity;
  let high = -Infinity;
  for (const list of lists) {
    const sorted = finite(log ? list.filter((v) => v > 0) : list);
    if (!sorted.length) continue;
    low = Math.min(low, clip ? quantile(sorted, 0.01) : sorted[0]);
    high = Math.max(high, clip ? quantile(sorted, 0.99) : sorted[sorted.length - 1]);
  }
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (zero && !log) low = Math.min(0, low);
  if (log) {
    const air = Math.max(1.05, (high / low) ** 0.06);
    return [low / air, high * air];
  }
  const air = (high - low || Math.abs(high) || 1) * 0.06;
  return [zero && low === 0 ? 0 : low - air, high + air];
}

/** [low, high] of x: hardly more than the data, so that the curve fills the width. */
export function extent(lists) {
  let low = Infinity;
  let high = -Infinity;
  for (const list of lists) {
    for (const value of list) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return [0, 1];
  const air = low === high ? 0.5 : (high - low) * 0.008; // room for a point at either end
  return [low - air, high + air];
}

/** About `most` round numbers between `low` and `high`. */
export function ticks(low, high, most, whole = false) {
  const rough = (high - low) / Math.max(1, most);
  if (!(rough > 0)) return [low];
  const scale = 10 ** Math.floor(Math.log10(rough));
  let step = scale * ([1, 2, 5, 10].find((n) => n * scale >= rough) ?? 10);
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

/** Powers of ten, with 2 and 5 where there is room; round numbers for less than a decade. */
export function logTicks(low, high, most) {
  const decades = Math.log10(high / low);
  if (decades < 0.8) return ticks(low, high, most).filter((v) => v > 0);
  const digits = [[1, 2, 3, 5], [1, 2, 5], [1, 3], [1]].find((set) => set.length * decades <= most + 1) ?? [1];
  const stride = digits.length === 1 ? Math.max(1, Math.ceil(decades / most)) : 1;
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += stride) {
    for (const digit of digits) {
      const value = Number((digit * 10 ** e).toPrecision(3));
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found;
}

/** The labels of `values`: as few digits as tell them apart. */
export function tickTexts(values, { share = false, large = false, time = false } = {}) {
  if (share) {
    const digits = [0, 1, 2].find((n) => values.every((v) => Math.abs(100 * v * 10 ** n - Math.round(100 * v * 10 ** n)) < 1e-6)) ?? 3;
    return values.map((v) => percent(v, digits));
  }
  if (time) return values.map(clockText);
  const most = Math.max(...values.map(Math.abs));
  if (large || most >= 1e5) return values.map((v) => (v === 0 ? "0" : short(v).replace(/\.0+ /, " ").replace(" ", "")));
  if (most < 1e-3) return values.map((v) => (v === 0 ? "0" : v.toExponential().replace("e-", "e−")));
  return values.map((v) => (Number.isInteger(v) ? number(v) : String(v).replace("-", "−")));
}

function clockText(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 ? `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}` : `${s / 60} min`;
  const minutes = Math.round(s / 60) % 60;
  return `${Math.floor(s / 3600)} h${minutes ? ` ${minutes}` : ""}`;
}
