// How long the rows are: counts of bins as bars, with the limit. Plain SVG, as in `sft check`.

import { h, svg } from "./dom.js";
import { count } from "./format.js";
import { ticks } from "./axes.js";

const TOP = 40; // room for labels of the marks
const BARS = 76;
const AXIS = 22;
const SIDE = 8;
const STRETCH = 1.5; // beyond this multiple of the longest row the limit stands at the edge, as an arrow
const CHARACTER = 6.4; // width of a character of a label

function panel(lengths, kind, width, top) {
  const longest = Math.max(lengths.edges.at(-1), 1);
  const fits = lengths.max_seq_len <= STRETCH * longest;
  const end = fits ? Math.max(longest, lengths.max_seq_len) : longest;
  const x = (tokens) => SIDE + (width - 2 * SIDE) * Math.min(tokens / end, 1);
  const base = TOP + BARS;
  const counts = lengths[`${kind}_counts`];
  const quantiles = lengths[`${kind}_quantiles`];
  const most = Math.max(...counts, 1);
  const bars = counts.map((number, i) => {
    if (!number) return null;
    const size = Math.max((BARS * number) / most, 1.5); // a single row among thousands is seen too
    const [low, high] = [lengths.edges[i], lengths.edges[i + 1]];
    return svg("rect", { class: `bar ${kind}`, x: x(low).toFixed(1), y: (base - size).toFixed(1), width: Math.max(x(high) - x(low) - 1, 1).toFixed(1), height: size.toFixed(1) },
      svg("title", null, `${count(low)} to ${count(high)} tokens: ${count(number)} rows`));
  });
  // A label stands on the right of its line, unless the next line or the edge is too near.
  const mark = (tokens, label, y, name, next = Infinity) => {
    const at = x(tokens);
    const size = label.length * CHARACTER + 6;
    const left = at + size > Math.min(width, next) && at > size;
    const text = svg("text", { class: name, x: (left ? at - 4 : at + 4).toFixed(1), y }, label);
    text.setAttribute("text-anchor", left ? "end" : "start");
    return [svg("line", { class: name, x1: at.toFixed(1), x2: at.toFixed(1), y1: y - 8, y2: base }), text];
  };
  const tick = (value) => {
    const text = svg("text", { x: x(value).toFixed(1), y: base + 16 }, count(value));
    text.setAttribute("text-anchor", value ? (x(value) > width - 24 ? "end" : "middle") : "start");
    return [svg("line", { class: "axis", x1: x(value).toFixed(1), x2: x(value).toFixed(1), y1: base, y2: base + 4 }), text];
  };
  return svg("g", { transform: `translate(0 ${top})` }, bars,
    svg("line", { class: "axis", x1: SIDE, x2: width - SIDE, y1: base, y2: base }),
    ticks(0, end, width < 500 ? 4 : 8, true).map(tick),
    mark(quantiles[1], `median ${count(quantiles[1])}`, 36, "quantile", x(quantiles[2])),
    quantiles[2] > quantiles[1] && mark(quantiles[2], `95 % ${count(quantiles[2])}`, 23, "quantile", kind === "all" && fits ? x(lengths.max_seq_len) : Infinity),
    kind === "all" && mark(lengths.max_seq_len, `max_seq_len ${count(lengths.max_seq_len)}${fits ? "" : " →"}`, 10, "limit"));
}

/** Two histograms with one axis: all tokens of a row, and those it is trained on. `width` in px. */
export function histogram(lengths, width) {
  const height = TOP + BARS + AXIS;
  const [, median, high, most] = lengths.all_quantiles;
  const text = `Tokens per row: median ${count(median)}, 95 % at most ${count(high)}, longest ${count(most)}; max_seq_len is ${count(lengths.max_seq_len)}.`;
  const one = (kind, name) => h("figure", null, h("figcaption", { class: "small" }, h("i", { class: `tile ${kind}`, "aria-hidden": "true" }), name),
    svg("svg", { class: "histogram", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}. ${text}` }, panel(lengths, kind, width, 0)));
  return [one("all", "All tokens of a row"), one("trained", "Tokens it is trained on")];
}
