// The screen "Data": what became of each row, how long rows are, what the model sees of them.

import { createChart } from "./charts.js";
import { fold, growing, problems } from "./controls.js";
import { fill, h, head, num, pairList, rowName } from "./dom.js";
import { count, number, percent, words } from "./format.js";
import { LoadedScreen, isPlain } from "./loaded.js";
import { missing, scrollBox } from "./parts.js";
import { sentence } from "./prose.js";
import { TokenViews } from "./tokens.js";

// status: what it means. The order in which they are listed.
const STATUSES = {
  used: "trained on",
  changed: "trained on, after a change by a setting",
  truncated: "trained on, cut at max_seq_len",
  val: "held back for validation",
  dropped: "left out",
  bad: "could not be read",
};
const FEW = 12; // ids shown at once

export const show = (root, context) => Screen.show(root, context, "Reading the account of the data …");

/** What of an answer is there already, as text. */
const present = (answer) => [answer.account, answer.lengths, answer.preflight, answer.views?.length].map(Boolean).join();

/** Counts of account.json as [status, count], the known ones first. */
export function statuses(counts) {
  const names = [...Object.keys(STATUSES), ...Object.keys(counts).filter((name) => !(name in STATUSES))];
  return names.filter((name) => name in counts).map((name) => [name, counts[name]]);
}

/** Groups of uncovered usage prompts, the largest first: [{ label, items: [{ id, p, text }] }]. */
export function uncoveredGroups(usage) {
  const groups = new Map();
  for (const item of usage?.uncovered ?? []) {
    const label = item.group ?? "";
    if (!groups.has(label)) groups.set(label, []);
    groups.get(label).push(item);
  }
  return [...groups].map(([label, items]) => ({ label, items })).sort((a, b) => b.items.length - a.items.length);
}

class Screen extends LoadedScreen {
  async load() {
    const answer = await this.ask("data");
    // Redrawn only for something new, so that readers keep their place.
    if (this.answer && present(this.answer) === present(answer)) return;
    this.answer = answer;
    this.draw(this.root, this.context, answer);
  }

  draw(root, context, answer) {
    this.closeCharts();
    this.views = answer.views?.length ? new TokenViews(answer.views, context.params.get("row"), context.announce) : null;
    this.prompts = new Map(); // id of a usage prompt: where it stands
    const wanted = context.params.get("row");
    const isPrompt = answer.usage?.uncovered?.some((item) => item.id === wanted);
    const parts = [
      ["account", "Account", account(answer.account, this)],
      ["lengths", "Lengths", lengthsPart(answer.lengths, this.charts)],
      ["rows", "Rows as the model sees them", this.rowsPart(isPrompt ? null : wanted)],
      ["usage", "Usage prompts", this.usagePart(answer)],
      ["preflight", "Preflight", this.preflightPart(answer.preflight)],
    ];
    const jump = (name) => root.querySelector(`#data-${name}`).scrollIntoView({ block: "start" });
    fill(root,
      problems(answer.problems),
      h("div", { class: "jumps", role: "group", "aria-label": "Parts of this screen" },
        parts.map(([name, title]) => h("button", { type: "button", on: { click: () => jump(name) } }, title))),
      parts.map(([name, title, body]) => h("section", { class: "part", id: `data-${name}`, "aria-labelledby": `data-${name}-title` },
        h("h2", { id: `data-${name}-title` }, title), body)));
    this.find(wanted, jump);
  }

  /** Goes to the row that the address names: among those kept, or a usage prompt. */
  find(wanted, jump) {
    if (!wanted) return;
    const place = this.prompts.get(wanted);
    if (!place) return void jump("rows");
    place.focus({ preventScroll: true });
    place.scrollIntoView({ block: "center" });
  }

  /** What is missing may have been written in the meantime. */
  update(message) {
    if (message.kind !== "snapshot") return;
    if (message.reset) this.answer = null;
    const missed = this.answer ? present(this.answer).includes("false") : true;
    if (missed) this.again();
  }

  key(event) {
    if (!this.views || !isPlain(event) || !"[]".includes(event.key)) return false;
    this.views.turn(event.key === "[" ? -1 : 1);
    return true;
  }

  /** A row's id; a link to its tokens where they are kept. */
  id(id) {
    if (!this.views?.has(id)) return h("span", { class: "id" }, id);
    return h("a", {
      class: "id", href: `#/run/${encodeURIComponent(this.context.run)}/data?row=${encodeURIComponent(id)}`,
      on: { click: (event) => {
        event.preventDefault();
        this.views.open(id);
        this.views.node.scrollIntoView({ block: "start" });
        this.views.text.focus({ preventScroll: true });
      } },
    }, id);
  }

  /** Ids in a row; those beyond the first few are folded. */
  ids(list, total = list.length) {
    const shown = list.slice(0, FEW);
    const rest = list.slice(FEW);
    const left = total - list.length;
    const others = () => [
      rest.map((id) => this.id(id)),
      left > 0 && h("p", { class: "quiet small" }, `and ${count(left)} more, in account.json`),
    ];
    return h("div", { class: "ids" }, shown.map((id) => this.id(id)), rest.length > 0 && fold(`${count(total - shown.length)} more`, others));
  }

  rowsPart(wanted) {
    if (!this.views) return missing("Not kept.", "This run has no examples.json: it was made by an older version, has not read its data yet, or was trained elsewhere.");
    const lost = wanted && !this.views.has(wanted) && missing(`${wanted} is not among the rows that are kept.`,
      "The run keeps some 40 rows as the model sees them; ", h("code", null, `sft check CONFIG --row ${wanted}`), " shows any row.");
    return [lost, this.views.node];
  }

  usagePart({ usage }) {
    if (!usage) {
      const why = "Without prompts as they come in real use it is not known whether the training rows cover them: give `--usage FILE`.";
      return missing("Not measured.", sentence(why));
    }
    const groups = uncoveredGroups(usage);
    const facts = usage.facts ?? [];
    const total = usage.n ?? Object.keys(usage.p_values ?? {}).length;
    const uncovered = usage.uncovered?.length ?? 0;
    const wanted = this.context.params.get("row");
    const group = ({ label, items }) => {
      const title = h("span", null, h("strong", null, label || "others"), ` · ${plural(items.length, "prompt")}`);
      const open = groups.length <= 3 || items.some((item) => item.id === wanted);
      return fold(title, () => grown(items, 50, (item) => this.prompt(item), "prompts"), { open });
    };
    return [
      h("p", null, uncovered ? h("strong", null, `${count(uncovered)} of ${count(total)} usage prompts`) : `None of ${count(total)} usage prompts`,
        uncovered ? " are unlike anything in the training rows. What they are about:" : " is unlike the training rows."),
      groups.map(group),
      facts.length > 0 && factTable(facts),
    ];
  }

  prompt(item) {
    const node = h("div", { class: "prompt-row", tabindex: -1 }, this.id(item.id),
      h("span", { class: "num quiet", title: "how often a training prompt is as unlike the other training prompts" }, `p ${number(item.p)}`), h("q", null, item.text));
    this.prompts.set(item.id, node);
    return node;
  }

  preflightPart(preflight) {
    if (!preflight) return missing("Not measured.", "This run has no preflight.json yet: the data are measured before the first step.");
    const { rows, answers } = preflight;
    const pair = ([a, b]) => h("p", { class: "id-pair" }, this.id(a), h("span", { class: "quiet" }, " and "), this.id(b));
    return [
      rows && figures([
        ["training rows", count(rows.train), ""],
        ["distinct rows", count(rows.effective), rows.effective < 0.8 * rows.train ? "warning" : ""],
        ["near-duplicates", count(rows.train - rows.clusters), rows.clusters < 0.8 * rows.train ? "warning" : ""],
        ["visits of each row", number(rows.repeats, 2), rows.repeats > 4 ? "warning" : ""],
        ["val rows in training", count(rows.num_leaks), rows.num_leaks ? "error" : ""],
      ]),
      rows?.duplicates?.length > 0 && fold(`Near-duplicates, ${plural(rows.duplicates.length, "pair")} of them`, () => rows.duplicates.map(pair)),
      rows?.leaks?.length > 0 && fold(`Leaks, ${plural(rows.leaks.length, "pair")} of validation and training row`,
        () => rows.leaks.map((leak) => pair([leak.val, leak.train])), { open: true }),
      answers && openers(answers),
    ];
  }
}

function account(found, screen) {
  if (!found) return missing("Not there yet.", "The account of the data is written before the first step; an older run may have none.");
  const rows = statuses(found.counts).filter(([name, n]) => n || name === "used" || name === "val");
  const total = rows.reduce((sum, [, n]) => sum + n, 0) || 1;
  const files = Object.entries(found.files ?? {});
  const reasons = new Map(rows.map(([name]) => [name, (found.reasons ?? []).filter((one) => one.status === name)]));
  const kind = (name) => (name in STATUSES ? name : "other");
  const piece = ([name, n]) => n > 0 && h("i", { class: kind(name), vars: { "--share": n / total } });
  const line = ([name, n]) => h("tr", null,
    rowName(h("i", { class: `tile ${kind(name)}`, "aria-hidden": "true" }), name),
    num(count(n)), num(percent(n / total), "quiet"),
    h("td", null, STATUSES[name] ?? words(name), reasonList(reasons.get(name), screen)));
  return [
    h("p", null, h("strong", null, count(found.num_rows)), " rows read. Each is accounted for:"),
    h("div", { class: "share", "aria-hidden": "true" }, rows.map(piece)),
    scrollBox("Account of the rows", h("table", { class: "account" }, h("tbody", null, rows.map(line)))),
    found.notes?.length > 0 && h("ul", { class: "notes" }, found.notes.map((note) => h("li", null, note))),
    files.length > 0 && fold(`${plural(files.length, "file")} with SHA-256`, () => pairList("hashes", files.map(([path, hash]) => [path, h("code", null, hash)]))),
  ];
}

/** All of `items`, `size` at once. */
function grown(items, size, make, noun) {
  const list = growing(h("div"), size, make, noun);
  list.set(items);
  return list.node;
}

function reasonList(reasons, screen) {
  const list = reasons.filter((one) => one.reason);
  const total = list.reduce((sum, one) => sum + one.count, 0);
  const line = (one) => h("div", { class: "reason" },
    h("p", null, one.count > 1 && h("span", { class: "num quiet" }, `${count(one.count)} × `), one.reason,
      one.count > 1 && one.reason.includes("#") && h("span", { class: "quiet small" }, " (# stands for numbers that differ)")),
    one.rows?.length > 0 && screen.ids(one.rows, one.count));
  if (list.length <= 2) return list.map(line);
  return fold(`${count(list.length)} reasons, ${count(total)} rows`, () => grown(list, 30, line, "reasons"));
}

function lengthsPart(lengths, charts) {
  if (!lengths) return missing("Not recorded.", "Lengths are in examples.json, which this run does not have (yet).");
  const line = (kind, sum) => h("tr", null, rowName(kind), lengths[`${kind}_quantiles`].map((value) => num(count(value))), num(count(sum)));
  const share = percent(lengths.num_tokens ? lengths.num_trained / lengths.num_tokens : null);
  const longest = Math.max(lengths.edges.at(-1), 1);
  const beyond = lengths.max_seq_len > 1.5 * longest;
  const end = beyond ? longest : Math.max(longest, lengths.max_seq_len);
  const chart = (kind, name, colour) => {
    const place = h("div", { class: "length-plot" });
    charts.push(createChart(place, histogram(lengths, kind, name, colour, end, beyond)));
    return h("figure", null, h("figcaption", { class: "small" }, h("i", { class: `tile ${kind}`, "aria-hidden": "true" }), name), place);
  };
  return [
    h("p", null, h("strong", null, share), ` of the tokens are trained: ${count(lengths.num_trained)} of ${count(lengths.num_tokens)}. `,
      "The rest is only shown to the model.",
      beyond && ` The limit, max_seq_len ${count(lengths.max_seq_len)}, lies beyond the axis.`),
    h("div", { class: "histograms" }, chart("all", "All tokens of a row", "strong-line"), chart("trained", "Tokens it is trained on", "bar-trained")),
    scrollBox("Lengths", h("table", { class: "lengths" },
      head(["tokens per row", "shortest", "median", "95 %", "longest", "sum"], 1),
      h("tbody", null, line("all", lengths.num_tokens), line("trained", lengths.num_trained)))),
  ];
}

/** Options of charts.js: rows by their number of tokens, with the median, 95 % and the limit. */
function histogram(lengths, kind, name, colour, end, beyond) {
  const { edges } = lengths;
  const counts = lengths[`${kind}_counts`];
  const least = 0.018 * Math.max(...counts); // a single row among thousands is seen too
  const [, median, most] = lengths[`${kind}_quantiles`];
  const limit = beyond ? [] : [{ x: lengths.max_seq_len, text: `max_seq_len ${count(lengths.max_seq_len)}`, tone: "error", level: 2 }];
  return {
    label: `${name}: median ${count(median)}, 95 % at most ${count(most)}; max_seq_len is ${count(lengths.max_seq_len)}.`,
    top: 44, x: { range: [0, end] }, y: { zero: true },
    series: [{
      name, colour, x: counts.map((_, i) => (edges[i] + edges[i + 1]) / 2), y: counts.map((n) => n && Math.max(n, least)),
      bars: counts.map((_, i) => 0.96 * (edges[i + 1] - edges[i])),
      text: counts.map((n, i) => `${count(edges[i])} to ${count(edges[i + 1])} tokens: ${count(n)} rows`),
    }],
    limits: [{ x: median, text: `median ${count(median)}` }, { x: most, text: `95 % ${count(most)}`, level: 1 }, ...(kind === "all" ? limit : [])],
  };
}

const figures = (list) => h("dl", { class: "facts" }, list.map(([name, value, tone]) => h("div", null, h("dt", null, name), h("dd", { class: tone }, value))));

const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

function openers(answers) {
  const share = answers.n ? answers.opener_count / answers.n : null;
  const { reference } = answers;
  const of = (title, name) => h("tr", null, rowName(title), num(number(answers[name], 3)), reference && num(number(reference[name], 3)));
  return [
    h("h3", null, "Responses"),
    h("p", null, "The most frequent opener, ", h("q", null, answers.opener || "(nothing)"),
      `, has ${count(answers.opener_count)} of ${count(answers.n)} responses (${percent(share)}).`),
    scrollBox("Surface of the responses", h("table", { class: "surface" },
      head(["", "training", ...(reference ? ["usage"] : [])], 1),
      h("tbody", null,
        of("compression ratio (higher: more alike)", "compression_ratio"),
        of("distinct word pairs (share)", "distinct_2"),
        of("with a shared phrase (share)", "template_rate")))),
  ];
}

function factTable(facts) {
  const line = (fact) => h("tr", null,
    h("th", { scope: "row", class: fact.differs ? "warning" : "" }, words(fact.name), fact.differs && " differs"),
    h("td", null, text(fact.train)), h("td", null, text(fact.usage)), h("td", null, fact.message));
  const text = (value) => (typeof value === "number" ? number(value, 3) : typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "–"));
  return scrollBox("Training and usage", h("table", null,
    head(["", "training", "usage", "in words"]), h("tbody", null, facts.map(line))));
}
