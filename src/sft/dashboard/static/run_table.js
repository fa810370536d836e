// The table of runs on the screens "Runs" and "Compare": sort, filter, choose columns, select runs.

import { fill, h, setText } from "./dom.js";
import { ago, clock, count, duration, NONE, number, valueText, words } from "./format.js";
import { fold, ofAll, searchBox, tick } from "./controls.js";
import { VERDICTS, glyph, missing, scrollBox, statePill } from "./parts.js";

export const MOST = 6; // runs that can be compared at once
const FIRST_KEYS = 5; // settings that differ and are shown unasked
// Differ between any two runs, or have a column of their own.
const NOISE = new Set(["run.dir", "run.name", "data.train", "model.name", "method.kind"]);

const settingText = (value) => {
  if (value === null || value === undefined) return NONE;
  if (typeof value === "number") return number(value);
  return valueText(value);
};

const ORDER = ["pass", "not_measured", "insufficient", "watch", "alarm"];
const worst = (verdicts) => {
  const ranks = Object.values(verdicts ?? {}).map((verdict) => ORDER.indexOf(verdict));
  return ranks.length ? Math.max(...ranks) : null;
};

function verdictCell({ verdicts }) {
  const judged = Object.entries(verdicts ?? {});
  if (!judged.length) return h("span", { class: "quiet" }, "not measured");
  return h("span", { class: "verdicts" }, judged.map(([guard, verdict]) => {
    const [shape, tone, word] = VERDICTS[verdict] ?? VERDICTS.not_measured;
    const text = `${words(guard)}: ${word}`;
    return h("span", { class: tone, title: text }, glyph(shape), h("span", { class: "hidden-label" }, `${text}. `));
  }));
}

// { key, title, value(row) to sort by, show(row) node or text, num }
const COLUMNS = [
  { key: "state", title: "state", value: (row) => row.state, show: (row) => statePill(row.state) },
  { key: "step", title: "step", num: true, value: (row) => row.step, show: (row) => (row.num_steps ? `${count(row.step)} / ${count(row.num_steps)}` : count(row.step)) },
  { key: "loss", title: "train loss", num: true, value: (row) => row.loss, show: (row) => number(row.loss) },
  { key: "val_loss", title: "val loss", num: true, value: (row) => row.val_loss, show: (row) => number(row.val_loss) },
  { key: "best_val_loss", title: "best val loss", num: true, value: (row) => row.best_val_loss, show: (row) => number(row.best_val_loss) },
  { key: "best_step", title: "at step", num: true, value: (row) => row.best_step, show: (row) => count(row.best_step) },
  { key: "verdicts", title: "guards", value: (row) => worst(row.verdicts), show: verdictCell, text: (row) => JSON.stringify(row.verdicts) },
  { key: "seconds", title: "time", num: true, value: (row) => row.seconds, show: (row) => duration(row.seconds) },
  { key: "started", title: "started", value: (row) => row.started, show: (row) => (row.started ? clock(row.started) : NONE) },
  { key: "updated", title: "written", num: true, value: (row) => row.updated, show: (row) => ago(row.updated) },
  { key: "model", title: "model", value: (row) => row.model, show: (row) => row.model || NONE },
  { key: "method", title: "method", value: (row) => row.method, show: (row) => row.method || NONE },
  { key: "data", title: "data", value: (row) => row.data.join(", "), show: (row) => row.data.join(", ") || NONE },
];

const configColumn = (key) => ({ key: `config.${key}`, title: key, value: (row) => row.config?.[key], show: (row) => settingText(row.config?.[key]) });

const textOf = (column, row) => {
  if (column.text) return column.text(row);
  const shown = column.show(row);
  return typeof shown === "string" ? shown : String(column.value(row));
};

/** Settings that are not the same in all `rows`, without those that always differ. */
export function differing(rows) {
  const keys = new Set(rows.flatMap((row) => Object.keys(row.config ?? {})));
  const known = rows.filter((row) => row.config && Object.keys(row.config).length);
  return [...keys].filter((key) => !NOISE.has(key) && new Set(known.map((row) => JSON.stringify(row.config[key] ?? null))).size > 1);
}

/** `rows` sorted by `value`; what is missing comes last either way. */
export function sorted(rows, value, down) {
  const none = (one) => one === null || one === undefined || one === "";
  const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (none(x) || none(y)) return none(x) - none(y);
    return down ? order(y, x) : order(x, y);
  });
}

/** A stroke in the colour of a run: 1..8 of the series. */
export const lineKey = (colour, style = "") => h("i", { class: `line-key ${style}`, vars: { "--colour": `var(--series-${colour})` }, "aria-hidden": "true" });

/**
 * Runs as a table. `picked` is the list of ids that are ticked, in order; `onPick(ids)` is called
 * when it changes; at most `most` can be. `sort` is { key, down }. With `colours`, chosen runs are
 * listed below, and columns can be chosen; else `columns` are the keys of those that are shown.
 */
export class RunTable {
  constructor(runs, { picked = [], most = MOST, columns = null, colours = null, sort, onPick, action = null, none = () => null }) {
    Object.assign(this, { runs, picked, most, colours, sort, onPick, none });
    this.query = "";
    this.hideEqual = Boolean(colours) && runs.length > 1;
    this.chosen = columns && new Set(columns); // keys of columns; null: the usual ones
    this.status = h("span", { class: "small quiet", role: "status" });
    this.body = h("div", { class: "run-table" });
    this.chips = h("div", { class: "chosen small", role: "group", "aria-label": "Runs chosen" });
    this.node = h("div", null,
      h("div", { class: "controls" },
        searchBox("Filter runs by name, model, data, setting", (query) => { this.query = query; this.draw(); }),
        colours && tick("hide columns that are the same in all", this.hideEqual, (on) => { this.hideEqual = on; this.draw(); }),
        this.status, action),
      colours && fold("Columns", () => this.choices()), this.body, colours && this.chips);
    this.draw();
  }

  setRuns(runs) {
    this.runs = runs;
    this.draw();
  }

  keys() {
    return this.chosen ?? new Set([...COLUMNS.map((column) => column.key), ...differing(this.runs).slice(0, FIRST_KEYS).map((key) => `config.${key}`)]);
  }

  all() {
    const keys = new Set(this.runs.flatMap((row) => Object.keys(row.config ?? {})));
    return [...COLUMNS, ...[...keys].sort().map(configColumn)];
  }

  columns(rows) {
    const keys = this.keys();
    const wanted = this.all().filter((column) => keys.has(column.key));
    if (!this.hideEqual || rows.length < 2) return wanted;
    const known = (column) => rows.map((row) => textOf(column, row)).filter((text) => text !== NONE && text !== "null");
    return wanted.filter((column) => new Set(known(column)).size > 1);
  }

  choices() {
    const list = h("div", { class: "column-choices" });
    const change = (key, on) => {
      this.chosen = new Set(this.keys());
      if (on) this.chosen.add(key);
      else this.chosen.delete(key);
      this.draw();
    };
    const draw = (query) => fill(list, this.all().filter((column) => column.title.toLowerCase().includes(query))
      .map((column) => tick(column.title, this.keys().has(column.key), (on) => change(column.key, on))));
    draw("");
    return [searchBox("Find a column", draw), list];
  }

  matching() {
    const text = (row) => [row.name, row.path, row.state, row.model, row.method, ...row.data, JSON.stringify(row.config ?? {})].join(" ").toLowerCase();
    const wanted = this.query.split(/\s+/).filter(Boolean);
    return this.runs.filter((row) => { const all = text(row); return wanted.every((word) => all.includes(word)); });
  }

  draw() {
    const matching = this.matching();
    const columns = this.columns(matching);
    const name = { key: "name", title: "run", value: (row) => row.name };
    const by = [name, ...this.all()].find((column) => column.key === this.sort.key) ?? name;
    const rows = sorted(matching, by.value, this.sort.down);
    const focused = this.body.contains(document.activeElement) ? document.activeElement.id : null;
    const at = this.body.querySelector(".scroll")?.scrollLeft ?? 0;
    const chosen = this.picked.length ? `; ${this.picked.length} chosen` : this.colours ? `; choose 2 to ${this.most}` : "";
    setText(this.status, ofAll(matching.length, this.runs.length, "runs") + chosen);
    fill(this.body, matching.length
      ? scrollBox("Runs", h("table", { class: "runs" },
        h("thead", null, h("tr", null, h("th", { scope: "col" }, h("span", { class: "hidden-label" }, "chosen")), [name, ...columns].map((column) => this.head(column)))),
        h("tbody", null, rows.map((row) => this.row(row, columns)))))
      : (!this.runs.length && this.none()) || missing("No run matches.", "Clear the search to see all."));
    this.drawChips();
    if (at) this.body.querySelector(".scroll").scrollLeft = at;
    if (focused) document.getElementById(focused)?.focus();
  }

  head(column) {
    const on = this.sort.key === column.key;
    const press = () => {
      this.sort = { key: column.key, down: on ? !this.sort.down : false };
      this.draw();
    };
    return h("th", { scope: "col", class: column.num ? "num" : "", "aria-sort": on ? (this.sort.down ? "descending" : "ascending") : null },
      h("button", { type: "button", class: "sort", id: `sort-${column.key}`, on: { click: press } }, column.title));
  }

  pick(ids) {
    this.picked = ids;
    this.onPick(ids);
    this.draw();
  }

  /** The chosen runs in their order, each a button that takes it out: they may be out of sight above. */
  drawChips() {
    if (!this.colours) return;
    const chip = (id) => {
      const name = this.runs.find((row) => row.id === id)?.name ?? id;
      return h("button", { type: "button", "aria-label": `Leave out ${name}`, on: { click: () => this.pick(this.picked.filter((other) => other !== id)) } },
        lineKey(this.colours.of(id)), name, h("span", { "aria-hidden": "true" }, "×"));
    };
    fill(this.chips, this.picked.length > 0 && [h("span", { class: "quiet" }, "Chosen:"), this.picked.map(chip)]);
  }

  row(row, columns) {
    const on = this.picked.includes(row.id);
    const box = h("input", { type: "checkbox", id: `pick-${row.id}`, checked: on, disabled: !on && this.picked.length >= this.most, "aria-label": `Compare ${row.name}` });
    box.addEventListener("change", () => this.pick(box.checked ? [...this.picked, row.id] : this.picked.filter((id) => id !== row.id)));
    const cell = (column) => h("td", { class: column.num ? "num" : "cell-text", title: column.num ? null : textOf(column, row) }, column.show(row));
    const why = !this.colours && row.detail && !["finished", "training"].includes(row.state);
    return h("tr", { class: on ? "picked" : "" },
      h("td", { class: "pick" }, box),
      h("th", { scope: "row" }, h("span", { class: "run-name" },
        this.colours && lineKey(this.colours.of(row.id), on ? "" : "none"),
        h("a", { id: `name-${row.id}`, href: `#/run/${encodeURIComponent(row.id)}`, title: row.path }, row.name)),
      why && h("div", { class: "small quiet detail", title: row.detail }, row.detail)),
      columns.map(cell));
  }
}
