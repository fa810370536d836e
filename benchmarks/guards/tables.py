"""The figures of `score.py` as Markdown, for docs/guards.md between `guards:rates` markers."""

from __future__ import annotations

from typing import Any

from cases import BY_ID

Results = dict[str, Any]
_RIVALS = ("P1", "P2", "P3", "P4", "false_alarms")


def markdown(results: Results) -> str:
    """All tables."""
    parts = (_intro, _rates, _criteria, _guards, _rivals, _doses, _runs)
    return "\n".join(part(results) for part in parts)


def _intro(results: Results) -> str:
    made = results["made_by"]
    seeds = ", ".join(map(str, made["seeds"]))
    kind = "test seeds" if made["test_seeds_only"] else "seeds, some of them for development"
    return (
        f"Thresholds version {made['thresholds']} (`{made['thresholds_sha256']}`), "
        f"{made['traces']} runs, {kind} {seeds}. Intervals are 95 %, Clopper and Pearson.\n"
    )


def _rates(results: Results) -> str:
    head, sampling = results["headline"], results["sampling"].get("rate", {"n": 0})
    late, below = head["latency_evals"], results.get("p_values", {}).get("below", {})
    rows = [
        ["planted pitfall found, core", _rate(head["recall"]), _excluded(head)],
        ["planted pitfall named first, core", _rate(head["ranked_first"]), ""],
        [
            "runs with a false alarm, clean and traps",
            _rate(head["false_alarms"]),
            f"at most {_percent(head['false_alarms']['at_most'])} (one-sided); "
            + (_listed(head["false_alarm_runs"]) or "none"),
        ],
        [
            "the same by chance of the rows, clean runs resampled",
            _rate(sampling),
            "all guards together, every evaluation after the base model's",
        ],
        [
            "runs with an alarm that was not asked for, planted",
            _rate(head["false_alarms_on_planted"]),
            f"not backed by the oracle either: {_rate(head['false_alarms_on_planted_not_backed'])}",
        ],
        [
            "runs with a watch at the last evaluation, clean and traps",
            _rate(head["watch"]),
            f"clean alone {_rate(head['watch_clean'])}; at any evaluation "
            f"{_rate(head['watch_any_eval'])}",
        ],
        [
            "evaluations from the first visible rise to the alarm",
            f"median {_number(late['median'])}, at most {_number(late['largest'])}",
            f"{len(late['all'])} runs",
        ],
        [
            "95 % intervals that hold the oracle's effect",
            _rate(head["coverage"]),
            f"{_rate(head['coverage_with_oracle_noise'])} with the oracle's own error",
        ],
        [
            "p values below .05, .01, .001 where nothing changed",
            ", ".join(f"{share:.3f}" for share in below.values()) or "-",
            f"{results.get('p_values', {}).get('n', 0)} resampled tests, "
            f"Kolmogorov-Smirnov p {_number(results.get('p_values', {}).get('p'))}",
        ],
        [
            "largest change when the same model is scored twice",
            f"{_number(head['rescored'])} nats per token",
            "other order, other batches",
        ],
    ]
    return _table(["rate", "measured", "note"], rows)


def _criteria(results: Results) -> str:
    answers = {True: "yes", False: "no", None: "not measured"}
    rows = [[part["what"], part["wanted"], answers[part["met"]]] for part in results["criteria"]]
    return _table(["agreed before", "wanted", "met"], rows)


def _guards(results: Results) -> str:
    rows = [
        [guard.replace("_", " "), *(_rate(found[name]) for name in found)]
        for guard, found in results["guards"].items()
        if guard != "health" or found["false_alarms"]["k"]
    ]
    return _table(["guard", "found", "named first", "false alarms"], rows)


def _rivals(results: Results) -> str:
    head = results["headline"]
    rows = [
        [name, *(_rate(found[column], short=True) for column in _RIVALS)]
        for name, found in results["rivals"].items()
    ]
    own = [
        _rate(found["recall"], short=True)
        for guard, found in results["guards"].items()
        if guard != "health"
    ]
    rows.append(["these guards", *own, _rate(head["false_alarms"], short=True)])
    note = (
        "A rule of others fires without naming a pitfall; patience 3 takes four evaluations "
        "at least.\n"
    )
    return f"{_table(['rule', *_RIVALS[:-1], 'false alarms'], rows)}\n{note}"


def _doses(results: Results) -> str:
    rows = []
    for family, found in results["dose"].items():
        points = ", ".join(
            f"{point['dose']:g}: {_number(point['statistic'])}{'*' if point['alarm'] else ''}"
            for point in found["points"]
        )
        rows.append(
            [
                family,
                found["guard"].replace("_", " "),
                points,
                _number(found["spearman"]),
                _number(found["half_found"]),
            ]
        )
    return _table(
        ["family", "guard", "dose: statistic (* alarm)", "Spearman", "smallest dose found by half"],
        rows,
    )


def _runs(results: Results) -> str:
    rows = []
    for run in results["runs"]:
        note = " (did not come)" if run["happened"] is False else ""
        alarms = ", ".join(f"{guard} at {step}" for guard, step in run["alarms"].items())
        rows.append(
            [
                f"{run['case']}-{run['seed']}",
                BY_ID[run["case"]].what,
                f"{run['planted'] or '-'}{note}",
                alarms or "-",
                ", ".join(run["watches"]) or "-",
                ", ".join(run["false"]) or "-",
            ]
        )
    names = ["run", "what", "planted", "alarms (step)", "watch at the end", "not asked for"]
    return _table(names, [[cell.replace("_", " ") for cell in row] for row in rows])


def _table(names: list[str], rows: list[list[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rate(found: Results, short: bool = False) -> str:
    if not found["n"]:
        return "-"
    text = f"{found['k']}/{found['n']}"
    if short:
        return text
    low, high = found["interval"]
    return f"{text} ({_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _excluded(head: Results) -> str:
    text = (
        f"at least {_percent(head['recall']['at_least'])} (one-sided); of {head['core_runs']} runs "
        f"{len(head['core_not_backed'])} excluded, as the oracle does not see the pitfall"
    )
    missed = ", ".join(head["core_missed"])
    return f"{text}; missed: {missed}" if missed else text


def _listed(runs: dict[str, list[str]]) -> str:
    return ", ".join(f"{run} ({', '.join(guards)})" for run, guards in runs.items())
