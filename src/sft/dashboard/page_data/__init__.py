"""What the page shows of a run: one pure function for each address, from records to JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sft.dashboard.page_data.comparison import compare
from sft.dashboard.page_data.folder import config, data, events, samples
from sft.dashboard.page_data.guards import guards
from sft.dashboard.page_data.series import series
from sft.dashboard.page_data.snapshot import snapshot
from sft.runs.files import plain
from sft.runs.run_dir import RunDir

__all__ = ["PAGE_DATA", "compare"]

PageData = Callable[[RunDir, Mapping[str, str]], dict[str, Any]]


def _plain(build: PageData) -> PageData:
    """`build` without NaN, infinity and half surrogate pairs, whatever the records hold."""

    def build_plain(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
        values: dict[str, Any] = plain(build(run, query))
        return values

    return build_plain


# By the last part of the address; `series` is made of finite numbers already, and is large.
PAGE_DATA: dict[str, PageData] = {
    "series": series,
    **{
        build.__name__: _plain(build) for build in (snapshot, guards, samples, data, config, events)
    },
}
