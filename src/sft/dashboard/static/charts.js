// Charts, drawn by plotly (/plotly.min.js, from the wheel; loaded after the first paint), with its
// own axes, hover, zoom and double click.
//
//     const chart = createChart(node, options);   // node: an empty element; its CSS has a height
//     chart.draw(options, { urgent: true });      // options anew; not urgent: a few times a second
//     chart.close();
//
// options = {
//   label     what it shows, for screen readers
//   series    [{ name, x: [], y: [], colour: 1..8 | "quiet" | "error" ..., dash: "solid" | "dash" |
//             "dot", width, opacity, points: bool, bars: bool, low: [], high: [] }]   null in y is a
//             gap; low and high: ends of an interval, drawn as a band; `clipped`: see y.clip
//   x, y      { title, log, range: [low, high], share, large, time, zero, clip: bool }   clip: what
//             lies beyond the 1st and 99th hundredth of the series that are `clipped` is left out
//   marks     [{ x, kind, text }]     vertical lines; kind: see MARKS in parts.js
//   limits    [{ y or x, text, tone }]     lines across the chart
//   top       pixels above the drawing
//   cursor    a Cursor shared by several charts, or nothing
//   onZoom    (from, to) after brushing; (null, null) after a double click
//   describe  (x) => text at the cursor, for screen readers
// }

import { h, visible } from "./dom.js";
import { duration } from "./format.js";
import { MARKS } from "./parts.js";
import { Pointer } from "./pointer.js";

const MARGIN = { l: 46, r: 10, t: 10, b: 22, pad: 0 };
const PAUSE = 250; // milliseconds between two drawings of a chart that grows, at least
const CONFIG = { displayModeBar: false, doubleClick: false, responsive: false, showAxisDragHandles: false };
const MOST_MARKS = 120; // lines of one kind; more cannot be told apart
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800];

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
    this.themed = () => this.draw(this.options, { urgent: true });
    this.sized = new ResizeObserver(this.themed);
    this.sized.observe(node);
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
    const { data, layout } = figureOf(this.options, width, height, this.node);
    await plotly.react(this.plot, data, layout, CONFIG);
    this.drawnAt = performance.now();
    this.pause = Math.max(PAUSE, 8 * (this.drawnAt - began));
    this.node.dataset.drawn = String(Number(this.node.dataset.drawn ?? 0) + 1);
    this.pointer.listen();
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

/** The colour of a CSS variable, `light-dark(#..., #...)`: 1..8 of the series, or a name such as "quiet". */
function colourOf(name, node) {
  const variable = typeof name === "number" ? `--series-${name}` : `--${name}`;
  const [light, dark] = getComputedStyle(node).getPropertyValue(variable).match(/#\w+/g);
  return document.documentElement.dataset.theme === "dark" ? dark : light;
}

/** Plotly reads `<b>` and the like in texts; nothing of ours needs that. */
const plain = (text) => visible(text).replace(/[<>&]/g, (c) => ({ "<": "‹", ">": "›", "&": "＆" })[c]);

function figureOf(options, width, height, node) {
  const { series, x = {}, y = {} } = options;
  const margin = { ...MARGIN, t: options.top ?? MARGIN.t };
  const touch = matchMedia("(pointer: coarse)").matches; // a finger scrolls the page
  const layout = {
    width, height, margin, showlegend: false, hovermode: "x", hoverdistance: -1,
    dragmode: touch ? false : "zoom", bargap: 0.04,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(node).fontFamily, size: 11, color: colourOf("quiet", node) },
    xaxis: { ...axis(x, width / 90, node), showgrid: false, showline: true, ticks: "outside", ticklen: 3, fixedrange: touch },
    yaxis: { ...axis({ ...y, range: y.range ?? (y.clip && clippedRange(series, y.log)) }, height / 44, node), fixedrange: true },
    shapes: [...markLines(options.marks ?? [], node), ...limitLines(options.limits ?? [], x.range, node)],
  };
  return { data: series.flatMap((s) => traces(s, node)), layout };
}

function axis({ range, log, share, large, time, zero }, most, node) {
  const nticks = Math.max(3, Math.floor(most));
  return {
    type: log ? "log" : "linear", rangemode: zero ? "tozero" : "normal",
    ...(range ? { range: log ? range.map(Math.log10) : range } : { autorange: true }),
    nticks, tickformat: share ? "~%" : log ? "~r" : "", exponentformat: large ? "SI" : "e", separatethousands: !large,
    minexponent: large ? 3 : 4, gridcolor: colourOf("grid", node), zeroline: false, automargin: false,
    linecolor: colourOf("line", node), tickcolor: colourOf("line", node), ...(time && range ? timeTicks(range, nticks) : {}),
  };
}

/** Ticks of an axis in seconds: plotly has none for spans of time. */
function timeTicks([low, high], most) {
  const step = SECONDS.find((seconds) => (high - low) / seconds <= most) ?? 2_592_000;
  const tickvals = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) tickvals.push(at);
  return { tickmode: "array", tickvals, ticktext: tickvals.map((at) => (at ? duration(at).replace(/( 00 \w+)$/, "").replace(".0 ", " ") : "0")) };
}

/** [low, high] of y without the lowest and highest hundredth of the series that are `clipped`. */
function clippedRange(series, log) {
  let [low, high] = [Infinity, -Infinity];
  for (const { y, clipped } of series) {
    const sorted = y.filter((v) => Number.isFinite(v) && (!log || v > 0)).sort((a, b) => a - b);
    if (!sorted.length) continue;
    const skip = clipped ? Math.floor(sorted.length / 100) : 0;
    low = Math.min(low, sorted[skip]);
    high = Math.max(high, sorted[sorted.length - 1 - skip]);
  }
  if (low > high) return null;
  const air = log ? Math.max(1.05, (high / low) ** 0.06) : (high - low || 1) * 0.06;
  return log ? [low / air, high * air] : [low - air, high + air];
}

function traces(series, node) {
  const colour = colourOf(series.colour ?? 1, node);
  const common = { name: plain(series.name), x: series.x, y: series.y, opacity: series.opacity ?? 1, hoverinfo: "none" };
  if (series.bars) return [{ ...common, type: "bar", width: series.bars, marker: { color: colour }, text: series.text, hoverinfo: "text", textposition: "none" }];
  const trace = {
    ...common, type: "scatter", connectgaps: Boolean(series.points),
    // A line through one point would not be seen.
    mode: series.points || series.x.length === 1 ? "lines+markers" : "lines",
    line: { color: colour, width: series.width ?? 1.6, dash: series.dash ?? "solid", simplify: true },
    marker: { color: colour, size: series.size ?? 5, symbol: series.symbol ?? "circle" },
  };
  if (!series.low) return [trace];
  const edge = { type: "scatter", x: series.x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
  return [{ ...edge, y: series.low }, { ...edge, y: series.high, fill: "tonexty", fillcolor: `${colour}29` }, trace];
}

function markLines(marks, node) {
  const number = {};
  for (const { kind } of marks) number[kind] = (number[kind] ?? 0) + 1;
  const passed = {};
  return marks.flatMap(({ x, kind }) => {
    passed[kind] = (passed[kind] ?? 0) + 1;
    if (number[kind] > MOST_MARKS && passed[kind] % Math.ceil(number[kind] / MOST_MARKS)) return [];
    const tone = MARKS[kind]?.[1] ?? "quiet";
    // What goes as planned is a short tick on the axis; an incident crosses the whole chart.
    const planned = tone === "quiet" || tone === "good";
    const line = { color: colourOf(tone, node), width: planned ? 1.5 : 1, dash: planned ? "solid" : "dash" };
    return [{ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: planned ? 0.035 : 1, line, layer: "below" }];
  });
}

/** Lines across the chart at a y, or up at an x with their text above. */
function limitLines(limits, range, node) {
  return limits.map(({ x, y, text, tone = "quiet", level = 0 }) => {
    const colour = colourOf(tone, node);
    const line = { type: "line", line: { color: colour, width: 1, dash: "dash" } };
    if (x === undefined) return { ...line, xref: "paper", yref: "y", x0: 0, x1: 1, y0: y, y1: y };
    const xanchor = x > (range[0] + range[1]) / 2 ? "right" : "left";
    const label = { text: plain(text), textposition: "end", textangle: 0, xanchor, yanchor: "bottom", padding: 1 + 13 * level, font: { color: colour } };
    return { ...line, xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, label };
  });
}
