"""What the page shows of a run: one pure function for each address, from records to JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sft.dashboard.page_data.comparison import comparison
from sft.dashboard.page_data.config import config
from sft.dashboard.page_data.data import data
from sft.dashboard.page_data.events import events
from sft.dashboard.page_data.guards import guards
from sft.dashboard.page_data.samples import samples
from sft.dashboard.page_data.series import series
from sft.dashboard.page_data.snapshot import snapshot
from sft.runs.files import plain
from sft.runs.run_dir import RunDir

Query = Mapping[str, str]
PageData = Callable[[RunDir, Query], dict[str, Any]]


def _plain(build: PageData) -> PageData:
    """`build` without NaN, infinity and half surrogate pairs, whatever the records hold."""

    def build_plain(run: RunDir, query: Query) -> dict[str, Any]:
        values: dict[str, Any] = plain(build(run, query))
        return values

    return build_plain


# By the last part of the address; `series` is made of finite numbers already, and is large.
PAGE_DATA: dict[str, PageData] = {
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
    values: dict[str, Any] = plain(comparison(runs, query))
    return values
