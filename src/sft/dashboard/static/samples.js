// The screen "Samples": the same prompts answered by the base model, midway and now.

import { choice, growing, ofAll, searchBox, tick } from "./controls.js";
import { diffWords } from "./diff.js";
import { fill, h, setText } from "./dom.js";
import { count } from "./format.js";
import { LoadedScreen } from "./loaded.js";
import { missing } from "./parts.js";
import { marked, plainPrompt, prompt, sentence, sharedEnds } from "./prose.js";

const COLUMNS = ["base", "middle", "now"];
const AGAINST = [["base", "the first column"], ["middle", "the second column"], ["reference", "the reference"], ["", "nothing"]];
const AT_ONCE = 40; // rows drawn before "Show more"

const STOPS = {
  stop: ["ended by itself", ""],
  length: ["cut at the limit", "warning"],
};

export const show = (root, context) => Screen.show(root, context, "Reading the completions …");

/** The evaluations shown first: the base model, the one nearest to the middle, the last. */
export function firstEvals(steps) {
  const [first, last] = [steps[0], steps[steps.length - 1]];
  const between = steps.slice(1, -1);
  const middle = between.reduce(
    (best, step) => (best === null || Math.abs(step - (first + last) / 2) < Math.abs(best - (first + last) / 2) ? step : best), null);
  return { base: first, middle, now: last };
}

/** The answer of `row` at `step`, or undefined. */
export const answerAt = (row, step) => row.answers.find((answer) => answer.step === step);

/** Rows whose id, prompt, reference or one of whose answers holds `query`. */
export function matching(rows, query, probe) {
  const texts = (row) => [row.id, row.prompt, row.reference ?? "", ...row.answers.map((answer) => answer.answer)];
  return rows.filter((row) => (!probe || row.probe === probe) && (!query || texts(row).some((text) => text.toLowerCase().includes(query))));
}

/** `train.jsonl:3` of `data/train.jsonl:3`. */
const shortId = (id) => id.slice(id.lastIndexOf("/") + 1);

class Screen extends LoadedScreen {
  query = "";
  probe = "";
  against = "base";
  isWhole = false; // prompts are shown with what all of them share
  evaluations = null; // {base, middle, now}: steps
  isLast = true; // "now" follows the newest evaluation

  async load() {
    this.answer = await this.ask("samples");
    const { steps, rows } = this.answer;
    if (!rows.length) {
      fill(this.root, missing("No samples.",
        sentence("Fixed prompts are answered at the first, the middle and the last evaluation, where `eval.samples` is above 0; none of these evaluations has been written yet.")));
      this.evaluations = null;
      return;
    }
    const first = firstEvals(steps);
    const isNew = this.evaluations === null;
    if (isNew || !steps.includes(this.evaluations.base)) this.evaluations = first;
    else if (this.isLast) this.evaluations = { ...this.evaluations, now: first.now, middle: this.evaluations.middle ?? first.middle };
    const promptsOf = (probe) => rows.filter((row) => row.probe === probe).map((row) => row.prompt);
    this.ends = new Map(rows.map((row) => [row.probe, null]));
    for (const probe of this.ends.keys()) this.ends.set(probe, sharedEnds(promptsOf(probe)));
    if (isNew) this.frame();
    this.drawEvals();
    this.list.set(this.found());
  }

  update(message) {
    const isNews = message.kind === "records" && message.samples.length;
    if (isNews || (message.kind === "snapshot" && message.reset)) this.again();
  }

  close() {
    super.close();
    this.dialog?.close();
  }

  /** Keys are the dialog's while it is open. */
  key() {
    return Boolean(this.dialog?.open);
  }

  frame() {
    const probes = [...new Set(this.answer.rows.map((row) => row.probe))];
    this.status = h("span", { role: "status" });
    this.heads = h("div", { class: "sample-heads" });
    this.dialog = h("dialog", { class: "full-text", "aria-label": "Full text" });
    this.list = growing(h("div", { class: "samples" }), AT_ONCE, (row) => this.row(row), "prompts");
    const redraw = () => this.list.set(this.found());
    fill(this.root,
      h("div", { class: "controls" },
        searchBox("Search prompts and completions", (query) => { this.query = query; redraw(); }),
        probes.length > 1 && choice("probe", [["", "all"], ...probes.map((one) => [one, one])], "", (value) => { this.probe = value; redraw(); }),
        choice("mark what differs from", AGAINST, this.against, (value) => { this.against = value; redraw(); }),
        tick("whole prompts", this.isWhole, (on) => { this.isWhole = on; redraw(); }),
        this.status),
      this.heads, this.list.node, this.dialog);
  }

  found() {
    const found = matching(this.answer.rows, this.query, this.probe);
    setText(this.status, ofAll(found.length, this.answer.rows.length, "prompts"));
    return found;
  }

  drawEvals() {
    const { steps } = this.answer;
    const name = (step) => {
      if (step === 0) return "step 0, the base model";
      return `step ${count(step)}${step === steps.at(-1) ? ", the last" : ""}`;
    };
    const options = [...steps.map((step) => [step, name(step)])];
    const pick = (column) => {
      const own = column === "middle" ? [["", "none"], ...options] : options;
      const label = { base: "Completions before", middle: "between", now: "and after" }[column];
      return h("div", { class: `head ${column}` }, choice(label, own, this.evaluations[column] ?? "", (value) => {
        this.evaluations[column] = value === "" ? null : Number(value);
        if (column === "now") this.isLast = this.evaluations.now === steps[steps.length - 1];
        this.list.set(this.found());
        this.root.classList.toggle("two", this.evaluations.middle === null);
      }));
    };
    this.root.classList.toggle("two", this.evaluations.middle === null);
    fill(this.heads, h("div", { class: "head prompt small" }, "prompt"), COLUMNS.map(pick));
  }

  row(row) {
    const compared = this.compare(row);
    const cells = COLUMNS.filter((column) => column !== "middle" || this.evaluations.middle !== null)
      .map((column) => this.cell(row, column, compared));
    const open = () => { if (!String(getSelection())) this.open(row); };
    const press = (event) => {
      event.stopPropagation();
      this.open(row);
    };
    const text = plainPrompt(row.prompt);
    return h("article", { class: "sample", on: { click: open } },
      h("div", { class: "cell prompt" },
        h("span", { class: "quiet small" }, row.probe),
        h("button", { type: "button", class: "id", title: row.id, "aria-haspopup": "dialog", on: { click: press } }, shortId(row.id)),
        h("div", { class: "text clamp" }, this.promptOf(row)),
        !text && h("span", { class: "quiet" }, "(empty prompt)")),
      cells);
  }

  /** The prompt, without what all prompts of its probe share. */
  promptOf(row) {
    const [head, tail] = this.isWhole ? [0, 0] : this.ends.get(row.probe);
    const dots = (text) => text && h("span", { class: "control-token", title: text }, "… ");
    const end = row.prompt.length - tail;
    return [dots(row.prompt.slice(0, head)), prompt(row.prompt.slice(head, end), this.query)];
  }

  /** What is marked in which column of a row: `{ column: parts, note }`. */
  compare(row) {
    const now = answerAt(row, this.evaluations.now);
    const before = this.against === "reference" ? row.reference : answerAt(row, this.evaluations[this.against])?.answer;
    if (!this.against || !now || before === undefined || before === null || this.evaluations[this.against] === this.evaluations.now) return {};
    const found = diffWords(before, now.answer);
    const note = {
      same: "unchanged",
      new: "written anew",
      long: "too long to mark",
      some: "",
    }[found.kind];
    return { [this.against]: found.before, now: found.after, note };
  }

  cell(row, column, compared) {
    const step = this.evaluations[column];
    const answer = answerAt(row, step);
    const label = h("span", { class: "cell-label quiet small" }, `step ${count(step)}`);
    if (!answer) return h("div", { class: `cell ${column}` }, label, h("p", { class: "quiet" }, "Not sampled at this step."));
    const [word, tone] = STOPS[answer.stop_reason] ?? [answer.stop_reason ?? "", ""];
    return h("div", { class: `cell ${column}` }, label,
      h("div", { class: "text clamp" }, answer.answer ? this.parts(compared[column], answer.answer, column) : h("em", { class: "quiet" }, "(empty completion)")),
      h("p", { class: "under small quiet" },
        h("span", null, `${count(answer.tokens)} tokens`),
        word && h("span", { class: column === "now" ? tone : "" }, word),
        column === "now" && compared.note && h("span", { class: "note" }, compared.note),
        answer.opener && h("span", { class: "opener", title: "How the completion opens" }, "opens: ", h("q", null, answer.opener))));
  }

  parts(parts, text, column) {
    if (!parts) return marked(text, this.query);
    const tag = column === "now" ? "ins" : "del";
    return parts.map((part) => (part.changed ? h(tag, null, marked(part.text, this.query)) : marked(part.text, this.query)));
  }

  /** All of one row, at all evaluations. */
  open(row) {
    const part = (name, children, note) => h("section", null,
      h("h3", null, name, note && h("span", { class: "quiet small" }, ` ${note}`)), h("div", { class: "text", tabindex: 0 }, children));
    const close = h("button", { type: "button", on: { click: () => this.dialog.close() } }, "Close");
    fill(this.dialog,
      h("header", null, h("h2", { class: "id" }, row.id), close),
      part("Prompt", prompt(row.prompt, this.query)),
      row.reference !== null && row.reference !== undefined && part("Reference", marked(row.reference, this.query)),
      row.answers.map((answer) => part(`Step ${count(answer.step)}`, answer.answer ? marked(answer.answer, this.query) : "(empty completion)",
        `${count(answer.tokens)} tokens, ${STOPS[answer.stop_reason]?.[0] ?? answer.stop_reason ?? ""}`)));
    this.dialog.showModal();
    this.dialog.scrollTop = 0;
    close.focus();
  }
}
