// The line above the big chart: what each curve looks like, its value at the cursor, on or off.

import { fill, h, setText, svg } from "./dom.js";
import { count, duration, number, short } from "./format.js";
import { CURVES, pointsOf } from "./run_panels.js";

// Dashes of plotly by name, in small.
const DASHES = { dash: "5 3", dot: "2 3", dashdot: "6 2 2 2", longdash: "9 4", longdashdot: "9 3 2 3" };

export class Legend {
  constructor(node, toggle) {
    this.place = h("output", { id: "readout", class: "readout-place" });
    this.entries = new Map(CURVES.map((curve) => [curve.key, this.entry(curve, toggle)]));
    fill(node, this.place, [...this.entries.values()].map((entry) => entry.button));
  }

  entry(curve, toggle) {
    const value = h("span", { class: "value" });
    const props = {
      type: "button", class: "curve", "aria-pressed": "true", hidden: true,
      data: { curve: curve.key }, on: { click: () => toggle(curve.key) },
    };
    const button = h("button", props, swatch(curve), h("span", null, curve.word), value);
    return { button, value };
  }

  /** Shows the values at the cursor of `charts`; returns them as one sentence. */
  show(charts) {
    const { data, cursor } = charts;
    const here = charts.value("loss");
    const epoch = charts.value("epoch")?.y;
    const place = here ? placeText(data, here, cursor.at, epoch, charts.evalValue("val_loss")) : "no step yet";
    setText(this.place, place);
    const texts = [place];
    for (const curve of CURVES) {
      const { button, value } = this.entries.get(curve.key);
      button.hidden = !pointsOf(curve, data)?.x.length;
      if (button.hidden) continue;
      button.setAttribute("aria-pressed", String(charts.on.has(curve.key)));
      const text = valueText(curve, charts, here);
      setText(value, text);
      if (charts.on.has(curve.key)) texts.push(`${curve.word} ${text}`);
    }
    return texts.join(", ");
  }
}

/** The line of a curve in small. */
function swatch({ colour, dash, opacity, of }) {
  const vars = { "--colour": `var(--series-${colour})`, "--dash": DASHES[dash] ?? "none" };
  return svg("svg", { class: `swatch${opacity ? " thin" : ""}`, vars, viewBox: "0 0 22 10", "aria-hidden": "true" },
    svg("line", { x1: "0", y1: "5", x2: "22", y2: "5" }),
    of === "evaluations" && svg("circle", { cx: "11", cy: "5", r: "2.6" }));
}

function placeText(data, here, at, epoch, evaluation) {
  const words = [`step ${count(here.step)}`];
  if (data.x === "tokens" && at !== null) words.push(`${short(at)} tokens`);
  if (data.x === "time" && at !== null) words.push(duration(at));
  if (Number.isFinite(epoch)) words.push(`epoch ${epoch.toFixed(2)}`);
  if (evaluation && evaluation.step !== here.step) words.push(`evaluated at ${count(evaluation.step)}`);
  return words.join(" · ");
}

function valueText(curve, charts, here) {
  if (curve.of === "steps") return number(here?.y);
  if (curve.of === "smooth") return number(here?.smooth);
  const evaluation = charts.evalValue(curve.name);
  if (!evaluation) return number(null);
  return number(evaluation.y);
}
