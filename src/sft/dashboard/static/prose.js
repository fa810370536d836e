// Text with something marked in it: hits of a search, `code`, tokens of a chat template.

import { h } from "./dom.js";

/** Control tokens as chat templates write them: <|im_start|>, <start_of_turn>, [INST], <s>, ... */
const CONTROL =
  /(<\|[^|<>\n]{1,60}\|>|<\/?(?:s|bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[\/?(?:INST|SYS)\]|<<\/?SYS>>|<｜[^｜\n]{1,60}｜>)/u;

/** Places of `query` (lower case) in `text` as [from, to]. */
export function hits(text, query) {
  const found = [];
  if (!query) return found;
  const lower = text.toLowerCase();
  // Lower case of some letters is longer: then places do not match, and nothing is marked.
  if (lower.length !== text.length) return found;
  for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, at + query.length)) {
    found.push([at, at + query.length]);
  }
  return found;
}

/** `text` as nodes, hits of `query` in <mark>. */
export function marked(text, query) {
  const nodes = [];
  let from = 0;
  for (const [start, end] of hits(text, query)) {
    if (start > from) nodes.push(text.slice(from, start));
    nodes.push(h("mark", null, text.slice(start, end)));
    from = end;
  }
  nodes.push(text.slice(from));
  return nodes;
}

/** A prompt as nodes: tokens of the template are dimmed, hits of `query` marked. */
export function prompt(text, query = "") {
  return text.split(CONTROL).filter(Boolean).map((part) =>
    CONTROL.test(part) ? h("span", { class: "control-token" }, marked(part, query)) : marked(part, query));
}

/**
 * How many characters all `prompts` begin with, and end with: system prompt and template. Cut back
 * to a line or a control token, so that no word is torn; [0, 0] where there is little to fold.
 */
export function sharedEnds(prompts) {
  if (new Set(prompts).size < 2) return [0, 0];
  const [first] = prompts;
  const least = Math.min(...prompts.map((one) => one.length));
  let head = 0;
  while (head < least && prompts.every((one) => one[head] === first[head])) head += 1;
  let tail = 0;
  while (tail < least - head && prompts.every((one) => one[one.length - 1 - tail] === first[first.length - 1 - tail])) tail += 1;
  head = first.slice(0, head).search(/\n[^\n]*$/) + 1;
  const end = first.slice(first.length - tail);
  const from = end.search(new RegExp(`${CONTROL.source}|\\n`, "u"));
  return [head, from < 0 ? 0 : end.length - from];
}

/** The prompt without tokens of the template, in one line: for lists. */
export const plainPrompt = (text) => text.split(CONTROL).filter((part) => !CONTROL.test(part)).join(" ").replace(/\s+/g, " ").trim();

/** A sentence as nodes; what stands between backticks is <code>. */
export const sentence = (text) => String(text).split("`").map((part, i) => (i % 2 ? h("code", null, part) : part));

/** `path` as one word of a shell. */
export const quoted = (path) => (/^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

/** Commands in a remedy that can be copied, RUN being `path`: `sft ...` and settings `--set ...`. */
export function commandsOf(text, path) {
  const found = [...String(text).matchAll(/`((?:sft |--)[^`]+)`|\((--[^()]+)\)/g)].map((m) => m[1] ?? m[2]);
  return [...new Set(found)].map((one) => one.replace(/\bRUN\b/g, () => quoted(path)));
}
