// Building the page. Whatever is shown may hold text of the data, and data are hostile until
// proven otherwise: text becomes text nodes only, attributes come from a list, links stay here.

const SVG = "http://www.w3.org/2000/svg";

const ATTRIBUTES = new Set([
  "alt", "class", "colspan", "d", "dir", "download", "draggable", "for", "height", "href", "id",
  "inputmode", "lang", "list", "max", "maxlength", "min", "name", "placeholder", "points", "role",
  "rows", "rowspan", "scope", "spellcheck", "step", "tabindex", "target", "text-anchor", "title", "type", "value",
  "viewBox", "width", "x", "x1", "x2", "y", "y1", "y2", "cx", "cy", "r", "rx", "transform",
  "preserveAspectRatio", "autocomplete",
]);
const SWITCHES = new Set([
  "hidden", "disabled", "checked", "selected", "open", "readonly", "required",
]);

// Control characters, direction overrides, and what is invisible and can hide text. Joiners stay,
// as emoji and several scripts need them. The same set as in `sft check --html`.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu;

/** `text` with characters that cannot be seen, or that reorder others, as `⟨U+202E⟩`. */
export function visible(text) {
  return String(text).replace(
    HIDDEN,
    (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
}

/** The link itself where it stays on this page or this origin; an error otherwise. */
export function safeLink(link) {
  const url = new URL(link, location.href);
  const here = url.origin === location.origin && /^https?:$/.test(url.protocol);
  if (!here || !/^(#|\/(?![/\\]))/.test(link)) throw new Error(`not a link of this page: ${link}`);
  return link;
}

function setProperty(node, name, value) {
  if (value === null || value === undefined) return;
  if (name === "on") {
    for (const [event, listen] of Object.entries(value)) node.addEventListener(event, listen);
  } else if (name === "vars") {
    for (const [variable, text] of Object.entries(value)) {
      if (!variable.startsWith("--")) throw new Error(`not a CSS variable: ${variable}`);
      node.style.setProperty(variable, text);
    }
  } else if (name === "data") {
    Object.assign(node.dataset, value);
  } else if (SWITCHES.has(name)) {
    node.toggleAttribute(name, Boolean(value));
  } else if (name === "href") {
    node.setAttribute("href", safeLink(value));
  } else if (ATTRIBUTES.has(name) || /^(aria|data)-[a-z-]+$/.test(name)) {
    node.setAttribute(name, name === "value" ? value : visible(value));
  } else {
    throw new Error(`not an attribute that h() sets: ${name}`);
  }
}

function addChildren(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === true) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
}

/**
 * A new element: `h("a", { href: "#/", class: "back", on: { click } }, "All runs")`.
 *
 * Props: attributes of the list above, `aria-*`, `data-*`, `data: {screen: "run"}`,
 * `on: {event: listener}`, `vars: {"--share": "0.4"}` (CSS variables; there is no `style`).
 * Children: nodes, text, numbers, arrays of them; null, undefined and booleans are left out.
 */
export function h(tag, props, ...children) {
  if (/^(script|style|iframe|object|embed|link|base|meta)$/i.test(tag)) {
    throw new Error(`not an element that h() makes: ${tag}`);
  }
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) setProperty(node, name, value);
  addChildren(node, children);
  return node;
}

/** As `h`, for an SVG element. */
export function svg(tag, props, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props ?? {})) setProperty(node, name, value);
  addChildren(node, children);
  return node;
}

/** `node` with nothing but `children` in it. */
export function fill(node, ...children) {
  node.replaceChildren();
  addChildren(node, children);
  return node;
}

/** Sets the text of `node` where it differs, so that selections and screen readers stay calm. */
export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

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
