// The screen "Events": what happened in the run, attempt by attempt, and what its terminal showed.

import { choice, fold, ofAll, searchBox, switches } from "./controls.js";
import { fill, h, pairList, setText } from "./dom.js";
import { count, words } from "./format.js";
import { LoadedScreen, isPlain } from "./loaded.js";
import { LEVELS, MARKS, copyButton, glyph, missing } from "./parts.js";
import { marked } from "./prose.js";

const AT_ONCE = 300; // events drawn before "Show earlier"
const NEAR = 24; // pixels from the end that count as the end
const OWN = new Set(["time", "kind", "level", "step", "text"]); // columns; the rest is folded
const SHAPES = { started: "play", phase: "dots", note: "disc", ...Object.fromEntries(Object.entries(MARKS).map(([kind, mark]) => [kind, mark[0]])) };

export const show = (root, context) => Screen.show(root, context, "Reading the events …");

/** Whether `event` is of the levels and kind, and holds `query`. */
export function matches(event, { levels, kind, query }) {
  if (levels.size && !levels.has(event.level)) return false;
  if (kind && event.kind !== kind) return false;
  return !query || lineOf(event).toLowerCase().includes(query);
}

/** What an event holds besides its columns, as [name, text]. */
export function more(event) {
  return Object.entries(event).filter(([name, value]) => !OWN.has(name) && value !== null && value !== "")
    .map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
}

/** One line of text, for searching and copying. */
export function lineOf(event) {
  const step = event.step === null || event.step === undefined ? "" : ` step ${event.step}`;
  const rest = more(event).map(([name, value]) => `${name}=${value}`).join(" ");
  return [event.time, event.level, event.kind + step, event.text, rest].filter(Boolean).join("  ");
}

const two = (value) => String(value).padStart(2, "0");

/** [day, time of day] in the reader's time zone; milliseconds where they are known. */
export function moment(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return ["", String(time ?? "")];
  const day = date.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric" });
  return [day, `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`];
}

class Screen extends LoadedScreen {
  filter = { levels: new Set(), kind: "", query: "" };
  follows = true;
  most = AT_ONCE; // events that are drawn
  number = 0; // events that match
  waiting = 0; // events that came while paused

  async load() {
    const answer = await this.ask("events", { limit: 2000 });
    this.events = answer.events;
    this.left = Math.max(0, answer.total - answer.events.length);
    this.seen = new Set(this.events.map(lineOf));
    this.frame();
    this.redraw();
  }

  update(message) {
    if (message.kind === "snapshot" && message.reset) this.again();
    if (message.kind !== "records" || !message.events.length || !this.events) return;
    // What was fetched may overlap with what the stream brought in the meantime.
    const fresh = message.events.filter((event) => !this.seen.has(lineOf(event)));
    for (const event of fresh) this.seen.add(lineOf(event));
    if (!fresh.length) return;
    if (!this.events.length) return void this.again();
    this.events.push(...fresh);
    this.addKinds(fresh);
    this.append(fresh);
  }

  frame() {
    if (!this.events.length) {
      fill(this.root, missing("No events.",
        "Nothing has been written yet, or this run was made by a version that kept no events."));
      return;
    }
    this.status = h("span", { class: "small quiet", role: "status" });
    this.kinds = choice("kind", [["", "all"]], "", (kind) => { this.filter.kind = kind; this.redraw(); });
    this.known = new Set();
    this.addKinds(this.events);
    this.button = h("button", { type: "button", "aria-pressed": "true", title: "Key F", on: { click: () => this.follow(!this.follows) } });
    this.log = h("ol", { class: "events" });
    this.box = h("div", {
      class: "event-box", tabindex: 0, role: "log", "aria-label": "Events, newest last", "aria-live": "off",
      on: { scroll: () => this.scrolled() },
    }, this.log);
    const level = (name) => [name, glyph(LEVELS[name][0]), ` ${LEVELS[name][2]}`];
    fill(this.root,
      h("div", { class: "controls" },
        searchBox("Search events", (query) => { this.filter.query = query; this.redraw(); }, this.filter.query),
        switches("Levels shown", Object.keys(LEVELS).map(level), this.filter.levels, () => this.redraw()),
        this.kinds, this.button,
        copyButton("Copy what is shown", () => this.shown().map(lineOf).join("\n"), { announce: this.context.announce }),
        this.status),
      this.left > 0 && h("p", { class: "small quiet" }, `The ${count(this.left)} oldest events are in events.jsonl only.`),
      this.box);
    this.follow(this.follows);
  }

  addKinds(events) {
    const select = this.kinds.querySelector("select");
    for (const { kind } of events) {
      if (this.known.has(kind)) continue;
      this.known.add(kind);
      select.append(h("option", { value: kind, selected: kind === this.filter.kind }, words(kind)));
    }
  }

  shown() {
    return this.events.filter((event) => matches(event, this.filter));
  }

  /** Draws the newest events that match; older ones are drawn on request. */
  redraw() {
    if (!this.log?.isConnected) return;
    this.attempt = 0;
    this.day = "";
    const found = this.events.map((event) => this.entry(event)).filter(Boolean);
    const left = Math.max(0, found.length - this.most);
    const earlier = h("li", { class: "none" }, h("button", { type: "button", on: { click: () => this.showEarlier() } },
      `Show ${count(Math.min(left, AT_ONCE))} earlier events of ${count(left)}`));
    const none = h("li", { class: "none quiet" }, "No event matches.");
    this.number = found.length;
    fill(this.log, left > 0 && earlier, !found.length && none, found.slice(left).map((entry) => this.lines(entry)));
    this.tell();
    if (this.follows) this.toEnd();
  }

  showEarlier() {
    const fromEnd = this.box.scrollHeight - this.box.scrollTop;
    this.most += AT_ONCE;
    this.follow(false);
    this.redraw();
    this.box.scrollTop = this.box.scrollHeight - fromEnd;
  }

  append(events) {
    const found = events.map((event) => this.entry(event)).filter(Boolean);
    if (!this.number && found.length) this.log.replaceChildren();
    this.number += found.length;
    this.log.append(...found.flatMap((entry) => this.lines(entry)));
    this.tell();
    if (this.follows) this.toEnd();
    else if (found.length) this.pausedWith(found.length);
  }

  tell() {
    setText(this.status, ofAll(this.number, this.events.length, "events"));
  }

  /** [event, number of the attempt], or null where the filter leaves it out. */
  entry(event) {
    if (event.kind === "started") this.attempt += 1;
    return matches(event, this.filter) ? [event, this.attempt] : null;
  }

  /** The line of an event, and a heading before it where a day begins. */
  lines([event, attempt]) {
    const [day, time] = moment(event.time);
    const heading = day === this.day ? [] : [h("li", { class: "day small" }, day)];
    this.day = day;
    const again = event.kind === "started" && attempt > 1 && !this.left; // else how many there were is not known
    const rest = more(event).map(([name, value]) => [words(name), h("code", null, value)]);
    const level = LEVELS[event.level] ?? LEVELS.info;
    return [...heading, h("li", { class: `event ${event.level === "info" ? "" : level[1]} ${event.kind}` },
      h("time", { class: "quiet", title: String(event.time ?? "") }, time),
      h("span", { class: "kind" }, glyph(SHAPES[event.kind] ?? "disc"), words(event.kind), again && ` (attempt ${attempt})`),
      h("span", { class: "step num quiet" }, event.step === null || event.step === undefined ? "" : `step ${count(event.step)}`),
      h("div", { class: "message" }, event.level !== "info" && h("span", { class: "hidden-label" }, `${level[2]}: `), marked(event.text ?? "", this.filter.query)),
      rest.length > 0 && fold("details", () => pairList("pairs small", rest)))];
  }

  // ----------------------------------------------------------------- following

  follow(on) {
    this.follows = on;
    this.waiting = 0;
    this.button.setAttribute("aria-pressed", String(on));
    setText(this.button, on ? "Following" : "Paused: follow");
    if (on) this.toEnd();
  }

  toEnd() {
    this.box.scrollTop = this.box.scrollHeight;
  }

  pausedWith(number) {
    this.waiting += number;
    setText(this.button, `Paused: ${count(this.waiting)} new, follow`);
  }

  /** Scrolling up pauses, scrolling to the end follows again. */
  scrolled() {
    const isAtEnd = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < NEAR;
    if (isAtEnd !== this.follows) this.follow(isAtEnd);
  }

  key(event) {
    if (!isPlain(event) || event.key.toLowerCase() !== "f" || !this.button) return false;
    this.follow(!this.follows);
    return true;
  }
}
