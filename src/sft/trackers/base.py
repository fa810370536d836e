"""What a tracker is, and what records and events look like when they are handed to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sft.runs.metrics import NONFINITE_SUFFIX
from sft.runs.run_dir import RunDir
from sft.texts.safe import printable

MOST_TEXT = 2000  # characters of an event that are sent


class Tracker:
    """A service that follows a run. Whatever is raised here never reaches training.

    All but `abandon` are called from one thread, and may take as long as they like.
    """

    # Whether `record` returns only when the service (or its file) has what it was given. If not,
    # only `finish` says so, and after an interruption everything since `start` is given again.
    confirms = True

    def start(self, run: RunDir, config: Mapping[str, Any], state: dict[str, Any]) -> None:
        """Connect. What is put into `state` (JSON) is there again when the run goes on.

        `config` has `project`, `name`, `settings` (dotted key -> value, without secrets),
        `alerts` (that section), `since` (ISO time before which nobody is alerted, or None)
        and `wait` (most seconds that `finish` is waited for, or None).
        """

    def record(self, records: Sequence[Mapping[str, Any]]) -> None:
        """New records: numbers by metric name, `step`, and `time` (seconds since 1970)."""

    def event(self, event: Mapping[str, Any]) -> None:
        """A new line of `events.jsonl`, its text fit to be shown."""

    def finish(self, status: str, summary: Mapping[str, Any] | None) -> None:
        """`finished`, `failed`, `interrupted` or `running`, and `summary.json` if there is one."""

    def abandon(self) -> None:
        """Nobody waits any longer: give up what would delay the end of the process."""


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, by metric name; nested ones as `loss_by_source/<name>`."""
    values: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            values |= {printable(f"{name}/{inner}"): n for inner, n in numbers(value).items()}
        elif isinstance(value, str) and name.endswith(NONFINITE_SUFFIX):
            with suppress(ValueError):
                values[printable(name.removesuffix(NONFINITE_SUFFIX))] = float(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            with suppress(OverflowError):  # an integer beyond any float
                values[printable(name)] = float(value)
    return values


def printable_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event with every text in it fit to be shown."""
    return {
        name: printable(value)[:MOST_TEXT] if isinstance(value, str) else value
        for name, value in event.items()
    }


def summary_values(summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a service is given of `summary.json`: short texts and numbers by name."""
    summary = summary or {}
    values = {name: summary.get(name) for name in ("steps", "best_step", "stopped", "verified")}
    for part in ("best", "test"):
        record = summary.get(part)
        if isinstance(record, Mapping):
            values |= {f"{part}/{n}": v for n, v in numbers(record).items() if n != "step"}
    guards = summary.get("guards")
    for finding in guards if isinstance(guards, list) else []:
        if isinstance(finding, Mapping):
            values[f"guard/{finding.get('guard')}"] = finding.get("verdict")
    return {
        printable(name): printable(value)[:500] if isinstance(value, str) else value
        for name, value in values.items()
        if isinstance(value, str | int | float)
    }
