// Text of a row as the model sees it. Also part of the page of `sft check` (check/page.py).

import { h } from "./dom.js";
import { hits } from "./prose.js";

const KINDS = { trained: "trained", partly: "trained with another weight than 1", masked: "only shown" };

// Line breaks and tabs are marked by the style sheet, so that copied text stays as it is.
function written(text) {
  return text.split(/([\n\t])/).filter(Boolean).map((part) => {
    if (part === "\n") return [h("span", { class: "nl" }), "\n"];
    return part === "\t" ? [h("span", { class: "tab" }), "\t"] : part;
  });
}

/** A piece of a row, [text, kind, special], as a node; hits of `query` are marked. */
export function piece([text, kind, special], query) {
  const children = [];
  const props = { class: `t ${KINDS[kind] ? kind : "masked"}${special ? " special" : ""}`, title: `${KINDS[kind] ?? kind}${special ? ", a special token" : ""}` };
  let from = 0;
  for (const [start, end] of hits(text, query)) {
    children.push(written(text.slice(from, start)), h("mark", null, written(text.slice(start, end))));
    from = end;
  }
  children.push(written(text.slice(from)));
  return h("span", props, children);
}
