// What a reader does with a chart: a cursor that several charts share, keys that move it, the zoom.
// Plotly tells where the pointer is and what was brushed; the line of the cursor lies above.

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
    this.label = h("div", { class: "mark-label", hidden: true });
    this.layer = h("div", { class: "layer" }, this.line, this.label);
    chart.node.append(this.layer);
    this.cursor = chart.options.cursor ?? new Cursor();
    this.moved = () => this.place();
    this.cursor.addEventListener("move", this.moved);
    const { node } = chart;
    node.tabIndex = 0;
    node.setAttribute("role", "slider");
    node.setAttribute("aria-label", chart.options.label ?? "chart");
    node.setAttribute("aria-valuenow", "0");
    node.addEventListener("keydown", (event) => this.keydown(event));
    node.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") this.cursor.set(null); });
  }

  /** Hears plotly, once there is a drawing. */
  listen() {
    const { plot } = this.chart;
    if (this.listens) return;
    this.listens = true;
    plot.on("plotly_hover", ({ xvals }) => this.cursor.set(this.snap(xvals[0])));
    plot.on("plotly_relayout", (change) => {
      const [from, to] = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (from !== undefined) this.chart.options.onZoom?.(from, to);
    });
    plot.on("plotly_doubleclick", () => {
      if (this.chart.options.onZoom) this.chart.options.onZoom(null, null);
      else this.chart.draw(this.chart.options, { urgent: true });
    });
  }

  /** Plotly's own x axis, which knows its pixels. */
  get axis() {
    return this.chart.plot._fullLayout?.xaxis;
  }

  /** The ascending x values that the cursor stops at: those of the longest series. */
  stops() {
    return this.chart.options.series.reduce((most, s) => (s.x.length > most.length ? s.x : most), []);
  }

  snap(x) {
    const stops = this.stops();
    return stops.length ? stops[nearest(stops, x)] : null;
  }

  keydown(event) {
    const stops = this.stops();
    if (!stops.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = stops.length - 1;
    const now = this.cursor.at === null ? last : nearest(stops, this.cursor.at);
    const by = event.shiftKey ? Math.max(1, Math.round(stops.length / 20)) : 1;
    const to = { ArrowLeft: now - by, ArrowRight: now + by, Home: 0, End: last }[event.key];
    if (to !== undefined) this.cursor.set(stops[Math.min(last, Math.max(0, to))]);
    else if (event.key === "Escape" && this.cursor.at !== null) this.cursor.set(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  place() {
    const { options, node } = this.chart;
    const { axis } = this;
    const x = this.cursor.at;
    const inside = Boolean(axis) && x !== null && x >= axis.range[0] && x <= axis.range[1];
    this.line.hidden = !inside;
    this.label.hidden = true;
    if (axis) {
      node.setAttribute("aria-valuemin", String(axis.range[0]));
      node.setAttribute("aria-valuemax", String(axis.range[1]));
    }
    if (!inside) return;
    this.line.style.transform = `translateX(${this.pixel(x)}px)`;
    node.setAttribute("aria-valuenow", String(x));
    node.setAttribute("aria-valuetext", options.describe?.(x) ?? String(x));
    this.nameMarks(x);
  }

  pixel(x) {
    return this.axis._offset + this.axis.d2p(x);
  }

  nameMarks(x) {
    const near = (this.chart.options.marks ?? []).filter((mark) => Math.abs(this.pixel(mark.x) - this.pixel(x)) <= 5);
    if (!near.length) return;
    const more = near.length > 4 ? [`and ${near.length - 4} more`] : [];
    setText(this.label, [...near.slice(0, 4).map((mark) => mark.text), ...more].join("\n"));
    this.label.hidden = false;
    const left = this.pixel(x) > this.chart.node.clientWidth / 2;
    this.label.classList.toggle("left", left);
    this.label.style.transform = `translateX(${this.pixel(x)}px)${left ? " translateX(-100%)" : ""}`;
  }

  close() {
    this.cursor.removeEventListener("move", this.moved);
  }
}
