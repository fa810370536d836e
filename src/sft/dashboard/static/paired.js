// Paired differences between runs as a small forest plot: one row of a table for each pair.

import { h, head, num, rowName, svg } from "./dom.js";
import { count, number, signed } from "./format.js";
import { glyph, missing, scrollBox } from "./parts.js";

const WIDTH = 220;
const SIDE = 18;
const WORDS = {
  better: ["check", "good", "better"],
  worse: ["square", "error", "worse"],
  "no difference seen": ["half", "quiet", "no difference seen"],
};

const finite = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** [low, high] that holds all intervals and 0, with some air. */
export function spanOf(pairs) {
  const ends = pairs.flatMap((pair) => [pair.low, pair.high, pair.difference]).filter(finite);
  const low = Math.min(0, ...ends);
  const high = Math.max(0, ...ends);
  const air = (high - low || 1) * 0.08;
  return [low - air, high + air];
}

const placer = ([low, high]) => (value) => (SIDE + ((WIDTH - 2 * SIDE) * (value - low)) / (high - low)).toFixed(1);

function drawn(pair, span) {
  const x = placer(span);
  const [, tone] = WORDS[pair.verdict] ?? ["", "quiet"];
  const text = `${signed(pair.difference, 4)}${finite(pair.low) ? `, 95 % interval ${signed(pair.low, 4)} to ${signed(pair.high, 4)}` : ""}`;
  return svg("svg", { class: `forest ${tone}`, viewBox: `0 0 ${WIDTH} 24`, width: WIDTH, height: 24, role: "img", "aria-label": text },
    svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: 24 }),
    finite(pair.low) && finite(pair.high) && [
      svg("line", { class: "reach", x1: x(pair.low), x2: x(pair.high), y1: 12, y2: 12 }),
      [pair.low, pair.high].map((end) => svg("line", { class: "reach", x1: x(end), x2: x(end), y1: 8, y2: 16 })),
    ],
    finite(pair.difference) && svg("rect", { class: "point", x: Number(x(pair.difference)) - 4, y: 8, width: 8, height: 8 }));
}

function axis(span) {
  const x = placer(span);
  const ends = span.map((end) => Number((0.8 * end).toPrecision(1))).filter((end) => Math.abs(x(end) - x(0)) > 36);
  const values = [...ends, 0];
  const label = (value) => {
    const text = svg("text", { x: x(value), y: 14, "text-anchor": "middle" }, number(value, 2));
    return [svg("line", { x1: x(value), x2: x(value), y1: 0, y2: 4 }), text];
  };
  return svg("svg", { class: "forest axis", viewBox: `0 0 ${WIDTH} 18`, width: WIDTH, height: 18, "aria-hidden": "true" },
    svg("line", { x1: SIDE, x2: WIDTH - SIDE, y1: 0.5, y2: 0.5 }), values.map(label));
}

/** `pairs`: `paired` of /api/compare, each with the `id` of its run B. `name(id)`: nodes for a run. */
export function forest(pairs, name) {
  const compared = pairs.filter((pair) => !pair.error);
  const failed = pairs.filter((pair) => pair.error);
  const span = spanOf(compared);
  const ends = h("p", { class: "small quiet ends" }, h("span", null, "← B better"), h("span", null, "B worse →"));
  const notes = (list) => list?.length > 0 && h("ul", { class: "notes small quiet" }, list.map((note) => h("li", null, note)));
  const rows = (pair) => {
    const [shape, tone, word] = WORDS[pair.verdict] ?? ["ring", "quiet", pair.verdict];
    return [h("tr", { class: "figures" },
      rowName(name(pair.id)),
      h("td", null, h("span", { class: `badge ${tone}` }, glyph(shape), word)),
      h("td", { class: "forest-cell" }, drawn(pair, span)),
      num(signed(pair.difference, 4)),
      num(finite(pair.low) ? `${signed(pair.low, 4)} to ${signed(pair.high, 4)}` : "not known"),
      num(count(pair.n))),
    h("tr", { class: "words" }, h("td", { colspan: 6 }, pair.sentence, notes(pair.notes)))];
  };
  const titles = ["run (B)", "against A", "difference and 95 % interval", "B − A", "95 %", "rows"];
  return [
    compared.length > 0 && scrollBox("Paired differences", h("table", { class: "paired" }, head(titles, 3),
      h("tbody", null, compared.map(rows)),
      h("tfoot", null, h("tr", null, h("td"), h("td"), h("td", { class: "forest-cell" }, axis(span), ends),
        h("td", { colspan: 3, class: "small quiet" }, "nats per token of the response; each row is compared with itself"))))),
    failed.map((pair) => missing("Not compared: ", name(pair.id), ". ", pair.error)),
  ];
}
