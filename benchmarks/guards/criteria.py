"""What was agreed on before the test seeds ran, and whether it was met."""

from __future__ import annotations

from typing import Any

Results = dict[str, Any]
Criterion = tuple[str, str, bool | None]


def criteria(results: Results) -> list[Results]:
    """Each with what was wanted and whether it was `met`; None where nothing was measured."""
    parts = (_found, _silent, _by_chance, _curves, _honest, _rivals)
    lines = [line for part in parts for line in part(results)]
    return [{"what": what, "wanted": wanted, "met": met} for what, wanted, met in lines]


def _share(found: Results, least: float) -> bool | None:
    return found["k"] >= least * found["n"] if found["n"] else None


def _at_most(found: Results, most: float) -> bool | None:
    return found["k"] <= most * found["n"] if found.get("n") else None


def _found(results: Results) -> list[Criterion]:
    head = results["headline"]
    late = head["latency_evals"]["largest"]
    return [
        ("planted pitfalls found, core", "19 of 20", _share(head["recall"], 0.95)),
        ("planted pitfall named first", "18 of 20", _share(head["ranked_first"], 0.9)),
        ("evaluations until the alarm", "at most 2", None if late is None else late <= 2),
    ]


def _silent(results: Results) -> list[Criterion]:
    head = results["headline"]
    return [
        ("false alarms, clean and traps", "none", _at_most(head["false_alarms"], 0.0)),
        ("runs on watch, clean", "20 % at most", _at_most(head["watch_clean"], 0.2)),
    ]


def _by_chance(results: Results) -> list[Criterion]:
    found = results["sampling"].get("rate", {})
    values = results["p_values"]
    again = results["headline"]["rescored"]
    return [
        ("false alarms by chance of the rows", "1 % at most", _at_most(found, 0.01)),
        (
            "p values without effect are uniform",
            "p > .01",
            values["p"] > 0.01 if values["n"] else None,
        ),
        ("the same model scored twice", "within 1e-4", None if again is None else again < 1e-4),
    ]


def _curves(results: Results) -> list[Criterion]:
    return [
        (
            f"dose and statistic of {family}",
            "Spearman .9",
            None if found["spearman"] is None else found["spearman"] >= 0.9,
        )
        for family, found in results["dose"].items()
    ]


def _honest(results: Results) -> list[Criterion]:
    head = results["headline"]
    return [
        ("intervals hold the oracle's effect", "90 %", _share(head["coverage"], 0.9)),
        ("traces give the verdicts of their runs", "all", _share(head["replays"], 1.0)),
    ]


def _rivals(results: Results) -> list[Criterion]:
    """Against patience 3: fewer false alarms, and P1 found no less often."""
    own, rival = results["headline"]["false_alarms"], results["rivals"]["patience 3"]
    found = results["guards"]["overfitting"]["recall"]
    met = None
    if own["n"] and rival["P1"]["n"]:
        met = own["k"] < rival["false_alarms"]["k"] and found["k"] >= rival["P1"]["k"]
    return [("better than patience 3", "fewer false alarms, recall not lower", met)]
