// Beside the curves: figures, what to do when a run does not run, verdicts of the guards, what to watch.

import { get, runPath } from "./api.js";
import { fill, h } from "./dom.js";
import { ago, count, duration, NONE, number, words } from "./format.js";
import { command, glyph, missing, asSentence, verdictBadge, VERDICTS } from "./parts.js";

const ORDER = ["overfitting", "format_collapse", "distribution_mismatch", "forgetting", "health"];

// ------------------------------------------------------------------- figures

const fact = (name, value, more) =>
  h("div", null, h("dt", null, name), h("dd", null, value, more && h("span", { class: "small quiet" }, " ", more)));

/** The row of figures under the head. */
export function showFacts(node, snapshot) {
  const { latest, epoch, attempts, state } = snapshot;
  const looked = snapshot.evaluations.filter((evaluation) => evaluation.val_loss !== null && evaluation.val_loss !== undefined);
  const best = snapshot.evaluations.find((evaluation) => evaluation.step === snapshot.best_step);
  const bestLoss = best?.[snapshot.objective] ?? best?.val_loss;
  const over = ["finished", "failed", "killed", "interrupted", "unknown"].includes(state.state);
  fill(
    node,
    fact("loss", number(latest.loss)),
    fact("val loss", number(looked.at(-1)?.val_loss), looked.length ? `step ${count(looked.at(-1).step)}` : null),
    bestLoss !== undefined &&
      fact(`best ${words(snapshot.objective ?? "val_loss")}`, number(bestLoss), `step ${count(snapshot.best_step)}`),
    fact("epoch", epoch === null || epoch === undefined ? NONE : epoch.toFixed(2)),
    over ? null : fact("time left", duration(snapshot.eta_seconds), etaRange(snapshot)),
    fact("elapsed", duration(snapshot.elapsed_seconds)),
    fact("tokens per second", count(snapshot.tokens_per_second)),
    Number.isFinite(attempts) && fact("attempts", count(attempts)),
  );
}

function etaRange({ eta_low: low, eta_high: high }) {
  if (low === null || low === undefined || high === null || high === undefined) return null;
  const [from, to] = [duration(low), duration(high)];
  return from === to ? null : `${from} to ${to}`;
}

// ------------------------------------------------------------------- what to do

const NOTICES = {
  failed: [
    "error", "cross", "The run failed.",
    "Mend what the message names. The same command then goes on from the last checkpoint, or begins again where there is none:",
  ],
  killed: [
    "error", "bolt", "The run was cut off.",
    "It was killed, ran out of memory, or the machine stopped. Nothing before the last checkpoint is lost; go on with:",
  ],
  stalled: [
    "warning", "pause", "Nothing has been written for a while.",
    "If it stays so, stop the process (Ctrl-C, or kill its pid), and go on from the last checkpoint with:",
  ],
  interrupted: ["warning", "square", "The run was stopped before its end.", "Go on with:"],
};

/** A prominent notice when the run needs its reader; nothing otherwise. */
export async function showNotice(node, snapshot, signal) {
  const { state, detail, updated, pid, host } = snapshot.state;
  const key = `${state}|${detail}`;
  if (node.dataset.shown === key) return;
  node.dataset.shown = key;
  node.hidden = !(state in NOTICES);
  if (node.hidden) {
    fill(node);
    return;
  }
  const [tone, shape, title, todo] = NOTICES[state];
  const resume = h("div", { class: "resume" });
  const text = state === "failed" ? errorText(snapshot) : detail;
  const process = pid && `Process ${pid}${host ? ` on ${host}` : ""}.`;
  const where = state === "stalled" && [updated && `Last written ${ago(updated)}. `, process];
  fill(
    node,
    h("div", { class: `notice ${tone} run-notice`, role: "alert", id: "notice" },
      h("p", { class: tone }, glyph(shape), h("strong", null, title)),
      text && messageNode(state, text),
      where && h("p", { class: "quiet" }, where),
      h("p", null, todo),
      resume),
  );
  fill(resume, command(await resumeCommand(snapshot, signal)));
}

/** An error as it was printed; anything else as a sentence. */
function messageNode(state, text) {
  return state === "failed"
    ? h("pre", { class: "error-text", tabindex: 0 }, text)
    : h("p", { class: "message" }, asSentence(text));
}

function errorText(snapshot) {
  const failed = snapshot.marks.findLast((mark) => mark.kind === "failed");
  return snapshot.state.detail || failed?.text || "It left no message.";
}

async function resumeCommand(snapshot, signal) {
  try {
    return (await get(runPath(snapshot.id, "config"), signal)).resume;
  } catch {
    return `sft train ${snapshot.path}/config.yaml`;
  }
}

// ------------------------------------------------------------------- guards

/** One card a guard: verdict, name, message; all lead to the Guards screen. */
export function showGuards(node, snapshot) {
  const found = new Map(snapshot.verdicts.map((finding) => [finding.guard, finding]));
  if (!found.size) {
    fill(node, missing("Guards: not measured.", "No evaluation has been judged yet, or guards are off (guards.enabled)."));
    return;
  }
  const others = [...found.keys()].filter((name) => !ORDER.includes(name));
  const names = [...ORDER.filter((name) => found.has(name)), ...others];
  fill(node, names.map((name) => guardCard(snapshot.id, found.get(name))));
}

function guardCard(run, finding) {
  const { guard, verdict, message } = finding;
  const href = `#/run/${encodeURIComponent(run)}/guards`;
  const tone = VERDICTS[verdict]?.[1] ?? "quiet";
  return h("a", { class: `guard ${tone}`, href, title: message, data: { guard, verdict } },
    h("strong", null, words(guard)),
    h("span", { class: "guard-text" }, verdictBadge(verdict), message.replace(/^not measured: /i, "")));
}

// ------------------------------------------------------------------- what to watch

const STATUS = {
  good: ["check", "good", "good"],
  neutral: ["ring", "quiet", "neutral"],
  warning: ["triangle", "warning", "watch"],
  unknown: ["ring", "quiet", "not known"],
};

/** "What to watch", each with its evidence. */
export function showIndicators(node, snapshot) {
  const items = snapshot.indicators.map(({ status, message, evidence }) => {
    const [shape, tone, word] = STATUS[status] ?? STATUS.unknown;
    return h("li", { data: { status } },
      h("span", { class: `sign-glyph ${tone}` }, glyph(shape), h("span", { class: "hidden-label" }, `${word}: `)),
      h("div", null,
        h("div", { class: "sign-head" }, h("span", null, message), h("span", { class: `small ${tone}` }, word)),
        h("p", { class: "quiet small" }, evidence)));
  });
  const empty = missing("Not measured yet.", "The first figures come with the first steps and evaluations.");
  fill(node, h("h2", { id: "indicators-title" }, "What to watch"), items.length ? h("ul", { class: "indicators" }, items) : empty);
}
