// Marks on the charts: what happened at which step, by kinds that are shown and hidden together.

import { fill, h, setText } from "./dom.js";
import { count } from "./format.js";
import { glyph, MARKS } from "./parts.js";

export const MARK_GROUPS = [
  { key: "checkpoints", shape: "down", kinds: ["checkpoint"], on: true },
  { key: "evaluations", shape: "evaluation", kinds: ["evaluation"], on: false },
  { key: "resumes", shape: "play", kinds: ["resumed", "interrupted", "failed"], on: true },
  { key: "alarms", shape: "triangle", kinds: ["watch", "alarm", "stopped"], on: true },
];

/** The marks of `charts` that are shown, as charts.js wants them. */
export function shownMarks(charts) {
  const groups = MARK_GROUPS.filter((group) => charts.markGroups.has(group.key));
  const kinds = new Set(groups.flatMap((group) => group.kinds));
  return marksOf(charts).filter((mark) => kinds.has(mark.kind)).flatMap((mark) => {
    const x = charts.data.xOfStep(mark.step);
    return x === null ? [] : [{ x, kind: mark.kind, text: textOf(mark) }];
  });
}

const marksOf = (charts) => charts.context.snapshot.marks.filter((mark) => Number.isFinite(mark.step));

function textOf({ kind, step, text }) {
  const place = `${MARKS[kind]?.[2] ?? kind} at step ${count(step)}`;
  return text ? `${place}: ${text}` : place;
}

/** Buttons that show and hide the groups, each with how many there are. */
export class MarkButtons {
  constructor(node, charts) {
    this.charts = charts;
    this.buttons = MARK_GROUPS.map((group) => this.button(group));
    fill(node, h("span", null, "marks"), this.buttons.map(({ button }) => button));
  }

  button(group) {
    const number = h("span", { class: "quiet" });
    const props = { type: "button", "aria-pressed": String(group.on), data: { marks: group.key } };
    const button = h("button", props, glyph(group.shape), group.key, number);
    button.addEventListener("click", () => {
      this.charts.toggleMarks(group.key);
      button.setAttribute("aria-pressed", String(this.charts.markGroups.has(group.key)));
    });
    return { group, button, number };
  }

  show() {
    const marks = marksOf(this.charts);
    for (const { group, button, number } of this.buttons) {
      const found = marks.filter((mark) => group.kinds.includes(mark.kind)).length;
      setText(number, count(found));
      button.disabled = found === 0;
    }
  }
}
