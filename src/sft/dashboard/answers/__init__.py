"""What the page is told about a run: one pure function for each address, from records to JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sft.dashboard.answers.comparison import comparison
from sft.dashboard.answers.config import config
from sft.dashboard.answers.data import data
from sft.dashboard.answers.events import events
from sft.dashboard.answers.guards import guards
from sft.dashboard.answers.samples import samples
from sft.dashboard.answers.series import series
from sft.dashboard.answers.snapshot import snapshot
from sft.runs.files import plain
from sft.runs.run_dir import RunDir

Query = Mapping[str, str]
Answer = Callable[[RunDir, Query], dict[str, Any]]


def _plain(answer: Answer) -> Answer:
    """`answer` without NaN, infinity and half surrogate pairs, whatever the records hold."""

    def answered(run: RunDir, query: Query) -> dict[str, Any]:
        found: dict[str, Any] = plain(answer(run, query))
        return found

    return answered


# By the last part of the address; `series` is made of finite numbers already, and is large.
ANSWERS: dict[str, Answer] = {
    "snapshot": _plain(snapshot),
    "series": series,
    "guards": _plain(guards),
    "samples": _plain(samples),
    "data": _plain(data),
    "config": _plain(config),
    "events": _plain(events),
}


def compare(runs: Sequence[RunDir], query: Query) -> dict[str, Any]:
    """Several runs beside each other, and the first against each other one, row by row.

    Raises:
        ConfigError: the query asks for a probe that there is not.
    """
    found: dict[str, Any] = plain(comparison(runs, query))
    return found
