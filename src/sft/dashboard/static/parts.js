// Pieces that several screens show. Each state and verdict has a shape beside its colour.

import { h, svg } from "./dom.js";

// Paths in a box of 12 by 12.
const SHAPES = {
  check: "M1.2 6.6 4.6 10 10.8 2.6 9.4 1.4 4.5 7.3 2.5 5.2z",
  cross: "M2.6 1.2 6 4.6 9.4 1.2 10.8 2.6 7.4 6 10.8 9.4 9.4 10.8 6 7.4 2.6 10.8 1.2 9.4 4.6 6 1.2 2.6z",
  square: "M1.5 1.5h9v9h-9z",
  triangle: "M6 .8 11.6 11H.4z",
  disc: "M6 1a5 5 0 1 1 0 10A5 5 0 1 1 6 1z",
  ring: "M6 1a5 5 0 1 1 0 10A5 5 0 1 1 6 1zm0 1.7a3.3 3.3 0 1 0 0 6.6 3.3 3.3 0 1 0 0-6.6z",
  half: "M6 1a5 5 0 1 1 0 10A5 5 0 1 1 6 1zm0 1.5v7a3.5 3.5 0 1 0 0-7z",
  play: "M2.2.8 11 6 2.2 11.2z",
  pause: "M2 1h3v10H2zM7 1h3v10H7z",
  bolt: "M7.2 0 1.6 7h3.2L3.8 12 10.4 4.6H6.8z",
  down: "M5 0h2v4.6h2.8L6 8.6 2.2 4.6H5zM1.5 10h9v1.8h-9z",
  dots: "M.4 4.6h2.8v2.8H.4zM4.6 4.6h2.8v2.8H4.6zM8.8 4.6h2.8v2.8H8.8z",
  evaluation: "M6 2c2.6 0 4.6 1.6 5.8 4C10.6 8.4 8.6 10 6 10S1.4 8.4.2 6C1.4 3.6 3.4 2 6 2zm0 1.6a2.4 2.4 0 1 0 0 4.8 2.4 2.4 0 1 0 0-4.8z",
};

// state: [shape, tone, word]; a tone is a class of app.css (good, busy, quiet, warning, error)
export const STATES = {
  preparing: ["dots", "busy", "preparing"],
  training: ["play", "busy", "training"],
  measuring: ["evaluation", "busy", "measuring"],
  saving: ["down", "busy", "saving"],
  finished: ["check", "good", "finished"],
  stalled: ["pause", "warning", "stalled"],
  interrupted: ["square", "warning", "interrupted"],
  failed: ["cross", "error", "failed"],
  killed: ["bolt", "error", "killed"],
  unknown: ["ring", "quiet", "unknown"],
};

export const VERDICTS = {
  pass: ["check", "good", "pass"],
  watch: ["triangle", "warning", "watch"],
  alarm: ["square", "error", "alarm"],
  insufficient: ["half", "quiet", "too little to tell"],
  not_measured: ["ring", "quiet", "not measured"],
};

export const LEVELS = {
  info: ["disc", "quiet", "info"],
  warning: ["triangle", "warning", "warning"],
  error: ["square", "error", "error"],
};

// kind of a mark on a chart: [shape, tone, word]
export const MARKS = {
  checkpoint: ["down", "quiet", "checkpoint"],
  evaluation: ["evaluation", "quiet", "evaluation"],
  resumed: ["play", "accent", "resumed"],
  watch: ["triangle", "warning", "watch"],
  alarm: ["square", "error", "alarm"],
  stopped: ["pause", "warning", "stopped"],
  interrupted: ["square", "warning", "interrupted"],
  failed: ["cross", "error", "failed"],
  finished: ["check", "good", "finished"],
};

/** A small shape in the colour of the text around it. */
export function glyph(shape) {
  const box = svg("svg", { class: "glyph", viewBox: "0 0 12 12", "aria-hidden": "true" });
  box.append(svg("path", { d: SHAPES[shape] ?? SHAPES.ring }));
  box.firstChild.setAttribute("fill-rule", "evenodd");
  return box;
}

function labelled(table, name, className) {
  const [shape, tone, word] = table[name] ?? ["ring", "quiet", String(name)];
  return h("span", { class: `${className} ${tone}`, data: { value: String(name) } }, glyph(shape), word);
}

/** The state of a run: glyph and word in a pill. */
export const statePill = (state) => labelled(STATES, state, "pill");

/** A verdict of a guard: glyph and word. */
export const verdictBadge = (verdict) => labelled(VERDICTS, verdict, "badge");

/** What could not be measured or does not exist (yet), and why. Never the same as "passed". */
export function missing(title, ...why) {
  return h("p", { class: "missing" }, h("strong", null, title), " ", why);
}

/** Something that is being fetched. */
export const loading = (what = "Loading …") => h("p", { class: "loading", role: "status" }, what);

/** The first letter large, a full stop at the end. */
export const asSentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?…]\s*$/.test(text) ? "" : "."}`;

/** An error where a screen would be. `again` is called by the button. */
export function failure(error, again) {
  return h(
    "div", { class: "notice error", role: "alert" },
    h("p", null, glyph("cross"), h("strong", null, "This cannot be shown. "), asSentence(error.message)),
    again && h("button", { type: "button", on: { click: again } }, "Try again"),
  );
}

/** A button that copies `text()` and says so; where that is not allowed, `selected` is selected. */
export function copyButton(label, text, { announce, selected } = {}) {
  const button = h("button", { type: "button", class: "copy" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      if (selected) getSelection().selectAllChildren(selected);
      button.textContent = selected ? "Selected" : "Not allowed here";
    }
    announce?.(button.textContent);
    setTimeout(() => { button.textContent = label; }, 2000);
  });
  return button;
}

/** A command with a button that copies it. */
export function command(text) {
  const code = h("code", null, text);
  return h("div", { class: "command" }, code, copyButton("Copy", () => text, { selected: code }));
}

/** A table that scrolls inside its own box; `label` is for screen readers. */
export function scrollBox(label, table) {
  return h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 }, table);
}
