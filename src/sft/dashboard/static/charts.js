// Charts, drawn by plotly (/plotly.min.js, from the wheel; loaded after the first paint).
//
//     const chart = createChart(node, options);   // node: an empty element; its CSS has a height
//     chart.draw(options, { urgent: true });      // options anew; not urgent: a few times a second
//     chart.close();
//
// options = {
//   label     what it shows, for screen readers
//   series    [{ name, x: [], y: [], colour: 1..8 | "quiet" | "error" ..., dash: "solid" | "dash" |
//             "dot", width, opacity, points: bool, low: [], high: [] }]     null in y is a gap;
//             low and high: ends of an interval, drawn as a band
//   x, y      { title, log, range: [low, high], share, large, time, whole, zero, clip: bool }
//   marks     [{ x, kind, text }]     vertical lines; kind: see MARKS in parts.js
//   limits    [{ y, text, tone }]     horizontal lines
//   cursor    a Cursor shared by several charts, or nothing
//   onZoom    (from, to) after brushing; (null, null) after a double click
//   describe  (x) => text at the cursor, for screen readers
// }
// Plotly only draws. Cursor, brush and keys are ours (pointer.js): one cursor over many charts
// costs nothing then, a page still scrolls under a finger, and no style is set from text, which
// the Content-Security-Policy forbids.

import { extent, logTicks, rangeOf, tickTexts, ticks } from "./axes.js";
import { h, visible } from "./dom.js";
import { MARKS } from "./parts.js";
import { Pointer } from "./pointer.js";

const MARGIN = { l: 46, r: 10, t: 10, b: 22, pad: 0 };
const PAUSE = 250; // milliseconds between two drawings of a chart that grows, at least
const CONFIG = { staticPlot: true, displayModeBar: false, responsive: false };
const MOST_MARKS = 120; // lines of one kind; more cannot be told apart

let plotlyLoads = null;

/** Plotly, loaded once. Raises where the file cannot be had. */
export function loadPlotly() {
  plotlyLoads ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const restore = withoutStyleSheets();
    script.src = "/plotly.min.js";
    script.onload = () => {
      restore();
      resolve(globalThis.Plotly);
    };
    script.onerror = () => {
      restore();
      plotlyLoads = null;
      script.remove();
      reject(new Error("The chart library could not be loaded from the server."));
    };
    document.head.append(script);
  });
  return plotlyLoads;
}

/**
 * While plotly starts it adds the style sheet of its maps, which the Content-Security-Policy would
 * refuse aloud. It gets an inert element instead. (Its own style sheet it leaves out by itself
 * where index.html has an element `plotly.js-style-global`; run.css has the rules we need of it.)
 */
function withoutStyleSheets() {
  const make = document.createElement;
  document.createElement = (tag, ...more) => make.call(document, tag === "style" ? "template" : tag, ...more);
  return () => { delete document.createElement; };
}

// ------------------------------------------------------------------- when to draw

const waiting = new Set();
let timer = 0;

function pump() {
  timer = 0;
  if (document.hidden) return;
  const now = performance.now();
  let next = Infinity;
  for (const chart of waiting) {
    if (!chart.onScreen) continue;
    const wait = chart.urgent ? 0 : chart.drawnAt + chart.pause - now;
    if (wait > 0) {
      next = Math.min(next, wait);
    } else {
      waiting.delete(chart);
      chart.paint();
      next = 0; // one chart at a time, so that keys and scrolling are heard in between
      break;
    }
  }
  if (next < Infinity && waiting.size) timer = setTimeout(pump, next);
}

function schedule(chart) {
  waiting.add(chart);
  if (!timer) timer = setTimeout(pump, 0);
}

document.addEventListener("visibilitychange", () => { if (!timer) timer = setTimeout(pump, 0); });

// ------------------------------------------------------------------- one chart

class Chart {
  constructor(node, options) {
    this.plot = h("div", { class: "plot" });
    this.node = node;
    this.options = options;
    this.drawnAt = -Infinity;
    this.pause = PAUSE;
    this.onScreen = false;
    node.classList.add("chart");
    node.append(this.plot);
    this.pointer = new Pointer(this);
    this.seen = new IntersectionObserver((entries) => {
      this.onScreen = entries.at(-1).isIntersecting;
      if (this.onScreen && waiting.has(this)) schedule(this);
    }, { rootMargin: "200px" });
    this.seen.observe(node);
    this.sized = new ResizeObserver(() => this.draw(this.options, { urgent: true }));
    this.sized.observe(node);
    this.themed = () => this.draw(this.options, { urgent: true });
    document.addEventListener("themechange", this.themed);
  }

  draw(options, { urgent = false } = {}) {
    this.options = options;
    this.urgent = this.urgent || urgent;
    schedule(this);
  }

  async paint() {
    this.urgent = false;
    let plotly;
    try {
      plotly = await loadPlotly();
    } catch (error) {
      this.plot.textContent = error.message;
      return;
    }
    const { clientWidth: width, clientHeight: height } = this.node;
    if (this.closed || !width || !height) return;
    const began = performance.now();
    const figure = figureOf(this.options, width, height, this.node);
    this.frame = figure.frame;
    await plotly.react(this.plot, figure.data, figure.layout, CONFIG);
    this.drawnAt = performance.now();
    this.pause = Math.max(PAUSE, 8 * (this.drawnAt - began));
    this.node.dataset.drawn = String(Number(this.node.dataset.drawn ?? 0) + 1);
    this.pointer.place();
  }

  /** A PNG of what is shown, twice as fine as the screen, on the ground colour. */
  async image(title) {
    const plotly = await loadPlotly();
    const [width, height] = [Math.max(this.node.clientWidth, 640), Math.max(this.node.clientHeight, 320) + 30];
    const figure = figureOf(this.options, width, height, this.node);
    figure.layout.paper_bgcolor = colourOf("ground", this.node);
    figure.layout.margin = { ...MARGIN, t: 34, b: 40 };
    figure.layout.title = { text: plain(title), font: { size: 13 }, x: 0.01, y: 0.98, yanchor: "top" };
    figure.layout.showlegend = true;
    figure.layout.legend = { orientation: "h", x: 1, xanchor: "right", y: 1.01, yanchor: "bottom" };
    figure.layout.xaxis.title = { text: plain(this.options.x?.title ?? ""), standoff: 4 };
    return plotly.toImage({ data: figure.data, layout: figure.layout, config: CONFIG }, { format: "png", width, height, scale: 2 });
  }

  close() {
    this.closed = true;
    waiting.delete(this);
    this.seen.disconnect();
    this.sized.disconnect();
    this.pointer.close();
    document.removeEventListener("themechange", this.themed);
    globalThis.Plotly?.purge(this.plot);
  }
}

/** A chart in `node`; see the top of this file. */
export function createChart(node, options) {
  const chart = new Chart(node, options);
  schedule(chart);
  return chart;
}

// ------------------------------------------------------------------- what plotly is given

/** The colour of a CSS variable: 1..8 of the series, or a name such as "quiet". */
function colourOf(name, node) {
  const variable = typeof name === "number" ? `--series-${name}` : `--${name}`;
  return getComputedStyle(node).getPropertyValue(variable).trim();
}

/** Plotly reads `<b>` and the like in texts; nothing of ours needs that. */
const plain = (text) => visible(text).replace(/[<>&]/g, (c) => ({ "<": "‹", ">": "›", "&": "＆" })[c]);

function figureOf(options, width, height, node) {
  const xLists = options.series.map((s) => s.x);
  const yLists = options.series.flatMap((s) => [s.y, ...(s.low ? [s.low, s.high] : [])]);
  for (const limit of options.limits ?? []) yLists.push([limit.y]);
  const x = { ...options.x, range: options.x?.range ?? extent(xLists) };
  const y = { ...options.y, range: options.y?.range ?? rangeOf(yLists, options.y) };
  const frame = {
    left: MARGIN.l, top: MARGIN.t, width: width - MARGIN.l - MARGIN.r, height: height - MARGIN.t - MARGIN.b, x: x.range,
  };
  const layout = {
    width, height, margin: MARGIN, showlegend: false, hovermode: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(node).fontFamily, size: 11, color: colourOf("quiet", node) },
    xaxis: axis(x, Math.max(3, Math.floor(frame.width / 90)), node, false),
    yaxis: axis(y, Math.max(3, Math.floor(frame.height / 44)), node, true),
    shapes: [...markLines(options.marks ?? [], x.range, node), ...limitLines(options.limits ?? [], node)],
  };
  return { data: options.series.flatMap((s) => traces(s, node)), layout, frame };
}

function axis(spec, most, node, horizontal) {
  const [low, high] = spec.range;
  const values = spec.log ? logTicks(low, high, most) : ticks(low, high, most, spec.whole);
  return {
    type: spec.log ? "log" : "linear",
    range: spec.log ? [Math.log10(low), Math.log10(high)] : [low, high],
    tickmode: "array", tickvals: values, ticktext: tickTexts(values, spec),
    showgrid: horizontal, gridcolor: colourOf("grid", node), zeroline: false,
    showline: !horizontal, linecolor: colourOf("line", node), ticks: horizontal ? "" : "outside",
    ticklen: 3, tickcolor: colourOf("line", node), fixedrange: true, automargin: false,
  };
}

function traces(series, node) {
  const colour = colourOf(series.colour ?? 1, node);
  const line = { color: colour, width: series.width ?? 1.6, dash: series.dash ?? "solid", simplify: true };
  // A line through one point would not be seen.
  const mode = series.points || series.x.length === 1 ? "lines+markers" : "lines";
  const trace = {
    type: "scatter", name: plain(series.name), x: series.x, y: series.y, mode,
    line, opacity: series.opacity ?? 1, hoverinfo: "skip", connectgaps: Boolean(series.points),
    marker: { color: colour, size: series.size ?? 5, symbol: series.symbol ?? "circle" },
  };
  if (!series.low) return [trace];
  const edge = { type: "scatter", x: series.x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
  return [{ ...edge, y: series.low }, { ...edge, y: series.high, fill: "tonexty", fillcolor: faded(colour) }, trace];
}

/** `#rrggbb` at 16 %: plotly knows no color-mix. */
function faded(colour) {
  const parts = /^#(..)(..)(..)$/.exec(colour)?.slice(1).map((part) => parseInt(part, 16));
  return parts ? `rgba(${parts.join(",")},0.16)` : colour;
}

function markLines(marks, [low, high], node) {
  const shown = marks.filter((mark) => mark.x >= low && mark.x <= high);
  const count = {};
  for (const mark of shown) count[mark.kind] = (count[mark.kind] ?? 0) + 1;
  const passed = {};
  return shown.flatMap((mark) => {
    passed[mark.kind] = (passed[mark.kind] ?? 0) + 1;
    if (count[mark.kind] > MOST_MARKS && passed[mark.kind] % Math.ceil(count[mark.kind] / MOST_MARKS)) return [];
    const tone = MARKS[mark.kind]?.[1] ?? "quiet";
    // What goes as planned is a short tick on the axis; an incident crosses the whole chart.
    const planned = tone === "quiet" || tone === "good";
    const line = { color: colourOf(tone, node), width: planned ? 1.5 : 1, dash: planned ? "solid" : "dash" };
    return [{ type: "line", xref: "x", yref: "paper", x0: mark.x, x1: mark.x, y0: 0, y1: planned ? 0.035 : 1, line, layer: "below" }];
  });
}

function limitLines(limits, node) {
  return limits.map((limit) => ({
    type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: limit.y, y1: limit.y,
    line: { color: colourOf(limit.tone ?? "quiet", node), width: 1, dash: "dash" },
  }));
}
