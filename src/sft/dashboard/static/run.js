// The Run screen: how the training goes, live.

import { loadPlotly } from "./charts.js";
import { fill, h, setText } from "./dom.js";
import { RunCharts } from "./run_charts.js";
import { MarkButtons } from "./run_marks.js";
import { showFacts, showGuards, showNotice, showIndicators } from "./run_side.js";
import { savePicture, saveTable } from "./save.js";

export async function show(root, context) {
  const parts = build(root);
  const charts = new RunCharts(context, parts);
  const showSnapshot = () => {
    showFacts(parts.facts, context.snapshot);
    showGuards(parts.guards, context.snapshot);
    showIndicators(parts.indicators, context.snapshot);
    showMeaning(parts.meaning, context.snapshot);
    showNotice(parts.notice, context.snapshot, context.signal);
  };
  addControls(parts, charts, context);
  showSnapshot();
  // It is large, and the first chart waits for it and for the records: both come at once.
  if (context.snapshot.step) loadPlotly().catch(() => {}); // the chart tells what is wrong
  await charts.load();
  return {
    update(message) {
      if (message.kind === "records") charts.add(message);
      if (message.kind === "records" || message.kind === "state") showFacts(parts.facts, context.snapshot);
      if (message.kind === "state") showNotice(parts.notice, context.snapshot, context.signal);
      if (message.kind === "snapshot") {
        showSnapshot();
        if (message.reset) charts.load().catch(() => {}); // the connection tells what is wrong
        else charts.draw(false);
      }
    },
    key: (event) => useKey(event, charts, parts),
    close: () => charts.close(),
  };
}

function build(root) {
  const parts = {
    notice: h("div", { hidden: true }),
    facts: h("dl", { class: "facts", id: "facts" }),
    guards: h("div", { class: "guards", id: "guards" }),
    indicators: h("section", { class: "card", id: "indicators", "aria-labelledby": "indicators-title" }),
    controls: h("div", { class: "controls", id: "controls" }),
    marks: h("div", { class: "controls", role: "group", "aria-label": "Marks on the chart" }),
    legend: h("div", { class: "legend" }),
    big: h("div", { class: "big-plot", id: "loss-chart" }),
    small: h("div", { class: "panels", id: "panels" }),
    meaning: h("p", { class: "meaning small" }),
    empty: h("div", { id: "empty", hidden: true }),
    zoomOut: h("button", { type: "button", id: "zoom-out", hidden: true }, "Whole run"),
    save: h("div", { class: "save" }),
  };
  const head = h("header", { class: "chart-head" },
    h("h2", { id: "loss-title" }, "Loss"), parts.controls, parts.save);
  const foot = h("footer", { class: "chart-foot" }, parts.marks, parts.meaning);
  parts.body = h("div", null,
    h("section", { class: "card big", "aria-labelledby": "loss-title" },
      head, parts.legend, parts.big, foot));
  const grid = h("div", { class: "run-grid" },
    h("div", null, parts.empty, parts.body), parts.indicators);
  fill(root, parts.notice, parts.facts, parts.guards, grid, parts.small);
  return parts;
}

function addControls(parts, charts, context) {
  const log = pressed("log", "log", true, (on) => charts.set("log", on));
  log.title = "Key l";
  const clip = pressed("clip", "clip p99", false, (on) => charts.set("clip", on));
  clip.title = "Leave the highest and lowest hundredth of the train loss out of the axis";
  const x = h("select", { id: "x-axis" }, ["step", "tokens", "time"].map((name) => h("option", { value: name }, name)));
  x.addEventListener("change", () => run(charts.setX(x.value), context));
  const smooth = smoothing(charts, context);
  const explain = pressed("explain", "explain", false, (on) => charts.small.explainAll(on));
  parts.zoomOut.addEventListener("click", () => run(charts.zoom(null, null), context));
  fill(parts.controls, parts.zoomOut, log, clip, h("label", null, "x", x), smooth, explain);
  charts.markButtons = new MarkButtons(parts.marks, charts);
  const { name } = context.snapshot;
  const picture = () => charts.chart && run(savePicture(charts.chart, `${name}: loss`, `${name}-loss`), context);
  const table = () => saveTable(charts.shown(), charts.data.x, `${name}-curves`);
  parts.picture = picture;
  parts.log = log;
  fill(parts.save,
    h("button", { type: "button", id: "save-png", title: "Key s", on: { click: picture } }, "PNG"),
    h("button", { type: "button", id: "save-csv", on: { click: table } }, "CSV"));
}

/** The slider runs over 1 - weight in decades: 0 is none, the middle 0.968, the right end 0.999. */
function smoothing(charts, context) {
  const steps = context.snapshot.num_steps ?? context.snapshot.step ?? 0;
  const start = Math.min(0.995, Math.max(0.5, 1 - 30 / Math.max(1, steps))); // about a thirtieth of the run
  charts.data.smooth = start;
  const value = String(Math.round((-100 / 3) * Math.log10(1 - start)));
  const slider = h("input", { type: "range", id: "smooth", min: "0", max: "100", step: "1", value });
  const shown = h("output", { class: "smooth-value" }, start.toFixed(3));
  let timer = 0;
  slider.addEventListener("input", () => {
    const weight = Math.min(0.999, 1 - 10 ** (-0.03 * Number(slider.value)));
    setText(shown, weight.toFixed(3));
    slider.setAttribute("aria-valuetext", weight.toFixed(3));
    clearTimeout(timer);
    timer = setTimeout(() => run(charts.setSmooth(weight), context), 120);
  });
  return h("label", null, "smoothing", slider, shown);
}

/** A request that a control began: what goes wrong is announced, unless the screen was left. */
function run(promise, context) {
  promise.catch((error) => {
    if (error.name !== "AbortError") context.announce(error.message);
  });
}

function pressed(id, word, on, toggle) {
  const button = h("button", { type: "button", id, "aria-pressed": String(on) }, word);
  button.addEventListener("click", () => {
    const now = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(now));
    toggle(now);
  });
  return button;
}

function showMeaning(node, snapshot) {
  const metric = snapshot.metrics?.loss;
  setText(node, metric ? `Loss, ${metric.unit}. ${metric.meaning}${metric.watch ? ` Watch: ${metric.watch}` : ""}` : "");
}

function useKey(event, charts, parts) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return false;
  const actions = {
    l: () => parts.log.click(),
    s: () => parts.picture(),
    "+": () => charts.zoomBy(0.5),
    "-": () => charts.zoomBy(2),
    Escape: () => (charts.cursor.at !== null ? charts.cursor.set(null) : charts.data.zoomed && charts.zoom(null, null)),
  };
  if (/^Arrow(Left|Right)$/.test(event.key) && event.target === document.body && charts.chart) {
    charts.chart.pointer.keydown(event);
    return true;
  }
  if (!Object.hasOwn(actions, event.key)) return false;
  actions[event.key]();
  return true;
}
