// What a reader does with a chart: a cursor shared by several, a brush that zooms, keys.

import { h, setText } from "./dom.js";

/** The place that readers look at, in units of x; null is nowhere. */
export class Cursor extends EventTarget {
  at = null;

  set(x) {
    if (x === this.at) return;
    this.at = x;
    this.dispatchEvent(new Event("move"));
  }
}

const MIN_BRUSH = 6; // pixels; less is a click

/** Index of the number in the ascending `list` that is nearest to `x`. */
export function nearest(list, x) {
  let low = 0;
  let high = list.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle] < x) low = middle;
    else high = middle;
  }
  return Math.abs(list[high] - x) < Math.abs(list[low] - x) ? high : low;
}

export class Pointer {
  constructor(chart) {
    this.chart = chart;
    this.line = h("div", { class: "cursor", hidden: true });
    this.brush = h("div", { class: "brush", hidden: true });
    this.label = h("div", { class: "mark-label", hidden: true });
    this.layer = h("div", { class: "layer" }, this.brush, this.line, this.label);
    chart.node.append(this.layer);
    this.cursor = chart.options.cursor ?? new Cursor();
    this.moved = () => this.place();
    this.cursor.addEventListener("move", this.moved);
    const { node } = chart;
    node.tabIndex = 0;
    node.setAttribute("role", "slider");
    node.setAttribute("aria-label", chart.options.label ?? "chart");
    node.setAttribute("aria-valuenow", "0");
    for (const type of ["pointermove", "pointerdown", "pointerup", "pointercancel", "pointerleave", "dblclick", "keydown"]) {
      node.addEventListener(type, (event) => this[type]?.(event));
    }
  }

  // ---------------------------------------------------------------- pixels and values

  xAt(event) {
    const { frame, node } = this.chart;
    if (!frame) return null;
    const share = (event.clientX - node.getBoundingClientRect().left - frame.left) / frame.width;
    const [low, high] = frame.x;
    return low + Math.min(1, Math.max(0, share)) * (high - low);
  }

  pixel(x) {
    const { frame } = this.chart;
    return frame.left + ((x - frame.x[0]) / (frame.x[1] - frame.x[0])) * frame.width;
  }

  /** The ascending x values that the cursor stops at: those of the longest series. */
  stops() {
    return this.chart.options.series.reduce((most, s) => (s.x.length > most.length ? s.x : most), []);
  }

  snap(x) {
    const stops = this.stops();
    return stops.length && x !== null ? stops[nearest(stops, x)] : null;
  }

  // ---------------------------------------------------------------- events

  pointermove(event) {
    const x = this.xAt(event);
    if (this.from === undefined) {
      this.cursor.set(this.snap(x));
    } else {
      this.showBrush(x);
    }
  }

  pointerdown(event) {
    if (event.button !== 0 || !this.chart.frame) return;
    this.cursor.set(this.snap(this.xAt(event)));
    if (event.pointerType === "touch" || !this.chart.options.onZoom) return; // a finger scrolls
    this.from = this.xAt(event);
    this.chart.node.setPointerCapture(event.pointerId);
  }

  pointerup(event) {
    if (this.from === undefined) return;
    const ends = [this.from, this.xAt(event)].sort((a, b) => a - b);
    const wide = this.pixel(ends[1]) - this.pixel(ends[0]) >= MIN_BRUSH;
    this.pointercancel();
    if (wide) this.chart.options.onZoom(...ends);
  }

  pointercancel() {
    this.from = undefined;
    this.brush.hidden = true;
  }

  pointerleave(event) {
    if (this.from === undefined && event.pointerType !== "touch") this.cursor.set(null);
  }

  dblclick() {
    this.pointercancel();
    this.chart.options.onZoom?.(null, null);
  }

  keydown(event) {
    const stops = this.stops();
    if (!stops.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = stops.length - 1;
    const now = this.cursor.at === null ? last : nearest(stops, this.cursor.at);
    const by = event.shiftKey ? Math.max(1, Math.round(stops.length / 20)) : 1;
    const to = { ArrowLeft: now - by, ArrowRight: now + by, Home: 0, End: last }[event.key];
    if (to !== undefined) {
      this.cursor.set(stops[Math.min(last, Math.max(0, to))]);
    } else if (event.key === "Escape" && this.cursor.at !== null) {
      this.pointercancel();
      this.cursor.set(null);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // ---------------------------------------------------------------- what is seen

  showBrush(x) {
    const [low, high] = [this.from, x].sort((a, b) => a - b);
    this.brush.hidden = false;
    this.brush.style.left = `${this.pixel(low)}px`;
    this.brush.style.width = `${this.pixel(high) - this.pixel(low)}px`;
  }

  place() {
    const { frame, options, node } = this.chart;
    const x = this.cursor.at;
    const inside = Boolean(frame) && x !== null && x >= frame.x[0] && x <= frame.x[1];
    this.line.hidden = !inside;
    this.label.hidden = true;
    if (frame) {
      this.layer.style.setProperty("--top", `${frame.top}px`);
      this.layer.style.setProperty("--height", `${frame.height}px`);
      node.setAttribute("aria-valuemin", String(frame.x[0]));
      node.setAttribute("aria-valuemax", String(frame.x[1]));
    }
    if (!inside) return;
    this.line.style.transform = `translateX(${this.pixel(x)}px)`;
    node.setAttribute("aria-valuenow", String(x));
    node.setAttribute("aria-valuetext", options.describe?.(x) ?? String(x));
    this.nameMarks(x);
  }

  nameMarks(x) {
    const { options, frame } = this.chart;
    const near = (options.marks ?? []).filter((mark) => Math.abs(this.pixel(mark.x) - this.pixel(x)) <= 5);
    if (!near.length) return;
    const more = near.length > 4 ? [`and ${near.length - 4} more`] : [];
    setText(this.label, [...near.slice(0, 4).map((mark) => mark.text), ...more].join("\n"));
    this.label.hidden = false;
    const left = this.pixel(x) > frame.left + frame.width / 2;
    this.label.classList.toggle("left", left);
    this.label.style.transform = `translateX(${this.pixel(x)}px)${left ? " translateX(-100%)" : ""}`;
  }

  close() {
    this.cursor.removeEventListener("move", this.moved);
  }
}
