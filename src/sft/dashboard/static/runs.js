// The list of runs: the start screen where there are several.

import { fill, h, setText } from "./dom.js";
import { missing } from "./parts.js";
import { RunTable } from "./run_table.js";

const COLUMNS = ["state", "step", "loss", "val_loss", "best_val_loss", "best_step", "verdicts", "model", "method", "seconds", "updated"];

export async function show(root, context) {
  let chosen = [];
  const compare = h("button", {
    type: "button", id: "compare", disabled: true, on: { click: () => context.go(`#/compare?runs=${chosen.map(encodeURIComponent).join(",")}`) },
  }, "Compare (choose two or more)");
  const pick = (ids) => {
    chosen = ids;
    compare.disabled = ids.length < 2;
    setText(compare, ids.length < 2 ? "Compare (choose two or more)" : `Compare ${ids.length} runs`);
  };
  const none = () => missing("No run here yet.", `There is none in ${context.folder || "this folder"}. Start one with `, h("code", null, "sft train"), "; it appears here by itself.");
  const table = new RunTable(context.runs, { columns: COLUMNS, sort: { key: "updated", down: true }, onPick: pick, action: compare, none });
  fill(root, h("h1", null, "Runs"), table.node);
  return {
    update(message) {
      if (message.kind !== "runs") return;
      const known = new Set(context.runs.map((row) => row.id));
      if (chosen.some((id) => !known.has(id))) table.pick(chosen.filter((id) => known.has(id)));
      table.setRuns(context.runs);
    },
  };
}
