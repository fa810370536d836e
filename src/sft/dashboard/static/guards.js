// The screen "Guards": what each guard says, how sure it is, and what to do about it.

import { createChart } from "./charts.js";
import { fold } from "./controls.js";
import { fill, h, head, num } from "./dom.js";
import { count, number, words } from "./format.js";
import { LoadedScreen } from "./loaded.js";
import { VERDICTS, command, glyph, missing, scrollBox, verdictBadge } from "./parts.js";
import { commandsOf, sentence } from "./prose.js";
import {
  DETECTABLE, GUARDS, actionText, chartOptions, detectableText, drawable, figure, firstSignal, guardNames, interval, lastPoint, title, unitText,
} from "./signals.js";

const ORDER = ["alarm", "watch", "insufficient", "pass", "not_measured"]; // of the cards
const ROW = /[./].*:\d+(#\d+)?$/; // an id that is a file and a line

export const show = (root, context) => Screen.show(root, context, "Reading what the guards found …");

class Screen extends LoadedScreen {
  chosen = new Map(); // guard: name of the signal its chart shows
  opened = new Set(); // folds that are open

  async load() {
    const answer = await this.ask("guards");
    this.close();
    const focused = document.activeElement?.id;
    this.draw(answer);
    if (focused && this.root.contains(document.getElementById(focused))) document.getElementById(focused).focus();
  }

  update(message) {
    if (message.kind === "records" && message.findings.length) this.again();
    if (message.kind === "snapshot" && message.reset) this.again();
  }

  draw(answer) {
    const names = guardNames(answer);
    if (!names.length) {
      const why = "Guards judge after each evaluation; the first one is taken before the first step. Where `guards.enabled` is false they judge nothing.";
      fill(this.root, missing("No verdicts yet.", sentence(why)));
      return;
    }
    const verdicts = new Map(answer.verdicts.map((finding) => [finding.guard, finding]));
    const rank = (name) => ORDER.indexOf(verdicts.get(name)?.verdict ?? "not_measured");
    const cards = [...names].sort((a, b) => rank(a) - rank(b)).map((name) => this.card(name, verdicts.get(name), answer));
    fill(this.root, headline(answer, names, verdicts), h("div", { class: "guard-cards" }, cards), rules(answer.settings));
  }

  card(guard, verdict, answer) {
    const word = verdict?.verdict ?? "not_measured";
    const findings = answer.findings.filter((finding) => finding.guard === guard);
    const node = h("article", { class: `card verdict-card ${word} ${VERDICTS[word]?.[1] ?? "quiet"}`, id: `guard-${guard}`, tabindex: -1, "aria-labelledby": `title-${guard}` },
      h("header", null,
        h("h2", { id: `title-${guard}` }, title(guard)),
        verdictBadge(word),
        GUARDS[guard] && h("p", { class: "quiet question" }, GUARDS[guard][1])),
      h("p", { class: "message" }, verdict ? sentence(verdict.message) : "Not measured: this guard has not judged yet."));
    const names = Object.keys(answer.signals).filter((name) => name.startsWith(`${guard}.`) && drawable(answer.signals[name]));
    if (names.length) this.addChart(node, guard, verdict, names, answer);
    else if (word === "not_measured") node.append(h("p", { class: "quiet" }, "There are no figures, so nothing is known either way. This is not a pass."));
    else node.append(noChart(word));
    node.append(...remedy(verdict, this.context.snapshot?.path));
    const evidence = answer.evidence?.[guard] ?? [];
    node.append(h("div", { class: "folds" },
      evidence.length > 0 && fold("Evidence in examples", () => evidence.map((part) => this.evidence(part)), this.foldKey(guard, "evidence")),
      findings.length > 0 && fold(`All signals (${findings.length})`, () => signalTable(findings), this.foldKey(guard, "signals"))));
    const action = answer.actions?.[guard];
    node.append(h("p", { class: "action quiet small" }, actionText(action), action && [" ", h("code", null, `guards.${guard}: ${action}`)]));
    return node;
  }

  foldKey(guard, part) {
    return { key: `${guard}/${part}`, opened: this.opened };
  }

  addChart(node, guard, verdict, names, answer) {
    const kept = this.chosen.get(guard);
    let name = names.includes(kept) ? kept : firstSignal(guard, verdict, answer.signals);
    const place = h("div", { class: "guard-chart" });
    const facts = h("dl", { class: "signal-facts" });
    const unit = h("span", { class: "quiet small" }, unitText(answer.signals[name].unit));
    let options = chartOptions(name, answer.signals[name]);
    const keys = h("span", { class: "key-row quiet small" }, legend(options));
    const select = h("select", { id: `signal-${guard}`, "aria-label": `Signal of ${title(guard)} shown`, on: { change: () => change(select.value) } },
      names.map((one) => h("option", { value: one, selected: one === name }, words(one.slice(guard.length + 1)))));
    const drawFacts = () => fill(facts, factList(name, answer.signals[name]));
    const change = (to) => {
      name = to;
      this.chosen.set(guard, to);
      drawFacts();
      fill(unit, unitText(answer.signals[name].unit));
      options = chartOptions(name, answer.signals[name]);
      fill(keys, legend(options));
      chart.draw(options, { urgent: true });
    };
    drawFacts();
    node.append(h("div", { class: "chart-head" }, select, unit, keys), place, facts);
    const chart = createChart(place, options);
    this.charts.push(chart);
  }

  evidence(part) {
    const name = (id) => (ROW.test(id)
      ? h("a", { class: "id", href: `#/run/${encodeURIComponent(this.context.run)}/data?row=${encodeURIComponent(id)}` }, id)
      : h("span", { class: "id" }, id));
    const row = (item) => h("li", { class: item.id ? "" : "unnamed" },
      item.id && name(item.id),
      item.figure !== null && item.figure !== undefined && h("span", { class: "figure" }, typeof item.figure === "number" ? number(item.figure, 3) : item.figure),
      item.text && h("q", null, item.text));
    return [h("h3", null, part.title), part.items?.length ? h("ol", { class: "evidence" }, part.items.map(row)) : h("p", { class: "quiet" }, "No examples.")];
  }
}

/** One line that says it all, and a way to each card. */
function headline(answer, names, verdicts) {
  const step = Math.max(-1, ...answer.verdicts.map((finding) => finding.step ?? -1));
  const chips = names.map((name) => {
    const [shape, tone, word] = VERDICTS[verdicts.get(name)?.verdict] ?? VERDICTS.not_measured;
    const jump = () => {
      const card = document.getElementById(`guard-${name}`);
      card.scrollIntoView({ block: "start" });
      card.focus({ preventScroll: true });
    };
    return h("button", { type: "button", class: `guard-chip ${tone}`, on: { click: jump } },
      glyph(shape), h("span", null, title(name)), h("span", { class: "word" }, word));
  });
  const judged = names.map((name) => verdicts.get(name)?.verdict ?? "not_measured");
  const worst = ["alarm", "watch", "insufficient", "not_measured", "pass"].find((verdict) => judged.includes(verdict));
  const summary = {
    alarm: "An alarm: sure, large, and seen in two evaluations or beyond doubt.",
    watch: "Worth watching; nothing is sure.",
    insufficient: "Nothing found, but not all could be judged.",
    not_measured: "Nothing found in what was measured; not all was measured.",
    pass: "All that was measured passed.",
  }[worst];
  return h("section", { class: "verdict-head", "aria-label": "Verdicts" },
    h("p", null, step >= 0 && h("strong", null, `After step ${count(step)}. `), summary),
    h("div", { class: "guard-chips" }, chips));
}

/** What the lines of a chart are; each differs in more than its colour. */
function legend({ series, limits }) {
  const item = (kind, text) => h("span", null, h("i", { class: `chart-key ${kind}`, "aria-hidden": "true" }), text);
  const has = (name) => series.some((one) => one.name === name);
  return [
    item("line", "measured"), series.some((one) => one.low) && item("band", "95 %"),
    (limits.length > 0 || has("threshold")) && item("limit", "threshold"), has(DETECTABLE) && item("seen", DETECTABLE),
  ];
}

function noChart(word) {
  const why = word === "insufficient"
    ? missing("Too little to tell.", "Nothing can be drawn yet. This is not a pass.")
    : missing("Nothing to draw.", "This guard judges without a figure.");
  why.classList.add("no-chart");
  return why;
}

/** The figures of the last evaluation, and the minimum detectable effect. */
function factList(name, signal) {
  const point = lastPoint(signal);
  const pair = (term, value) => value !== "" && value !== null && h("div", null, h("dt", null, term), h("dd", null, value));
  const judged = point.verdict === "insufficient" || point.verdict === "not_measured";
  return [
    pair("now", figure(point.statistic, signal.unit)),
    pair("95 % interval", interval(point.low, point.high, signal.unit)),
    pair("threshold", point.threshold === null || point.threshold === undefined ? "" : figure(point.threshold, signal.unit)),
    judged && h("div", { class: "wide" }, h("dt", null, "this signal"), h("dd", null, verdictBadge(point.verdict))),
    detectableText(name, point, signal.unit) && h("div", { class: "wide" }, h("dt", null, DETECTABLE), h("dd", null, detectableText(name, point, signal.unit))),
  ];
}

function remedy(verdict, path) {
  if (!verdict?.remedy) return [];
  return [h("div", { class: "remedy" },
    h("p", null, h("strong", null, "What to do: "), sentence(verdict.remedy)),
    commandsOf(verdict.remedy, path ?? "RUN").map(command))];
}

function signalTable(findings) {
  const row = (finding) => [h("tr", { class: "figures" },
    h("th", { scope: "row" }, words(finding.signal), finding.primary && h("span", { class: "quiet small" }, " decides")),
    h("td", null, verdictBadge(finding.verdict)),
    num(figure(finding.statistic, finding.unit)),
    num(finding.interval ? interval(finding.interval[0], finding.interval[1], finding.unit) : ""),
    num(figure(finding.threshold, finding.unit)), num(finding.n ? count(finding.n) : "")),
  h("tr", { class: "words" }, h("td", { colspan: 6 }, sentence(finding.message), finding.remedy && h("p", null, "What to do: ", sentence(finding.remedy))))];
  return scrollBox("All signals", h("table", { class: "signals" },
    head(["signal", "verdict", "now", "95 % interval", "threshold", "n"], 2),
    h("tbody", null, findings.map(row))));
}

/** The settings that verdicts were judged by. */
function rules(settings) {
  const rows = Object.entries(settings ?? {}).filter(([, value]) => value !== null && typeof value !== "object");
  if (!rows.length) return null;
  return h("section", { class: "rules", "aria-label": "Rules" }, h("p", { class: "quiet small" }, "Judged by: ",
    rows.map(([name, value], i) => [i > 0 && ", ", h("code", null, `${name} ${typeof value === "number" ? number(value) : value}`)]), "."));
}
