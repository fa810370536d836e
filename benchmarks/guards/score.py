"""Count what the guards found in the traces of a folder: recall, false alarms, latency, doses.

    python benchmarks/guards/score.py benchmarks/guards/traces \
        --out benchmarks/results/guards.json --markdown table.md

Nothing is trained: every verdict is made again from the records, with the guards as they are
now. Replicates are saved as they come; the same command continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cases import CASES, GUARDS
from criteria import criteria
from outcome import Outcome, outcome
from resampled import PER_BATCH, alarms_of, digest_of, guards_digest, uniform
from rivals import RULES
from scipy import stats
from trace_file import Trace, read_all, rounded

from sft.guards import thresholds
from sft.guards.statistics import clopper_pearson

REPLICATES = 1000  # of all clean traces together
TEST_SEED = 100  # from here on seeds were not used to choose anything
FINE = ("clean", "trap")
Results = dict[str, Any]


def main() -> None:
    args = arguments()
    traces = read_all(args.folder)
    if not traces:
        raise SystemExit(f"{args.folder}: no trace")
    known = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    results = score(traces)
    results["sampling"] = known.get("sampling", {})
    sample(traces, results, args.replicates, args.out)
    results["p_values"] = rounded(uniform([t for t in traces if t["kind"] == "clean"]))
    results["criteria"] = criteria(results)
    save(results, args.out)
    from tables import markdown

    text = markdown(results)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    print(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="where the traces are")
    add("--out", type=Path, help="JSON of all figures and runs; replicates in it are used again")
    add("--markdown", type=Path, help="the tables, for docs/guards.md")
    add("--replicates", type=int, default=REPLICATES, help="resampled clean runs, 0 for none")
    return parser.parse_args()


def score(traces: Sequence[Trace]) -> Results:
    """Everything but what is resampled."""
    runs = [outcome(trace) for trace in traces]
    figures = {
        "made_by": made_by(traces),
        "headline": headline(runs),
        "guards": {guard: by_guard(guard, runs) for guard in GUARDS},
        "rivals": {name: rival(name, runs) for name in RULES},
        "dose": doses(runs),
    }
    return {**rounded(figures), "runs": [rounded(run.record()) for run in runs]}


def made_by(traces: Sequence[Trace]) -> Results:
    """With what the figures were made; equal digests mean equal verdicts."""
    code = Path(thresholds.__file__).read_bytes()
    return {
        "thresholds": thresholds.VERSION,
        "thresholds_sha256": hashlib.sha256(code).hexdigest()[:16],
        "guards_sha256": guards_digest(),
        "traces": len(traces),
        "seeds": sorted({trace["seed"] for trace in traces}),
        "test_seeds_only": all(trace["seed"] >= TEST_SEED for trace in traces),
        "data": sorted({trace["data"] for trace in traces}),
        "machines": sorted({json.dumps(t["machine"], sort_keys=True) for t in traces}),
    }


def rate(flags: Iterable[bool]) -> Results:
    """`k` of `n` with the 95 % interval of Clopper and Pearson, and its one-sided bounds."""
    found = list(flags)
    k, n = sum(found), len(found)
    low, high = clopper_pearson(k, n)
    at_least, at_most = clopper_pearson(k, n, 0.9)
    return {"k": k, "n": n, "interval": [low, high], "at_least": at_least, "at_most": at_most}


def headline(runs: Sequence[Outcome]) -> Results:
    """The figures that the guards are judged by."""
    core = [run for run in runs if run.kind == "core"]
    real = [run for run in core if run.happened]
    fine = [run for run in runs if run.kind in FINE]
    planted = [run for run in runs if run.kind not in FINE]
    late = [lag for run in real if (lag := latency(run)) is not None]
    return {
        "recall": rate(run.planted in run.alarms for run in real),
        "core_runs": len(core),
        "core_not_backed": [named(run) for run in core if not run.happened],
        "core_missed": [named(run) for run in real if run.planted not in run.alarms],
        "ranked_first": rate(run.top == run.planted for run in real),
        "false_alarms": rate(bool(run.false) for run in fine),
        "false_alarm_runs": {named(run): run.false for run in fine if run.false},
        "false_alarms_on_planted": rate(bool(run.false) for run in planted),
        "false_alarms_on_planted_not_backed": rate(
            bool(set(run.false) - set(run.backed)) for run in planted if run.happened is not None
        ),
        "watch": rate(bool(run.watches) for run in fine),
        "watch_clean": rate(bool(run.watches) for run in fine if run.kind == "clean"),
        "watch_any_eval": rate(bool(run.watched) for run in fine),
        "latency_evals": {"all": late, "median": median(late), "largest": max(late, default=None)},
        "coverage": rate(inside for run in runs for inside in run.covered.values()),
        "coverage_with_oracle_noise": rate(
            inside for run in runs for inside in run.covered_with_noise.values()
        ),
        "rescored": max((run.rescored for run in runs if run.rescored is not None), default=None),
        "replays": rate(run.replays for run in runs),
    }


def named(run: Outcome) -> str:
    return f"{run.case}-{run.seed}"


def latency(run: Outcome) -> int | None:
    """Evaluations from the one whose means show the pitfall to the alarm; None if either is
    missing.
    """
    seen, told = run.visible.get(run.planted), run.alarms.get(run.planted)
    if seen is None or told is None:
        return None
    return run.evals.index(told) - run.evals.index(seen)


def median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def by_guard(guard: str, runs: Sequence[Outcome]) -> Results:
    """One guard alone: recall on its core runs, and alarms on runs where nothing is wrong."""
    core = [run for run in runs if run.kind == "core" and run.planted == guard and run.happened]
    fine = [run for run in runs if run.kind in FINE]
    return {
        "recall": rate(guard in run.alarms for run in core),
        "ranked_first": rate(run.top == guard for run in core),
        "false_alarms": rate(guard in run.false for run in fine),
    }


def rival(name: str, runs: Sequence[Outcome]) -> Results:
    """One rule of others. Where overfitting is allowed it may fire as well."""
    allowed = {case.id for case in CASES if "overfitting" in case.allowed}
    return {
        **{
            case: rate(name in run.rivals for run in runs if run.case == case and run.happened)
            for case in ("P1", "P2", "P3", "P4")
        },
        "false_alarms": rate(
            name in run.rivals and run.case not in allowed for run in runs if run.kind in FINE
        ),
    }


def doses(runs: Sequence[Outcome]) -> Results:
    """The curve of each family: dose, statistic at the last evaluation, and whether it was
    found.
    """
    curves = {}
    for family in dict.fromkeys(case.family for case in CASES if case.family):
        dose_of = {case.id: case.dose for case in CASES if case.family == family}
        points = [
            {
                "dose": dose_of[run.case],
                "seed": run.seed,
                "statistic": run.statistic,
                "alarm": run.planted in run.alarms,
                "happened": run.happened,
            }
            for run in runs
            if run.case in dose_of
        ]
        if points:
            curves[family] = {"guard": family_guard(family), **curve(points)}
    return curves


def family_guard(family: str) -> str:
    return next(case.planted for case in CASES if case.family == family)


def curve(points: list[Results]) -> Results:
    """Spearman's correlation, the smallest dose found at all and the smallest found by half."""
    points = sorted(points, key=lambda point: (point["dose"], point["seed"]))
    known = [(p["dose"], p["statistic"]) for p in points if p["statistic"] is not None]
    levels = sorted({point["dose"] for point in points})
    share = {
        dose: float(np.mean([p["alarm"] for p in points if p["dose"] == dose])) for dose in levels
    }
    rho = None
    if len({dose for dose, _ in known}) > 1:
        rho = float(stats.spearmanr(*zip(*known, strict=True)).statistic)
    return {
        "spearman": rho,
        "smallest_found": min((p["dose"] for p in points if p["alarm"]), default=None),
        "half_found": min((dose for dose in levels if share[dose] >= 0.5), default=None),
        "points": points,
    }


def sample(traces: Sequence[Trace], results: Results, replicates: int, out: Path | None) -> None:
    """Fill `results["sampling"]`; what is known of a trace and these guards is kept."""
    clean = [trace for trace in traces if trace["kind"] == "clean"]
    each = -(-replicates // len(clean)) if clean else 0
    code, old = guards_digest(), results["sampling"].get("traces", {})
    kept: Results = {}
    for trace in clean:
        name, key = f"{trace['case']}-{trace['seed']}", f"{code}-{digest_of(trace)}"
        known = old.get(name, {})
        kept[name] = known if known.get("key") == key else {"key": key, "n": 0, "alarms": {}}
    results["sampling"] = {"traces": kept}
    for trace, part in zip(clean, kept.values(), strict=True):
        while part["n"] < each:
            number = min(PER_BATCH, each - part["n"])
            part["alarms"] |= alarms_of(trace, part["n"], number)
            part["n"] += number
            save(results, out)
    total = sum(part["n"] for part in kept.values())
    alarmed = sum(len(part["alarms"]) for part in kept.values())
    flags = [True] * alarmed + [False] * (total - alarmed)
    results["sampling"]["rate"] = rounded(rate(flags))


def save(results: Results, out: Path | None) -> None:
    """Whole or not at all."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".tmp-{out.name}")
        temporary.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
        temporary.replace(out)


if __name__ == "__main__":
    main()
