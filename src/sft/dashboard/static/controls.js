// Controls that several screens share: search, choices, switches, lists that grow.

import { fill, h } from "./dom.js";
import { count } from "./format.js";

const WAIT = 120; // milliseconds after the last key

/** A function that calls `act` once it was not called for `wait` milliseconds; `.stop()` forgets it. */
export function settled(act, wait = WAIT) {
  let timer = 0;
  const later = (...args) => { clearTimeout(timer); timer = setTimeout(() => act(...args), wait); };
  later.stop = () => clearTimeout(timer);
  return later;
}

/** A search field; `onQuery` gets the text in lower case. */
export function searchBox(placeholder, onQuery, value = "") {
  const tell = settled(() => onQuery(input.value.trim().toLowerCase()));
  const input = h("input", {
    type: "search", placeholder, "aria-label": placeholder, autocomplete: "off", spellcheck: "false",
    value, on: { input: tell },
  });
  return input;
}

/** A labelled <select>. `options`: [[value, text], ...]. `onChoice` gets the value. */
export function choice(label, options, value, onChoice) {
  const select = h("select", { on: { change: () => onChoice(select.value) } },
    options.map(([one, text]) => h("option", { value: one, selected: String(one) === String(value) }, text)));
  return h("label", { class: "choice" }, label && h("span", null, label), select);
}

/** A checkbox with its label. */
export function tick(label, checked, onChange) {
  const input = h("input", { type: "checkbox", checked, on: { change: () => onChange(input.checked) } });
  return h("label", { class: "tick" }, input, label);
}

/** Buttons that are on or off, any number of them. `items`: [[value, ...children]]. `chosen`: a Set. */
export function switches(label, items, chosen, onChange) {
  const button = ([value, ...children]) => {
    const node = h("button", { type: "button", "aria-pressed": String(chosen.has(value)) }, children);
    node.addEventListener("click", () => {
      if (!chosen.delete(value)) chosen.add(value);
      node.setAttribute("aria-pressed", String(chosen.has(value)));
      onChange(chosen);
    });
    return node;
  };
  return h("div", { class: "switches", role: "group", "aria-label": label }, items.map(button));
}

/**
 * The first items of a long list, and a button for more of them.
 * `make(item, index)` draws one. Returns `{ node, set(items) }`.
 */
export function growing(node, size, make, noun) {
  const more = h("button", { type: "button", class: "more" });
  const foot = h("p", { class: "more-row", hidden: true }, more);
  const list = h("div", { class: "growing" });
  let items = [];
  let shown = 0;
  const grow = () => {
    const next = items.slice(shown, shown + size);
    list.append(...next.map((item, i) => make(item, shown + i)));
    shown += next.length;
    foot.hidden = shown >= items.length;
    more.textContent = `Show ${count(Math.min(size, items.length - shown))} more of ${count(items.length)} ${noun}`;
  };
  more.addEventListener("click", grow);
  fill(node, list, foot);
  return {
    node,
    set(all) {
      items = all;
      shown = 0;
      list.replaceChildren();
      grow();
    },
  };
}

/**
 * A part that can be folded. `make` draws the content when it is first opened. `opened`, a Set,
 * keeps under `key` whether it is open, for a screen that is drawn anew.
 */
export function fold(title, make, { key = title, opened = new Set(), open = opened.has(key) } = {}) {
  const body = h("div", { class: "fold-body" });
  const node = h("details", { class: "fold", open }, h("summary", null, title), body);
  let drawn = false;
  const draw = () => {
    if (!node.open || drawn) return;
    drawn = true;
    fill(body, make());
  };
  node.addEventListener("toggle", () => {
    if (node.open) opened.add(key);
    else opened.delete(key);
    draw();
  });
  draw();
  return node;
}

/** `12 of 80 settings`, or that there is none. */
export function ofAll(found, all, noun) {
  if (found === all) return `${count(all)} ${noun}`;
  return found ? `${count(found)} of ${count(all)} ${noun}` : "Nothing matches.";
}

/** Files that could not be read, as the server tells them; nothing where there are none. */
export function problems(list) {
  if (!list?.length) return null;
  return h("div", { class: "notice warning", role: "alert" }, h("p", null, h("strong", null, "Not all could be read. "), list.join(" ")));
}
