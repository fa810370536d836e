// The curves of a run: fetched downsampled, then grown by the records that arrive.

import { get, runPath } from "./api.js";
import { nearest } from "./pointer.js";

const COLUMN = { step: "step", tokens: "num_tokens", time: "seconds" };
const EVAL_NAME = /^(val|usage|retain|train_probe|usage_drift|test)_/;

export class RunSeries {
  constructor(run) {
    this.run = run;
    this.x = "step";
    this.smooth = 0.9;
    this.from = null; // the zoom, in units of x
    this.to = null;
    this.width = 1200;
    this.total = 0; // step records in the run
    this.series = {};
    this.evaluations = {};
    this.fresh = 0; // points added since the last load
    this.loadedAt = -Infinity;
    this.asked = 0;
  }

  get zoomed() {
    return this.from !== null;
  }

  /** Fetches everything anew; false where a later call overtook this one. */
  async load(signal) {
    const mine = (this.asked += 1);
    const { x, from, to, width, smooth } = this;
    const answer = await get(runPath(this.run, "series", { x, from, to, width, smooth }), signal);
    if (mine !== this.asked) return false;
    this.series = answer.series ?? {};
    this.evaluations = answer.evaluations ?? {};
    this.total = answer.total ?? 0;
    this.fresh = 0;
    this.loadedAt = performance.now();
    return true;
  }

  /** True when so much was added that the server should downsample anew. */
  get stale() {
    const age = performance.now() - this.loadedAt;
    const shown = this.series.loss?.x.length ?? 0;
    if (!shown) return this.fresh > 0 && age > 300; // the first steps: only the server knows the names
    return this.fresh > 0 && age > 5000 && (this.fresh > 50 || shown > 2 * this.width || age > 30_000);
  }

  /** Some points were left out by downsampling. */
  get thinned() {
    return this.total > (this.series.loss?.x.length ?? 0);
  }

  add(steps, evaluations) {
    for (const record of steps) this.addStep(record);
    for (const record of evaluations) this.addEval(record);
  }

  addStep(record) {
    this.total += 1;
    const x = record[COLUMN[this.x]];
    if (!Number.isFinite(x) || this.outside(x)) return;
    this.fresh += 1;
    for (const [name, points] of Object.entries(this.series)) {
      const y = Number.isFinite(record[name]) ? record[name] : null;
      if (x <= (points.x.at(-1) ?? -Infinity)) continue;
      points.x.push(x);
      points.y.push(y);
      points.step.push(record.step);
      if (y !== null && points.smooth) this.addSmooth(points.smooth, x, y);
    }
  }

  /** The next value of the debiased moving average m_t / (1 - a^t), from the one before. */
  addSmooth(smooth, x, y) {
    const a = this.smooth;
    const weight = 1 - a ** this.total;
    const before = smooth.y.findLast((v) => v !== null) ?? y;
    smooth.x.push(x);
    smooth.y.push((a * (1 - a ** (this.total - 1)) * before + (1 - a) * y) / (weight || 1));
  }

  addEval(record) {
    const x = this.xOfStep(record.step);
    if (x === null || this.outside(x)) return;
    for (const [name, y] of Object.entries(record)) {
      if (!EVAL_NAME.test(name) || !Number.isFinite(y)) continue;
      const points = (this.evaluations[name] ??= { x: [], y: [], step: [] });
      if (record.step <= (points.step.at(-1) ?? -1)) continue;
      points.x.push(x);
      points.y.push(y);
      points.step.push(record.step);
    }
  }

  outside(x) {
    return this.zoomed && (x < this.from || x > this.to);
  }

  /** Where a step stands on the x axis; null where that is not known. */
  xOfStep(step) {
    if (this.x === "step") return step;
    if (step === 0) return 0;
    const points = this.series.loss;
    if (!points?.step.length || step > points.step.at(-1)) return null;
    return points.x[nearest(points.step, step)];
  }

  /** { step, y, smooth } of a series of steps at `x`, or nothing. */
  at(name, x) {
    const points = this.series[name];
    if (!points?.x.length) return null;
    const i = x === null ? points.x.length - 1 : nearest(points.x, x);
    const { smooth } = points;
    const j = smooth?.x.length ? nearest(smooth.x, points.x[i]) : -1;
    return { step: points.step[i], y: points.y[i], smooth: j < 0 ? null : smooth.y[j] };
  }

  /** { step, y } of the last evaluation at or before `x`, or nothing. */
  evalAt(name, x) {
    const points = this.evaluations[name];
    if (!points) return null;
    for (let i = points.x.length - 1; i >= 0; i -= 1) {
      if ((x === null || points.x[i] <= x) && points.y[i] !== null) return { step: points.step[i], y: points.y[i] };
    }
    return null;
  }

  /** All values at exactly `x`, from the server; for curves that are downsampled. */
  async exact(x, signal) {
    const query = { x: this.x, from: x, to: x, width: 10, smooth: this.smooth };
    return (await get(runPath(this.run, "series", query), signal)).series ?? {};
  }
}
