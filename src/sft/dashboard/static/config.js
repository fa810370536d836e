// The screen "Config": each setting, where its value comes from, and how to run this again.

import { ofAll, problems, searchBox, switches } from "./controls.js";
import { fill, h, pairList, setText } from "./dom.js";
import { clock, count, NONE, valueText, wholeText, words } from "./format.js";
import { LoadedScreen } from "./loaded.js";
import { command, copyButton, missing } from "./parts.js";
import { marked } from "./prose.js";

// source: [word, what it means]; the order in which they are offered
const SOURCES = {
  flag: ["flag", "given on the command line"],
  file: ["file", "from the configuration file"],
  python: ["python", "given by a program"],
  given: ["given", "in a file, by a flag or by a program; this run did not record which"],
  auto: ["auto", "worked out by the run; the reason is beside it"],
  default: ["default", "not given"],
};

export const show = (root, context) => Screen.show(root, context, "Reading the configuration …");

/** Rows by their section (what stands before the first point), in their order. */
export function bySection(rows) {
  const sections = new Map();
  for (const row of rows) {
    const section = row.key.includes(".") ? row.key.split(".")[0] : "";
    if (!sections.has(section)) sections.set(section, []);
    sections.get(section).push(row);
  }
  return [...sections];
}

/** Rows of the sources in `sources` (all where it is empty) that hold `query`. */
export const matchingRows = (rows, sources, query) => rows.filter((row) =>
  (!sources.size || sources.has(row.source))
  && (!query || `${row.key} ${valueText(row.value)} ${row.reason ?? ""}`.toLowerCase().includes(query)));

class Screen extends LoadedScreen {
  query = "";
  sources = new Set();

  async load() {
    const answer = await this.ask("config");
    for (const row of answer.rows) row.source ??= "given";
    this.show(answer);
  }

  /** A run that has just begun writes its configuration a little later. */
  update(message) {
    if (message.kind === "snapshot" && (message.reset || !this.answer?.rows.length)) this.again();
  }

  show(answer) {
    this.answer = answer;
    const { root } = this;
    this.status = h("span", { role: "status" });
    this.place = h("div", { class: "settings" });
    const numbers = (source) => answer.rows.filter((row) => row.source === source).length;
    const offered = [...Object.keys(SOURCES), ...new Set(answer.rows.map((row) => row.source))].filter((source, i, all) => all.indexOf(source) === i && numbers(source));
    const button = (source) => [source, SOURCES[source]?.[0] ?? source, " ", h("span", { class: "num" }, count(numbers(source)))];
    fill(root,
      problems(answer.problems),
      h("div", { class: "config-top" }, again(answer), made(answer)),
      h("section", { class: "part", "aria-labelledby": "settings-title" },
        h("h2", { id: "settings-title" }, "Settings"),
        answer.rows.length ? [
          h("div", { class: "controls" },
            searchBox("Search settings", (query) => { this.query = query; this.draw(); }),
            switches("Sources shown", offered.map(button), this.sources, () => this.draw()),
            this.status),
          this.place] : missing("Not written yet.", "config.yaml appears when the data have been read.")),
      hashes("Fingerprints", answer.fingerprint, "A resumed run compares these with its own and refuses to continue where they differ."),
      hashes("Chat template", answer.template, ""));
    if (answer.rows.length) this.draw();
  }

  draw() {
    const found = matchingRows(this.answer.rows, this.sources, this.query);
    setText(this.status, ofAll(found.length, this.answer.rows.length, "settings"));
    fill(this.place, bySection(found).map(([section, rows]) => h("section", { class: "setting-section", "aria-label": section || "other" },
      h("h3", null, section || "other"), rows.map((row) => this.row(row)))));
  }

  row(row) {
    const [word, meaning] = SOURCES[row.source] ?? [row.source, ""];
    const isChanged = row.source !== "default";
    const differs = isChanged && row.default !== undefined && JSON.stringify(row.default) !== JSON.stringify(row.value);
    return h("div", { class: `setting ${isChanged ? "given" : "untouched"}` },
      h("code", { class: "key" }, marked(row.key, this.query)),
      h("code", { class: "value", title: wholeText(row.value) }, marked(valueText(row.value), this.query)),
      h("span", { class: `source ${row.source}`, title: meaning }, word),
      h("span", { class: "why quiet" }, row.reason ? marked(row.reason, this.query) : differs ? `default: ${valueText(row.default)}` : ""));
  }
}

function again(answer) {
  const one = (label, what, text) => h("div", { class: "again" },
    h("p", null, h("strong", null, label), " ", h("span", { class: "quiet" }, what)),
    text ? command(text) : h("p", { class: "missing" }, "Not known for this run."));
  const { started } = answer;
  return h("section", { "aria-labelledby": "again-title" },
    h("h2", { id: "again-title" }, "Run it again"),
    one("From the start", "in a new folder, with the same settings", answer.rerun),
    one("Continue", "from the last checkpoint, where there is one", answer.resume),
    started?.command && one("As it was started", [started.folder, started.host].filter(Boolean).join(" on "), started.command));
}

function made(answer) {
  const started = answer.started ?? {};
  const rows = [
    ["planned steps", answer.num_steps === null || answer.num_steps === undefined ? NONE : count(answer.num_steps)],
    ...(started.time ? [["first started", clock(started.time)]] : []),
    ...Object.entries(answer.versions ?? {}).map(([name, value]) => [words(name), valueText(value)]),
  ];
  return h("section", { "aria-labelledby": "made-title" }, h("h2", { id: "made-title" }, "Made with"),
    pairList("pairs", rows));
}

/** Nested names and values, with a button that copies each. */
function hashes(title, values, note) {
  const flat = flatten(values ?? {});
  if (!flat.length) return h("section", { class: "part" }, h("h2", null, title), missing("Not recorded.", ""));
  return h("section", { class: "part" }, h("h2", null, title), note && h("p", { class: "quiet" }, note),
    pairList("pairs", flat.map(([name, value]) => [name, h("code", null, valueText(value)),
      /^[0-9a-f]{32,}$/.test(String(value)) && copyButton("Copy", () => String(value))])));
}

/** `{files: {a: 1}}` → `[["files › a", 1]]`. */
export function flatten(values, before = "") {
  return Object.entries(values).flatMap(([name, value]) => (value !== null && typeof value === "object" && !Array.isArray(value)
    ? flatten(value, `${before}${name} › `) : [[`${before}${name}`, value]]));
}
