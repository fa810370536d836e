// Rows as the model sees them: which tokens it is trained on, which it is only shown.

import { choice, searchBox } from "./controls.js";
import { fill, h, setText } from "./dom.js";
import { count, percent } from "./format.js";
import { piece } from "./pieces.js";

const PARTS = { train: "training", val: "validation" };

/** Views whose id or text holds `query` (lower case), of `part` ("train", "val", or "" for all). */
export function matchingViews(views, query, part) {
  const kept = views.filter((view) => !part || view.part === part);
  if (!query) return kept;
  const named = kept.filter((view) => view.id.toLowerCase() === query || view.id.toLowerCase().endsWith(`:${query}`));
  if (named.length) return named;
  return kept.filter((view) => view.id.toLowerCase().includes(query) || view.pieces.some(([text]) => text.toLowerCase().includes(query)));
}

/** The legend, in the clothes of the tokens themselves. */
function legend() {
  const sample = (kind, text, what) => h("span", null, h("span", { class: `t ${kind}` }, text), ` ${what}`);
  return h("p", { class: "token-legend small quiet" },
    sample("trained", "trained", "the model learns to write it"),
    sample("partly", "partly", "with a lower weight"),
    sample("masked", "shown", "context only"),
    sample("masked special", "<|…|>", "special token"));
}

export class TokenViews {
  /** `views` of /api/runs/ID/data; `wanted` is the id of the row to begin with, or null. */
  constructor(views, wanted, announce) {
    this.all = views;
    this.announce = announce;
    this.query = "";
    this.part = "";
    this.text = h("div", { class: "tokens", tabindex: 0, role: "region", "aria-label": "Tokens of the row" });
    this.head = h("p", { class: "token-head" });
    this.place = h("span", { class: "small quiet", role: "status" });
    this.select = h("select", { "aria-label": "Row", on: { change: () => this.show(Number(this.select.value)) } });
    this.previous = h("button", { type: "button", title: "Key [", on: { click: () => this.turn(-1) } }, "← Previous");
    this.next = h("button", { type: "button", title: "Key ]", on: { click: () => this.turn(1) } }, "Next →");
    const parts = [...new Set(views.map((view) => view.part))];
    this.search = searchBox("Search rows by id or text", (query) => { this.query = query; this.find(); });
    this.node = h("div", { class: "token-views" },
      h("div", { class: "controls" }, this.search,
        parts.length > 1 && choice("", [["", "all rows"], ...parts.map((part) => [part, PARTS[part] ?? part])], "", (part) => { this.part = part; this.find(); }),
        h("span", { class: "token-turn" }, this.previous, this.select, this.next), this.place),
      legend(), this.head, this.text);
    this.find();
    if (wanted) this.open(wanted);
  }

  has(id) {
    return this.all.some((view) => view.id === id);
  }

  /** Shows the row `id`, if it is embedded. */
  open(id) {
    if (!this.has(id)) return false;
    this.query = this.search.value = "";
    this.find();
    const at = this.found.findIndex((view) => view.id === id);
    if (at >= 0) this.show(at);
    return at >= 0;
  }

  find() {
    this.found = matchingViews(this.all, this.query, this.part);
    fill(this.select, this.found.map((view, i) => h("option", { value: i }, view.id)));
    this.select.disabled = !this.found.length;
    this.show(0);
  }

  turn(by) {
    const to = this.at + by;
    if (to < 0 || to >= this.found.length) return;
    this.show(to);
    this.announce(`Row ${this.found[to].id}`);
  }

  show(at) {
    this.at = at;
    const view = this.found[at];
    this.previous.disabled = at <= 0;
    this.next.disabled = at >= this.found.length - 1;
    setText(this.place, this.found.length ? `${count(at + 1)} of ${count(this.found.length)}` : `None of the ${count(this.all.length)} rows that are kept matches`);
    if (!view) {
      fill(this.head);
      fill(this.text);
      return;
    }
    this.select.value = String(at);
    fill(this.head, h("strong", { class: "id" }, view.id), h("span", null, PARTS[view.part] ?? view.part),
      h("span", null, `${count(view.tokens)} tokens`), h("span", null, `${count(view.trained)} trained (${percent(view.tokens ? view.trained / view.tokens : null)})`),
      view.cut && h("span", { class: "warning" }, "cut here: only the beginning is kept"));
    fill(this.text, view.pieces.map((one) => piece(one, this.query)));
    this.text.scrollTop = 0;
    this.text.querySelector("mark")?.scrollIntoView({ block: "nearest" });
  }
}
