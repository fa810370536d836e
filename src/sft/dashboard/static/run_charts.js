// The charts of the Run screen: one big, several small, one cursor and one zoom over all of them.

import { createChart } from "./charts.js";
import { fill } from "./dom.js";
import { loading, missing } from "./parts.js";
import { Cursor, nearest } from "./pointer.js";
import { Legend } from "./run_legend.js";
import { MARK_GROUPS, shownMarks } from "./run_marks.js";
import { CURVES, lineOf, panelLines, panelsOf, pointsOf, X_TITLES } from "./run_panels.js";
import { RunSeries } from "./series.js";
import { SmallCharts } from "./run_small.js";

export class RunCharts {
  constructor(context, parts) {
    this.context = context;
    this.parts = parts; // { big, legend, small, empty, zoomOut }
    this.data = new RunSeries(context.run);
    this.settings = { log: true, clip: false };
    this.on = new Set(CURVES.filter((curve) => curve.on).map((curve) => curve.key));
    this.markGroups = new Set(MARK_GROUPS.filter((group) => group.on).map((group) => group.key));
    this.cursor = new Cursor();
    this.exact = null; // values at the cursor that downsampling left out: { x, series }
    this.legend = new Legend(parts.legend, (key) => this.toggleCurve(key));
    this.small = new SmallCharts(parts.small, this);
    this.cursor.addEventListener("move", () => this.moved());
    parts.body.hidden = true;
    parts.empty.hidden = false;
    fill(parts.empty, loading("Loading the curves …"));
  }

  async load() {
    this.data.width = Math.max(300, Math.round(this.parts.big.clientWidth) || 1000);
    if (!(await this.data.load(this.context.signal))) return;
    this.draw(true);
  }

  add(message) {
    this.data.add(message.steps, message.evaluations);
    if (message.steps.length || message.evaluations.length) this.draw(false);
    if (this.data.stale && !document.hidden) this.load().catch(() => {}); // the stream tells if the server is gone
  }

  // ----------------------------------------------------------------- drawing

  get isEmpty() {
    return !(this.data.series.loss?.x.length) && !Object.values(this.data.evaluations).some((points) => points.x.length);
  }

  draw(urgent) {
    const { parts } = this;
    parts.empty.hidden = !this.isEmpty;
    parts.body.hidden = this.isEmpty;
    parts.zoomOut.hidden = !this.data.zoomed;
    if (this.isEmpty) {
      this.showEmpty();
      return;
    }
    this.range = this.xRange();
    const options = this.bigOptions();
    if (this.chart) this.chart.draw(options, { urgent });
    else this.chart = createChart(parts.big, options);
    this.small.draw(urgent);
    this.markButtons?.show();
    this.showValues();
  }

  showEmpty() {
    const { state, detail } = this.context.snapshot.state;
    const waits = ["preparing", "training", "measuring"].includes(state);
    const word = state === "unknown" ? "in an unknown state" : state;
    const now = detail ? `${word}: ${detail.replace(/[.…\s]*$/, "")}` : word;
    const then = waits ? " The curves begin with the first step." : "";
    fill(this.parts.empty, missing("No step has been recorded.", `The run is ${now}.${then}`));
  }

  xRange() {
    const { data } = this;
    if (data.zoomed) return [data.from, data.to];
    const ends = [data.series.loss, ...Object.values(data.evaluations)].flatMap((points) => (points?.x.length ? [points.x[0], points.x.at(-1)] : []));
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    const air = low === high ? 0.5 : (high - low) * 0.008; // room for a point at either end
    return [low - air, high + air];
  }

  shownCurves() {
    return CURVES.map((curve) => ({ curve, points: pointsOf(curve, this.data) })).filter(
      ({ curve, points }) => points?.x.length && this.on.has(curve.key),
    );
  }

  bigOptions() {
    const { log, clip } = this.settings;
    const shown = this.shownCurves();
    return {
      label: "Loss by " + this.data.x + ". Arrow keys move the cursor.",
      series: shown.map(({ curve, points }) => lineOf(curve, points)),
      x: this.xSpec(), y: { log, clip }, marks: shownMarks(this), cursor: this.cursor,
      onZoom: (from, to) => this.zoom(from, to), describe: () => this.readout ?? "",
    };
  }

  xSpec() {
    const { x } = this.data;
    return { title: X_TITLES[x], range: this.range, large: x === "tokens", time: x === "time" };
  }

  // ----------------------------------------------------------------- the reader's choices

  toggleCurve(key) {
    if (!this.on.delete(key)) this.on.add(key);
    this.draw(true);
  }

  toggleMarks(key) {
    if (!this.markGroups.delete(key)) this.markGroups.add(key);
    this.draw(true);
  }

  set(name, value) {
    this.settings[name] = value;
    this.draw(true);
  }

  async setSmooth(value) {
    this.data.smooth = value;
    await this.load();
  }

  /** Another x axis: the zoom was in the units of the old one. */
  async setX(x) {
    Object.assign(this.data, { x, from: null, to: null });
    this.cursor.set(null);
    await this.load();
  }

  async zoom(from, to) {
    Object.assign(this.data, { from, to });
    this.exact = null;
    this.context.announce(from === null ? "Zoomed out" : "Zoomed in");
    this.draw(true); // at once with the points that are here; then with those of the server
    await this.load();
  }

  /** Half or twice the width, around the cursor. */
  zoomBy(factor) {
    if (this.isEmpty) return;
    const [low, high] = this.range;
    const middle = this.cursor.at ?? (low + high) / 2;
    const full = [this.full?.[0] ?? low, this.full?.[1] ?? high];
    if (!this.data.zoomed) this.full = [low, high];
    const from = middle - (middle - low) * factor;
    const to = middle + (high - middle) * factor;
    if (factor > 1 && this.data.zoomed && to - from >= full[1] - full[0]) this.zoom(null, null);
    else if (factor < 1) this.zoom(from, to);
    else if (this.data.zoomed) this.zoom(Math.max(full[0], from), to);
  }

  // ----------------------------------------------------------------- values at the cursor

  moved() {
    this.showValues();
    clearTimeout(this.exactTimer);
    const x = this.cursor.at;
    if (x === null || !this.data.thinned) return;
    this.exactTimer = setTimeout(async () => {
      try {
        const series = await this.data.exact(x, this.context.signal);
        if (this.cursor.at === x) {
          this.exact = { x, series };
          this.showValues();
        }
      } catch {
        // the nearest points that are here have to do
      }
    }, 120);
  }

  /** { step, y, smooth } of a series of steps at the cursor; the newest without one. */
  value(name) {
    const x = this.cursor.at;
    const points = x !== null && this.exact?.x === x ? this.exact.series[name] : null;
    if (points?.x.length) return { step: points.step[0], y: points.y[0], smooth: points.smooth?.y[0] ?? null };
    return this.data.at(name, x);
  }

  evalValue(name) {
    return this.data.evalAt(name, this.cursor.at);
  }

  showValues() {
    this.readout = this.legend.show(this);
    this.small.showValues();
  }

  /** All that is on the screen, for the file of numbers. */
  shown() {
    const panels = panelsOf(this.context.snapshot.metrics).filter((panel) => !panel.evaluation).map((panel) => ({ name: panel.name, points: this.data.series[panel.name] }));
    const big = this.shownCurves().map(({ curve, points }) => ({
      name: curve.of === "smooth" ? `${curve.name}_smoothed` : curve.name,
      points: curve.of === "smooth" ? { ...points, step: this.stepsOf(points.x) } : points,
    }));
    return [...big, ...panels].filter(({ points }) => points?.x.length);
  }

  stepsOf(xs) {
    const { loss } = this.data.series;
    return xs.map((x) => loss.step[nearest(loss.x, x)]);
  }

  close() {
    clearTimeout(this.exactTimer);
    this.chart?.close();
    this.small.close();
  }
}
