"""What happened in a run, as a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sft.dashboard.page_data.query import between
from sft.runs.index import Events, events_of
from sft.runs.run_dir import RunDir


def events(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """The newest `limit` events, the newest last, and how many there are.

    Raises:
        ConfigError: `limit` is no number.
    """
    limit = int(between(query, "limit", 2000, 1, Events.most))
    found = events_of(run)
    with found.lock:
        found.update()
        newest, total = found.records[-limit:], found.total
    return {"events": list(newest), "total": total}
