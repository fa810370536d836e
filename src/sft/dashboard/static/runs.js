// The list of runs: the start screen where there are several.

import { fill, h, setText } from "./dom.js";
import { ago, count, duration, number, words } from "./format.js";
import { glyph, missing, scrollBox, statePill, VERDICTS } from "./parts.js";

// [id, head, value to sort by, cell]
const COLUMNS = [
  ["name", "run", (row) => row.name.toLowerCase(), nameCell, ""],
  ["state", "state", (row) => row.state, (row) => statePill(row.state), ""],
  ["step", "step", (row) => row.step, stepCell, "num"],
  ["loss", "train loss", (row) => row.loss, (row) => number(row.loss), "num"],
  ["val_loss", "val loss", (row) => row.val_loss, (row) => number(row.val_loss), "num"],
  ["best_val_loss", "best val", (row) => row.best_val_loss, bestCell, "num"],
  ["verdicts", "guards", worstVerdict, verdictCell, ""],
  ["model", "model", (row) => row.model, (row) => row.model ?? "–", "text"],
  ["method", "method", (row) => row.method, (row) => row.method ?? "–", ""],
  ["seconds", "time", (row) => row.seconds, (row) => duration(row.seconds), "num"],
  ["updated", "written", (row) => row.updated, (row) => ago(row.updated), "num"],
];
const ORDER = ["pass", "not_measured", "insufficient", "watch", "alarm"];

export async function show(root, context) {
  const list = new RunList(root, context);
  list.draw();
  return { update: (message) => message.kind === "runs" && list.draw() };
}

class RunList {
  constructor(root, context) {
    this.context = context;
    this.sort = { id: "updated", down: true };
    this.chosen = new Set();
    this.query = h("input", {
      type: "search", id: "run-search", placeholder: "Search name, model, data, state",
      "aria-label": "Search runs", on: { input: () => this.draw() },
    });
    const compare = () => context.go(`#/compare?runs=${[...this.chosen].map(encodeURIComponent).join(",")}`);
    this.compare = h("button", { type: "button", id: "compare", disabled: true, on: { click: compare } });
    this.found = h("span", { role: "status" });
    this.body = h("tbody");
    this.heads = new Map(COLUMNS.map(([id, word, , , kind]) => [id, this.head(id, word, kind)]));
    const pick = h("th", { scope: "col" }, h("span", { class: "hidden-label" }, "compare"));
    const head = h("thead", null, h("tr", null, pick, [...this.heads.values()]));
    this.table = scrollBox("Runs", h("table", { class: "runs" }, head, this.body));
    this.none = h("div");
    const controls = h("div", { class: "controls runs-controls" }, this.query, this.found, this.compare);
    fill(root, h("h1", null, "Runs"), controls, this.table, this.none);
  }

  head(id, word, kind) {
    const button = h("button", { type: "button", class: "sort", on: { click: () => this.sortBy(id) } }, word);
    return h("th", { scope: "col", class: kind === "num" ? "num" : null }, button);
  }

  sortBy(id) {
    this.sort = { id, down: this.sort.id === id ? !this.sort.down : true };
    this.draw();
  }

  matching() {
    const wanted = this.query.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const text = (row) => [row.name, row.model, row.method, row.state, ...(row.data ?? [])].join(" ").toLowerCase();
    return this.context.runs.filter((row) => wanted.every((word) => text(row).includes(word)));
  }

  draw() {
    const { id, down } = this.sort;
    const value = COLUMNS.find((column) => column[0] === id)[2];
    const rows = this.matching().sort((a, b) => compareValues(value(a), value(b), down));
    for (const [name, head] of this.heads) head.setAttribute("aria-sort", name === id ? (down ? "descending" : "ascending") : "none");
    const focused = document.activeElement?.closest?.("tr")?.dataset.run;
    const tag = document.activeElement?.tagName;
    fill(this.body, rows.map((row) => this.row(row)));
    if (focused && /^(A|INPUT)$/.test(tag)) this.body.querySelector(`tr[data-run="${CSS.escape(focused)}"] ${tag}`)?.focus();
    this.showNone(rows.length);
    this.showCompare();
  }

  row(row) {
    const box = h("input", { type: "checkbox", "aria-label": `Compare ${row.name}`, checked: this.chosen.has(row.id) });
    box.addEventListener("change", () => {
      if (box.checked) this.chosen.add(row.id);
      else this.chosen.delete(row.id);
      this.showCompare();
    });
    const cells = COLUMNS.map(([id, , , cell, kind]) => {
      const shown = cell(row);
      return id === "name" ? h("th", { scope: "row" }, shown) : h("td", { class: kind || null }, shown);
    });
    return h("tr", { data: { run: row.id, state: row.state } }, h("td", { class: "pick" }, box), cells);
  }

  showCompare() {
    const known = new Set(this.context.runs.map((row) => row.id));
    for (const id of this.chosen) if (!known.has(id)) this.chosen.delete(id);
    const { size } = this.chosen;
    this.compare.disabled = size < 2;
    setText(this.compare, size < 2 ? "Compare (choose two or more)" : `Compare ${count(size)} runs`);
  }

  showNone(shown) {
    const total = this.context.runs.length;
    this.table.hidden = shown === 0;
    setText(this.found, shown === total ? `${count(total)} run${total === 1 ? "" : "s"}` : `${count(shown)} of ${count(total)} runs`);
    if (shown) fill(this.none);
    else fill(this.none, total ? missing("No run matches.", "Clear the search to see all.") : this.noRuns());
  }

  noRuns() {
    const folder = this.context.folder || "this folder";
    const start = h("code", null, "sft train");
    return missing("No run here yet.", `Nothing was found in ${folder}. Start one with `, start, "; it appears here by itself.");
  }
}

function compareValues(a, b, down) {
  const none = (value) => value === null || value === undefined;
  if (none(a) || none(b)) return none(a) - none(b);
  const order = typeof a === "string" ? a.localeCompare(b) : a - b;
  return down ? -order : order;
}

function nameCell(row) {
  const link = h("a", { href: `#/run/${encodeURIComponent(row.id)}`, title: row.path }, row.name);
  if (!row.detail || ["finished", "training"].includes(row.state)) return link;
  return [link, h("div", { class: "small quiet detail", title: row.detail }, row.detail)];
}

function stepCell(row) {
  return [count(row.step), row.num_steps ? h("span", { class: "quiet" }, ` / ${count(row.num_steps)}`) : null];
}

function bestCell(row) {
  const step = Number.isFinite(row.best_step) ? ` @${count(row.best_step)}` : "";
  return [number(row.best_val_loss), h("span", { class: "quiet small at-step" }, step)];
}

function worstVerdict(row) {
  const found = Object.values(row.verdicts ?? {}).map((verdict) => ORDER.indexOf(verdict));
  return found.length ? Math.max(...found) : null;
}

function verdictCell(row) {
  const found = Object.entries(row.verdicts ?? {});
  if (!found.length) return h("span", { class: "quiet" }, "not measured");
  return h("span", { class: "verdicts" }, found.map(([guard, verdict]) => {
    const [shape, tone, word] = VERDICTS[verdict] ?? VERDICTS.not_measured;
    const said = `${words(guard)}: ${word}`;
    return h("span", { class: tone, title: said }, glyph(shape), h("span", { class: "hidden-label" }, `${said}. `));
  }));
}
