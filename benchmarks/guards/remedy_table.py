"""What the remedies did, held against what was agreed before, and the table of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from trace_file import rounded

from sft.guards.statistics import Paired, paired

MARGIN = 0.02
BUDGET = 0.05
KEPT_GAIN = 0.5
OPENER_SLACK = 0.1
Record = Mapping[str, Any]
Judged = tuple[str, str, bool]

ACTIONS = {
    "restore_best": "`guards.overfitting: restore_best`",
    "neftune": "`optim.neftune_alpha: 5`",
    "dropout": "`optim.dropout: 0.1`",
    "strip": "`data.openers: strip`",
    "drop": "`data.openers: drop`",
    "select": "`data.select_rows: 32`",
    "usage_rows": "a quarter of the rows like usage",
    "weighting": "the same, and `data.usage_weighting`",
    "blend": "`sft blend`",
    "lr_fifth": "a fifth of the learning rate",
    "replay": "`data.replay: 0.1`",
    "retain_kl": "`optim.retain_kl: 1`",
}


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """One entry per remedy and seed, and what was done to the healthy run by the same remedy."""
    by_name = {(r["case"], r["action"], r["seed"]): r for r in records}
    seeds = sorted({record["seed"] for record in records})
    tried = [
        entry
        for seed in seeds
        for case, judge in JUDGES.items()
        for action in ACTIONS
        if (entry := _entry(by_name, case, action, seed, judge))
    ]
    return rounded({"seeds": seeds, "untreated": _untreated(records), "remedies": tried})


def _entry(
    by_name: Mapping[tuple[str, str, int], Record],
    case: str,
    action: str,
    seed: int,
    judge: Callable[[Record, Record], Judged],
) -> dict[str, Any] | None:
    done, none = by_name.get((case, action, seed)), by_name.get((case, "none", seed))
    if done is None or none is None:
        return None
    wanted, measured, met = judge(done, none)
    measured = f"no row was changed; {measured}" if "same_as" in done else measured
    entry = {"case": case, "action": action, "seed": seed}
    entry |= {"wanted": wanted, "measured": measured, "met": met}
    healthy, plain = by_name.get(("C1", action, seed)), by_name.get(("C1", "none", seed))
    if healthy is None or plain is None:
        return entry | {"healthy": None, "harmless": None}
    change = _between(healthy, plain, "usage")
    return entry | {
        "healthy": {
            "change": change.mean,
            "interval": list(change.interval),
            "same": "same_as" in healthy,
        },
        "harmless": change.mean <= MARGIN,
    }


def _untreated(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The runs without a remedy: change of the loss from the base model, per probe."""
    found = []
    for record in records:
        if record["action"] == "none":
            changes = {probe: _since_base(record, probe) for probe in record["test"]}
            found.append(
                {
                    "case": record["case"],
                    "seed": record["seed"],
                    "changes": {
                        probe: {"mean": change.mean, "interval": list(change.interval)}
                        for probe, change in changes.items()
                    },
                }
            )
    return found


# ------------------------------------------------------------------ criteria


def _losses(record: Record, probe: str, when: str = "now") -> Any:
    return np.array(record["test"][probe][when])


def _since_base(record: Record, probe: str) -> Paired:
    return paired(_losses(record, probe) - _losses(record, probe, "base"))


def _between(done: Record, none: Record, probe: str) -> Paired:
    """Loss with the remedy minus loss without, by test row."""
    return paired(_losses(done, probe) - _losses(none, probe))


def _overfitted(done: Record, none: Record) -> Judged:
    against = _between(done, none, "usage")
    told = f"{_span(against)} against the run without"
    if done["action"] != "restore_best":
        return "lower loss than without", told, against.interval[1] < 0
    evals = {int(step): float(np.mean(losses)) for step, losses in none["evaluations"].items()}
    best = min((step for step in evals if step), key=evals.__getitem__)
    away = float(_losses(done, "usage").mean()) - evals[best]
    measured = (
        f"step {done['best_step']} is handed back, {away:+z.3f} against the best evaluation (step "
        f"{best}); {told}; {done['planned'] - done['steps']} of {done['planned']} steps saved"
    )
    return f"within {MARGIN:g} of the best evaluation on test rows", measured, away <= MARGIN


def _collapsed(done: Record, none: Record) -> Judged:
    now, before = done["test"]["usage"], none["test"]["usage"]
    mass, share = now["first_mass"], now["reference_share"]
    against = _between(done, none, "usage")
    measured = (
        f"opener {mass:.2f}, without {before['first_mass']:.2f}, references {share:.2f}; loss "
        f"{_span(against)} against the run without, {_since_base(done, 'usage').mean:+z.3f} "
        "from the base model"
    )
    met = mass <= share + OPENER_SLACK and against.mean <= MARGIN
    return f"opener within {OPENER_SLACK:g} of the references, loss not worse", measured, met


def _mismatched(done: Record, none: Record) -> Judged:
    change, without = _since_base(done, "usage"), _since_base(none, "usage")
    task = _since_base(done, "val")
    measured = (
        f"usage {_span(change)} from the base model, without {without.mean:+z.3f}; "
        f"{_span(_between(done, none, 'usage'))} against the run without; task {task.mean:+z.3f}, "
        f"without {_since_base(none, 'val').mean:+z.3f}"
    )
    return "interval of the change on usage below 0", measured, change.interval[1] < 0


def _forgot(done: Record, none: Record) -> Judged:
    lost, gained = _since_base(done, "texts"), _since_base(done, "val")
    whole = _since_base(none, "val").mean
    kept = gained.mean / whole if whole < 0 else 0.0
    alpha = f"alpha {done['alpha']:g}: " if "alpha" in done else ""
    measured = (
        f"{alpha}fresh texts {_span(lost)}, without {_since_base(none, 'texts').mean:+z.3f}; task "
        f"{gained.mean:+z.3f}, without {whole:+z.3f}: {kept:.0%}"
    )
    wanted = f"fresh texts within {BUDGET:g}, {KEPT_GAIN:.0%} of the task's gain kept"
    return wanted, measured, lost.mean <= BUDGET and kept >= KEPT_GAIN


JUDGES: dict[str, Callable[[Record, Record], Judged]] = {
    "P1": _overfitted,
    "P2": _collapsed,
    "P3": _mismatched,
    "P4": _forgot,
}


# ------------------------------------------------------------------ table


def markdown(results: Mapping[str, Any]) -> str:
    """The table for docs/guards.md."""
    seeds = ", ".join(map(str, results["seeds"]))
    lines = [
        f"Seed {seeds}; change of the loss on rows that decide nothing, in nats per token, with "
        "its 95 % interval. The last two columns: the same on the healthy run C1, against C1 "
        "without.",
        "",
        "| after | what was done | wanted | measured | met | on C1 | harmless |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in results["remedies"]:
        healthy = entry["healthy"]
        shown = "not measured"
        if healthy:
            low, high = healthy["interval"]
            shown = f"{healthy['change']:+z.3f} ({low:+z.3f} to {high:+z.3f})"
            shown = "nothing to do: the same run" if healthy["same"] else shown
        cells = [entry["case"], ACTIONS[entry["action"]], entry["wanted"], entry["measured"]]
        cells += [_yes(entry["met"]), shown, _yes(entry["harmless"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _span(found: Paired) -> str:
    low, high = found.interval
    return f"{found.mean:+z.3f} ({low:+z.3f} to {high:+z.3f})"


def _yes(flag: bool | None) -> str:
    return {True: "yes", False: "no", None: "-"}[flag]
