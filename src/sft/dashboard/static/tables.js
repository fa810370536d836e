// Pieces of tables and lists, so that screens spell out what is in them and not how.

import { h } from "./dom.js";

/** A head of columns; those from index `firstNumber` on hold numbers. */
export function head(titles, firstNumber = titles.length) {
  const cell = (title, i) => h("th", { scope: "col", class: i >= firstNumber ? "num" : "" }, title);
  return h("thead", null, h("tr", null, titles.map(cell)));
}

/** The name of a row. */
export const rowName = (...children) => h("th", { scope: "row" }, children);

/** A cell with a number. */
export const num = (text, tone = "") => h("td", { class: `num ${tone}`.trim() }, text);

/** Names and values: `pairs` are [name, ...nodes of the value]. */
export function pairList(className, pairs) {
  const one = ([name, ...value]) => h("div", null, h("dt", null, name), h("dd", null, value));
  return h("dl", { class: className }, pairs.map(one));
}
