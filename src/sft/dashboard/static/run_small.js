// The small charts of the Run screen: each with its value, its meaning and what to watch.

import { createChart } from "./charts.js";
import { fill, h, setText } from "./dom.js";
import { count, number, percent, short, words } from "./format.js";
import { panelLines, panelsOf } from "./run_panels.js";

const FORMATS = { number: (v) => number(v), percent: (v) => percent(v), large: short, count };

export class SmallCharts {
  constructor(node, charts) {
    this.charts = charts;
    this.panels = panelsOf(charts.context.snapshot.metrics).map((panel) => this.panel(panel));
    fill(node, this.panels.map((panel) => panel.card));
  }

  panel(spec) {
    const value = h("output", { class: "value" });
    const plot = h("div", { class: "small-plot" });
    const meaning = h("p", { class: "meaning small", hidden: true, id: `meaning-${spec.name}` });
    const ask = h("button", {
      type: "button", class: "ask", "aria-expanded": "false", "aria-controls": meaning.id,
      "aria-label": `What ${words(spec.name)} means`,
    }, "?");
    ask.addEventListener("click", () => {
      meaning.hidden = !meaning.hidden;
      ask.setAttribute("aria-expanded", String(!meaning.hidden));
    });
    const title = words(spec.name);
    const card = h("section", { class: "card panel", hidden: true, data: { metric: spec.name }, "aria-label": title },
      h("header", null, h("h3", null, title), ask, value), meaning, plot);
    return { spec, card, value, plot, meaning, chart: null };
  }

  draw(urgent) {
    for (const panel of this.panels) {
      const lines = panelLines(panel.spec, this.charts.data);
      panel.card.hidden = !lines.some((line) => line.y.some((y) => y !== null));
      if (panel.card.hidden) continue;
      this.explain(panel);
      const options = this.options(panel.spec, lines);
      if (panel.chart) panel.chart.draw(options, { urgent });
      else panel.chart = createChart(panel.plot, options);
    }
  }

  options(spec, lines) {
    const { charts } = this;
    return {
      label: `${words(spec.name)} by ${charts.data.x}. Arrow keys move the cursor.`,
      series: lines, x: charts.xSpec(), y: { ...spec.y, clip: charts.settings.clip && spec.noisy }, cursor: charts.cursor,
      onZoom: (from, to) => charts.zoom(from, to), describe: () => `${charts.readout ?? ""}, ${words(spec.name)} ${this.text(spec)}`,
    };
  }

  explain({ spec, meaning }) {
    const metric = this.charts.context.snapshot.metrics?.[spec.name];
    if (!metric) return;
    const unit = metric.unit && metric.unit !== "1" ? ` Unit: ${metric.unit}.` : "";
    setText(meaning, `${metric.meaning}${unit}${metric.watch ? ` Watch: ${metric.watch}` : ""}`);
  }

  text(spec) {
    const format = FORMATS[spec.format] ?? number;
    if (spec.evaluation) return format(this.charts.evalValue(spec.name)?.y);
    const here = format(this.charts.value(spec.name)?.y);
    const evaluation = spec.val && this.charts.evalValue(spec.val);
    return evaluation ? `${here} · val ${format(evaluation.y)}` : here;
  }

  showValues() {
    for (const panel of this.panels) {
      if (!panel.card.hidden) setText(panel.value, this.text(panel.spec));
    }
  }

  /** Shows or hides the meaning of all metrics. */
  explainAll(shown) {
    for (const { card, meaning } of this.panels) {
      meaning.hidden = !shown;
      card.querySelector(".ask").setAttribute("aria-expanded", String(shown));
    }
  }

  close() {
    for (const panel of this.panels) panel.chart?.close();
  }
}
