// The head of every screen of a run: its name, its state, how far it is.

import { fill, h, setText, visible } from "./dom.js";
import { ago, count } from "./format.js";
import { statePill } from "./parts.js";

export class RunBar {
  constructor(node) {
    this.pill = h("span", { id: "state" });
    this.name = h("h1", { id: "run-name" });
    this.steps = h("span", { id: "steps", class: "steps" });
    this.fill = h("div", { class: "done" });
    this.track = h("div", { class: "track", role: "progressbar", "aria-label": "Steps done", "aria-valuemin": "0" }, this.fill);
    this.updated = h("span", { class: "quiet small" });
    this.report = h("span");
    fill(
      node,
      h("div", { class: "run-head" }, this.name, this.pill, this.steps, this.updated, this.report),
      this.track,
    );
  }

  /** Shows `snapshot`; null while it is loading. */
  show(snapshot) {
    setText(this.name, snapshot?.name ?? "…");
    this.track.hidden = !snapshot?.num_steps;
    if (!snapshot) {
      fill(this.pill);
      setText(this.steps, "");
      setText(this.updated, "");
      fill(this.report);
      return;
    }
    const { state, step, num_steps: most } = snapshot;
    if (this.pill.dataset.state !== state.state || !this.pill.firstChild) {
      fill(this.pill, statePill(state.state));
      this.pill.dataset.state = state.state;
    }
    this.pill.title = visible(state.detail ?? "");
    setText(this.steps, most ? `step ${count(step)} of ${count(most)}` : `step ${count(step)}`);
    setText(this.updated, state.updated ? `written ${ago(state.updated)}` : "");
    if (most) this.progress(step ?? 0, most, state.state);
    const has = snapshot.has_report;
    if (has !== Boolean(this.report.firstChild)) {
      fill(this.report, has && h("a", { href: `/runs/${encodeURIComponent(snapshot.id)}/report.html`, target: "_blank" }, "Report"));
    }
  }

  progress(step, most, state) {
    this.track.dataset.state = state;
    this.track.setAttribute("aria-valuemax", String(most));
    this.track.setAttribute("aria-valuenow", String(step));
    this.fill.style.transform = `scaleX(${Math.min(1, step / most)})`;
  }
}
