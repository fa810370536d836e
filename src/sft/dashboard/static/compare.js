// The screen "Compare": runs side by side, their curves, their paired differences, their settings.

import { get, runPath } from "./api.js";
import { createChart } from "./charts.js";
import { choice, searchBox, tick } from "./controls.js";
import { fill, h, head, num, rowName, setText } from "./dom.js";
import { count, NONE, number, valueText, wholeText, words } from "./format.js";
import { LoadedScreen } from "./loaded.js";
import { failure, loading, missing, scrollBox } from "./parts.js";
import { forest } from "./paired.js";
import { Cursor, nearest } from "./pointer.js";
import { MOST, RunTable, lineKey } from "./run_table.js";

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const PALETTE = [1, 2, 3, 4, 5, 8]; // of MOST runs; 6 and 7 are too like others
const PROBES = ["val", "usage", "test", "retain"];
const STEPS = ["loss", "accuracy", "perplexity", "learning_rate", "grad_norm"];

/** The same run has the same colour as long as the page is open; no two chosen runs share one. */
class Colours {
  constructor() {
    this.given = new Map();
  }

  of(id) {
    return this.given.get(id) ?? 8;
  }

  keep(ids) {
    for (const id of [...this.given.keys()]) if (!ids.includes(id)) this.given.delete(id);
    for (const id of ids) {
      if (this.given.has(id)) continue;
      const taken = new Set(this.given.values());
      const first = parseInt(id.slice(0, 6), 16) % MOST || 0;
      const order = [...PALETTE.slice(first), ...PALETTE.slice(0, first)];
      this.given.set(id, order.find((colour) => !taken.has(colour)));
    }
  }
}

const colours = new Colours();

export async function show(root, context) {
  if (!context.runs.length) {
    fill(root, h("h1", null, "Compare"), missing("No runs here yet.", "A run appears as soon as `sft train` has made its folder."));
    return {};
  }
  return new Screen(root, context);
}

class Screen extends LoadedScreen {
  constructor(root, context) {
    super(root, context);
    const known = new Set(context.runs.map((row) => row.id));
    this.picked = (context.params.get("runs") ?? "").split(",").filter((id) => known.has(id)).slice(0, MOST);
    this.probe = PROBES.includes(context.params.get("probe")) ? context.params.get("probe") : "val";
    this.series = new Map(); // id: answer of /series
    this.metrics = { evaluations: "val_loss", series: "loss" };
    this.allSettings = false;
    this.asked = 0;
    colours.keep(this.picked);
    this.table = new RunTable(context.runs, { picked: this.picked, colours, sort: { key: "best_val_loss", down: false }, onPick: (ids) => this.pick(ids) });
    this.detail = h("div", { class: "compared" });
    fill(root,
      h("header", { class: "screen-head" }, h("h1", null, "Compare runs"), h("a", { href: "#/" }, "All runs")),
      this.table.node, this.detail);
    this.load();
  }

  update(message) {
    if (message.kind !== "runs") return;
    this.table.setRuns(message.runs);
  }

  pick(ids) {
    this.picked = ids;
    colours.keep(ids);
    const query = new URLSearchParams({ runs: ids.join(",") });
    if (this.probe !== "val") query.set("probe", this.probe);
    history.replaceState(null, "", `#/compare${ids.length ? `?${decodeURIComponent(query)}` : ""}`);
    this.context.announce(`${ids.length} runs chosen`);
    this.again();
  }

  row(id) {
    return this.context.runs.find((row) => row.id === id);
  }

  /** Name of a run with the key of its line. */
  name(id) {
    const slot = this.picked.indexOf(id);
    return h("span", { class: "run-name" }, slot >= 0 && lineKey(colours.of(id), `d${slot}`), this.row(id)?.name ?? id);
  }

  async load() {
    const mine = (this.asked += 1);
    if (this.picked.length < 2) {
      this.closeCharts();
      fill(this.detail, missing("Choose two to six runs above.", "Their curves, their settings, and their losses row by row are then compared; ",
        "the first one chosen is the one that the others are compared with."));
      return;
    }
    if (!this.detail.querySelector(".part")) fill(this.detail, loading("Comparing …"));
    try {
      const { signal } = this.context;
      const missed = this.picked.filter((id) => !this.series.has(id) || this.row(id)?.state !== "finished");
      const query = new URLSearchParams({ runs: this.picked.join(","), probe: this.probe });
      const [answer] = await Promise.all([
        get(`/api/compare?${decodeURIComponent(query)}`, signal),
        ...missed.map(async (id) => this.series.set(id, await get(runPath(id, "series", { width: 700, smooth: 0.9 }), signal))),
      ]);
      if (mine === this.asked) this.draw(answer);
    } catch (error) {
      if (error.name !== "AbortError" && mine === this.asked) fill(this.detail, failure(error, () => this.load()));
    }
  }

  draw(answer) {
    this.closeCharts();
    const parts = [
      ["Paired difference", this.pairedPart(answer)],
      ["Curves", this.curvesPart()],
      ["Settings", this.settingsPart(answer)],
    ];
    fill(this.detail, parts.map(([title, body]) => h("section", { class: "part" }, h("h2", null, title), body)));
  }

  pairedPart(answer) {
    const first = choice("A is", this.picked.map((id) => [id, this.row(id)?.name ?? id]), this.picked[0], (id) => {
      this.table.picked = [id, ...this.picked.filter((other) => other !== id)];
      this.pick(this.table.picked);
    });
    const probe = choice("rows of", PROBES.map((name) => [name, name]), this.probe, (name) => { this.probe = name; this.pick(this.picked); });
    const pairs = answer.paired.map((pair, i) => ({ ...pair, id: answer.runs[i + 1].id }));
    return [h("div", { class: "controls" }, first, probe), forest(pairs, (id) => this.name(id))];
  }

  // ----------------------------------------------------------------- curves

  curvesPart() {
    const evalNames = [...new Set(this.picked.flatMap((id) => Object.keys(this.series.get(id)?.evaluations ?? {})))];
    if (!evalNames.includes(this.metrics.evaluations)) this.metrics.evaluations = evalNames[0] ?? "val_loss";
    this.cursor = new Cursor();
    this.legend = h("table", { class: "curve-values" });
    const places = { evaluations: h("div", { class: "curve-plot" }), series: h("div", { class: "curve-plot" }) };
    for (const kind of ["evaluations", "series"]) this.charts.push(createChart(places[kind], this.options(kind)));
    const redraw = () => {
      ["evaluations", "series"].forEach((kind, i) => this.charts[i].draw(this.options(kind), { urgent: true }));
      this.values();
    };
    const select = (kind, names) => choice("", names.map((name) => [name, words(name)]), this.metrics[kind], (name) => { this.metrics[kind] = name; redraw(); });
    const figure = (kind, names, note) => h("figure", null,
      h("figcaption", null, select(kind, names), h("span", { class: "quiet small" }, note)), places[kind]);
    this.cursor.addEventListener("move", () => this.values());
    this.values();
    return h("div", { class: "curves" },
      figure("evaluations", evalNames.length ? evalNames : ["val_loss"], " at each evaluation; a star is the best evaluation"),
      figure("series", STEPS, " of training, smoothed 0.9"),
      scrollBox("Values of the curves", this.legend));
  }

  curve(id, kind) {
    const found = this.series.get(id)?.[kind]?.[this.metrics[kind]];
    return kind === "series" ? (found?.smooth ?? found) : found;
  }

  options(kind) {
    const series = this.picked.flatMap((id, slot) => {
      const found = this.curve(id, kind);
      if (!found?.x.length) return [];
      const line = { name: this.row(id)?.name ?? id, x: found.x, y: found.y, colour: colours.of(id), dash: DASHES[slot], width: 1.8 };
      const best = kind === "evaluations" ? this.bestOf(id, found) : null;
      return best ? [line, { ...line, ...best, points: true, symbol: "star", size: 11, name: `${line.name}, best evaluation` }] : [line];
    });
    return { label: `${words(this.metrics[kind])} of ${this.picked.length} runs by step`, series, x: { title: "step", whole: true }, y: {}, cursor: this.cursor };
  }

  bestOf(id, found) {
    const step = this.row(id)?.best_step;
    const i = step === null || step === undefined ? -1 : found.x.indexOf(step);
    return i < 0 || found.y[i] === null ? null : { x: [step], y: [found.y[i]] };
  }

  /** Values at the cursor, else the last ones. */
  values() {
    const at = this.cursor.at;
    const value = (id, kind) => {
      const found = this.curve(id, kind);
      if (!found?.x.length) return NONE;
      return number(found.y[at === null ? found.y.length - 1 : nearest(found.x, at)]);
    };
    const line = (id) => {
      const best = this.row(id)?.best_step ?? null;
      return h("tr", null, rowName(this.name(id)), num(value(id, "evaluations")), num(value(id, "series")),
        num(best === null ? NONE : `step ${count(best)}`), num(number(this.row(id)?.best_val_loss)));
    };
    const { evaluations, series } = this.metrics;
    fill(this.legend,
      head([at === null ? "last values" : `near step ${count(at)}`, words(evaluations), words(series), "best evaluation", "its val loss"], 1),
      h("tbody", null, this.picked.map(line)));
  }

  // ----------------------------------------------------------------- settings

  settingsPart(answer) {
    const place = h("div");
    const status = h("span", { class: "small quiet", role: "status" });
    let query = "";
    const differ = answer.config.filter((row) => !row.same).length;
    const text = (value) => (value === null || value === undefined ? NONE : valueText(value));
    const whole = (row) => `${row.key} ${row.values.map(text).join(" ")}`.toLowerCase();
    const line = (row) => h("tr", { class: row.same ? "same" : "" }, rowName(h("code", null, row.key)),
      row.values.map((value) => h("td", { title: wholeText(value) }, h("code", null, text(value)))));
    const draw = () => {
      const rows = answer.config.filter((row) => (this.allSettings || !row.same) && (!query || whole(row).includes(query)));
      setText(status, `${count(differ)} of ${count(answer.config.length)} settings differ`);
      fill(place, rows.length
        ? scrollBox("Settings", h("table", { class: "settings-diff" },
          head(["setting", ...answer.runs.map((run) => this.name(run.id))]),
          h("tbody", null, rows.map(line))))
        : h("p", { class: "missing" }, query ? "No setting matches." : "All settings are the same."));
    };
    draw();
    return [h("div", { class: "controls" },
      searchBox("Search settings", (value) => { query = value; draw(); }),
      tick("also those that are the same", this.allSettings, (on) => { this.allSettings = on; draw(); }), status), place];
  }
}
