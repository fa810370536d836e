// A screen whose page data are fetched when it is opened, and again when they may have changed.

import { get, runPath } from "./api.js";
import { settled } from "./controls.js";
import { fill } from "./dom.js";
import { failure, loading } from "./parts.js";

export class LoadedScreen {
  /** `load()` fetches and draws; `again()` does it soon, once for many calls. */
  constructor(root, context) {
    this.root = root;
    this.context = context;
    this.charts = []; // closed with the screen
    this.again = settled(() => this.load().catch((error) => this.fail(error)), 400);
  }

  static async show(root, context, what) {
    fill(root, loading(what));
    const screen = new this(root, context);
    await screen.load();
    return screen;
  }

  /** The page data of a part of the run, such as "guards". */
  ask(part, query) {
    return get(runPath(this.context.run, part, query), this.context.signal);
  }

  fail(error) {
    if (error.name !== "AbortError") fill(this.root, failure(error, () => this.again()));
  }

  closeCharts() {
    for (const chart of this.charts.splice(0)) chart.close();
  }

  close() {
    this.again.stop();
    this.closeCharts();
  }
}

/** Whether a key is meant for the screen, and not for a field or the browser. */
export const isPlain = (event) => !event.target.closest?.("input, select, textarea") && !event.ctrlKey && !event.metaKey && !event.altKey;
