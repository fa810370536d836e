// The frame around the screens: which screen is shown (router), theme, keys, the stream of the run.
//
// THE CONTRACT OF A SCREEN. Each screen is a module in SCREENS below that exports
//
//     export async function show(root, context) { ...; return { update(message), close(), key(event) } }
//
// `root`     an empty <div data-screen="NAME"> of the screen's own; fill it through dom.js only.
// `context`  {
//   run        id of the run, or null (list of runs, compare)
//   params     URLSearchParams of the hash: #/compare?runs=a,b
//   snapshot   answer of /api/runs/ID, or null without a run; kept new by app.js (read it anew)
//   runs       rows of /api/runs, as last heard (read it anew)
//   signal     AbortSignal that fires when the screen is left: hand it to get()
//   go(hash)   shows another screen: go("#/run/ID/samples")
//   announce(text)  tells a screen reader
// }
// `update(message)`, optional, is called with
//   { kind: "records", steps, evaluations, events, findings, samples }   new whole records of the run
//   { kind: "state", state }            RunState; context.snapshot.state is already the new one
//   { kind: "snapshot", snapshot }      loaded anew: after a `reset`, and after evaluations. After a
//                                       reset (`message.reset` true) fetch everything anew.
//   { kind: "runs", runs }              rows of the list of runs changed
//   { kind: "theme" }                   colours changed (charts.js redraws its charts by itself)
// `close()`, optional, frees charts, timers and listeners. `context.signal` is aborted before it.
// `key(event)`, optional, sees keydown first; return true (no less) when it was used. An <input
//   type="search"> in the root is focused by "/" without doing anything for it.
//
// An error thrown by show() (ApiError among them) is shown with a button to try again; AbortError
// is ignored. A screen sets no title and draws no tabs: app.js does. Numbers: format.js. Pills,
// verdicts, "not measured", errors, copyable commands: parts.js. Charts: charts.js. Colours: base.css;
// spacing: app.css.

import { ApiError, exchangeToken, get, runPath } from "./api.js";
import { fill, h, setText, visible } from "./dom.js";
import { HELP, routeKey } from "./keys.js";
import { failure, glyph, loading } from "./parts.js";
import { RunBar } from "./run_bar.js";
import { follow } from "./stream.js";

// name: [what the tab says, the module]
const SCREENS = {
  runs: ["Runs", () => import("./runs.js")],
  compare: ["Compare", () => import("./compare.js")],
  run: ["Run", () => import("./run.js")],
  guards: ["Guards", () => import("./guards.js")],
  samples: ["Samples", () => import("./samples.js")],
  data: ["Data", () => import("./data.js")],
  config: ["Config", () => import("./config.js")],
  events: ["Events", () => import("./events.js")],
};
const TABS = ["run", "guards", "samples", "data", "config", "events"];
const SNAPSHOT_PAUSE = 1500; // milliseconds between an evaluation's records and the snapshot loaded anew
const RUNNING = ["preparing", "training", "measuring", "saving", "stalled"];

const at = (id) => document.getElementById(id);
const bar = new RunBar(at("run-bar"));

const state = { run: null, snapshot: null, runs: [], folder: "" };
let screen = { close() {} };
let leave = new AbortController();
let runStream = null;
let listStream = null;
let snapshotTimer = 0;
let visit = 0; // of the router: what an earlier visit fetched is dropped

// ------------------------------------------------------------------- routes

/** `#/run/ID/guards` → { name, run, params }. */
function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [kind, id, part = "run"] = path.split("/");
  const params = new URLSearchParams(query);
  if (kind === "run" && id) return { name: TABS.includes(part) ? part : "run", run: id, params };
  return { name: kind === "compare" ? "compare" : "runs", run: null, params };
}

const go = (hash) => { location.hash = hash; };

async function route() {
  const mine = (visit += 1);
  const { name, run, params } = parse(location.hash);
  leave.abort();
  leave = new AbortController();
  screen.close?.();
  screen = {};
  showTabs(run, name);
  const place = `${run}/${name}`;
  if (place !== at("main").dataset.place) scrollTo(0, 0);
  at("main").dataset.place = place;
  setText(at("announcer"), SCREENS[name][0]);
  at("main").setAttribute("aria-label", SCREENS[name][0]);
  const root = h("div", { data: { screen: name } }, loading());
  fill(at("main"), root);
  try {
    await enter(run);
    if (mine !== visit) return;
    bar.show(state.snapshot);
    setTitle(SCREENS[name][0]);
    const module = await SCREENS[name][1]().catch(notLoaded);
    if (mine !== visit) return;
    root.replaceChildren();
    const context = contextOf(run, params, name);
    const shown = (await module.show(root, context)) ?? {};
    if (mine === visit) screen = shown;
    else shown.close?.();
  } catch (error) {
    if (mine === visit && error.name !== "AbortError") showError(root, error);
  }
}

function contextOf(run, params, name) {
  return {
    run, params, go, screen: name,
    get snapshot() { return state.snapshot; },
    get runs() { return state.runs; },
    get folder() { return state.folder; },
    signal: leave.signal,
    announce: (text) => setText(at("announcer"), text),
  };
}

function notLoaded(cause) {
  throw new Error("The files of this screen could not be loaded. Is `sft watch` still running?", { cause });
}

function showError(root, error) {
  const isKnown = error instanceof ApiError; // otherwise a fault of the page, or half of it is missing
  if (!isKnown) console.error(error);
  bar.show(state.snapshot);
  fill(root, failure(error, isKnown ? route : () => location.reload()), h("p", null, h("a", { href: "#/" }, "All runs")));
}

function showTabs(run, name) {
  const tabs = at("tabs");
  tabs.hidden = run === null;
  at("run-bar").hidden = run === null;
  if (run === null) return;
  const link = (tab, i) => h("a", {
    href: `#/run/${encodeURIComponent(run)}${tab === "run" ? "" : `/${tab}`}`,
    "aria-current": tab === name ? "page" : null, title: `Key ${i + 1}`,
  }, SCREENS[tab][0]);
  fill(tabs.firstElementChild, TABS.map(link));
  tabs.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function setTitle(word) {
  const { snapshot } = state;
  if (!snapshot) {
    document.title = `${word} – sft watch`;
    return;
  }
  const { state: now, step, num_steps: most, name } = snapshot;
  document.title = visible(`${now.state}${most ? ` ${step}/${most}` : ""} · ${name} · ${word} – sft watch`);
}

// ------------------------------------------------------------------- what is followed

/** Makes `run` the run that is followed; null is the list of runs. */
async function enter(run) {
  if (run === state.run && (run === null ? listStream : state.snapshot)) return;
  runStream?.close();
  listStream?.close();
  runStream = listStream = null;
  clearTimeout(snapshotTimer);
  snapshotTimer = 0;
  state.run = run;
  state.snapshot = null;
  if (run === null) await followList();
  else await followRun(run);
}

async function followList() {
  setRuns(await get("/api/runs", leave.signal));
  const on = { runs: (data) => { setRuns(data); tell({ kind: "runs", runs: state.runs }); }, up: connection };
  listStream = follow(() => "/api/stream", ["runs"], on);
}

function setRuns(answer) {
  state.runs = answer.runs;
  state.folder = answer.folder ?? state.folder;
  showFolder(state.folder);
}

function showFolder(path) {
  setText(at("folder"), path);
  at("folder").title = visible(path);
}

async function followRun(run) {
  const snapshot = await get(runPath(run), leave.signal);
  if (run !== state.run) return;
  state.snapshot = snapshot;
  showFolder(snapshot.path);
  const on = { records: heardRecords, state: heardState, reset: () => refresh(true), up: connection };
  runStream = follow((cursor) => runPath(run, "stream", { from: cursor }), ["records", "state", "reset"], on, snapshot.cursor);
}

function tell(message) {
  try {
    screen.update?.(message);
  } catch (error) {
    console.error(error);
  }
}

function heardRecords(data) {
  const last = data.steps.at(-1);
  const { snapshot } = state;
  if (last && snapshot) {
    Object.assign(snapshot.latest, last);
    snapshot.step = last.step;
    snapshot.epoch = last.epoch ?? snapshot.epoch;
    snapshot.tokens_per_second = last.tokens_per_second ?? snapshot.tokens_per_second;
    bar.show(snapshot);
    setTitle(SCREENS[parse(location.hash).name][0]);
  }
  const seen = snapshot?.evaluations.at(-1)?.step ?? -1;
  snapshot?.evaluations.push(...data.evaluations.filter((evaluation) => evaluation.step > seen));
  tell({ kind: "records", ...data });
  if (data.evaluations.length || data.findings.length || data.events.length) refreshSoon();
}

function heardState(now) {
  const { snapshot } = state;
  if (!snapshot) return;
  const changed = now.state !== snapshot.state.state;
  snapshot.state = now;
  bar.show(snapshot);
  tell({ kind: "state", state: now });
  if (changed) at("announcer").textContent = `The run is ${now.state}.`;
  if (changed || RUNNING.includes(now.state)) refreshSoon();
}

function refreshSoon() {
  if (!snapshotTimer) snapshotTimer = setTimeout(() => refresh(false), SNAPSHOT_PAUSE);
}

async function refresh(reset) {
  clearTimeout(snapshotTimer);
  snapshotTimer = 0;
  const { run } = state;
  try {
    const snapshot = await get(runPath(run));
    if (run !== state.run) return;
    state.snapshot = snapshot;
    bar.show(snapshot);
    tell({ kind: "snapshot", snapshot, reset });
  } catch (error) {
    if (error.status === 404) connection(false); // the folder is gone; the stream tells when it is back
  }
}

function connection(up) {
  const node = at("connection");
  node.className = up ? "quiet" : "warning";
  fill(node, glyph(up ? "disc" : "triangle"), up ? "live" : "server gone, reconnecting …");
  node.title = up ? "New records arrive as they are written" : "What is shown is the last that was heard";
  document.body.dataset.connected = String(up);
}

// ------------------------------------------------------------------- theme, keys, start

const THEMES = ["system", "light", "dark"];

function showTheme() {
  const { choice } = globalThis.sftTheme;
  setText(at("theme"), choice[0].toUpperCase() + choice.slice(1));
  at("theme").setAttribute("aria-label", `Colours: ${choice === "system" ? "as the system" : choice}`);
}

function openHelp() {
  const rows = HELP.map(([keys, what]) => h("tr", null, h("td", null, keys.map((key) => [h("kbd", null, key), " "])), h("td", null, what)));
  fill(at("help"), h("h2", { id: "help-title" }, "Keys"), h("table", null, h("tbody", null, rows)),
    h("p", null, h("button", { type: "button", on: { click: () => at("help").close() } }, "Close")));
  if (!at("help").open) at("help").showModal();
}

function onKey(event) {
  if (at("help").open || screen.key?.(event) === true) return;
  const did = routeKey(event, {
    tab: (i) => state.run !== null && TABS[i] && go(at("tabs").querySelectorAll("a")[i].getAttribute("href")),
    home: () => go("#/"),
    search: () => at("main").querySelector("input[type=search]")?.focus(),
    help: openHelp,
  });
  if (did) event.preventDefault();
}

async function start() {
  at("theme").addEventListener("click", () => {
    globalThis.sftTheme.set(THEMES[(THEMES.indexOf(globalThis.sftTheme.choice) + 1) % 3]);
    showTheme();
  });
  document.addEventListener("themechange", () => tell({ kind: "theme" }));
  at("keys").addEventListener("click", openHelp);
  at("skip").addEventListener("click", () => at("main").focus());
  document.addEventListener("keydown", onKey);
  showTheme();
  try {
    await exchangeToken();
    if (/^#?\/?$/.test(location.hash)) {
      setRuns(await get("/api/runs"));
      if (state.runs.length === 1) history.replaceState(null, "", `#/run/${encodeURIComponent(state.runs[0].id)}`);
    }
  } catch (error) {
    fill(at("main"), failure(error, () => location.reload()));
    return;
  }
  addEventListener("hashchange", () => (location.hash.startsWith("#token=") ? location.reload() : route()));
  await route();
}

start();
