"""The runs of a folder as rows of a table: `sft runs`, and the first page of `sft watch`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from sft.errors import ConfigError, did_you_mean
from sft.runs.best_step import best_step
from sft.runs.evaluations import evals_of, last_step
from sft.runs.files import (
    Cache,
    Record,
    identity,
    number,
    objects,
    plain,
    section,
    whole,
)
from sft.runs.jsonl import Follower
from sft.runs.run_dir import RunDir, runs_in
from sft.runs.settings import data_paths, dotted, without_secrets
from sft.runs.state import RunState, run_state, summary_of, tail

_MOST_FINDINGS = 256  # of the last evaluation; each has about 25


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. What is not known is None or empty.

    `seconds` is the time spent in steps, `best_step` the step whose weights the run hands back, or
    would if it ended now, with `best_val_loss`; `verdicts` are those of the last evaluation by
    guard, `config` the resolved settings by dotted key. `updated` is in seconds since 1970.
    """

    id: str
    name: str
    path: str
    state: str
    detail: str
    step: int | None = None
    num_steps: int | None = None
    epoch: float | None = None
    loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    best_step: int | None = None
    verdicts: dict[str, str] = field(default_factory=dict)
    started: str | None = None
    updated: float | None = None
    seconds: float | None = None
    model: str = ""
    data: list[str] = field(default_factory=list)
    method: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The row as JSON."""
        row: dict[str, Any] = plain(asdict(self))
        return row


class Events(Follower):
    """The newest events of a run, how many there were, and how many attempts began."""

    most = 20_000

    def take(self, record: Record) -> None:
        """Keep an event."""
        self.records.append(record)
        self.total += 1
        if record.get("kind") == "started":
            self.starts.append(record)
        if len(self.records) > 2 * self.most:
            del self.records[: -self.most]

    def clear(self) -> None:
        """Begin anew."""
        self.records: list[Record] = []
        self.starts: list[Record] = []
        self.total = 0


_ROWS = Cache(1024)


def run_id(path: Path) -> str:
    """12 hex digits that name a run folder in addresses."""
    return hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:12]


@lru_cache(64)
def _events(path: Path) -> Events:
    return Events(path)


def events_of(run: RunDir) -> Events:
    """The events of a run up to now; hold its `lock` while reading them."""
    events = _events(run.events)
    events.update()
    return events


def named_folders(names: Sequence[str]) -> list[Path]:
    """The folders that the user named, `runs` if none, which may come to be later.

    Raises:
        ConfigError: a folder is not there, or is no folder.
    """
    for name in names:
        path = Path(name)
        if "\0" in name or not path.exists():
            try:
                near = did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
            except (OSError, ValueError):
                near = ""
            raise ConfigError(f"{path}: no such folder.{near}")
        if not path.is_dir():
            raise ConfigError(f"{path}: expected a run folder or a folder that holds runs")
    return [Path(name) for name in names or ("runs",)]


def find_runs(folders: Sequence[Path]) -> list[RunDir]:
    """The run folders among `folders` and directly inside them, each once."""
    runs: dict[Path, RunDir] = {}
    for folder in folders:
        for path in [folder] if _is_run(folder) else runs_in(folder):
            runs.setdefault(path.resolve(), RunDir(path))
    return list(runs.values())


def list_runs(folders: Sequence[Path]) -> list[RunRow]:
    """A row for each run of `folders` (runs, or folders of runs), newest change first.

    A run that cannot be read is a row with state `unknown` and the reason as `detail`.
    """
    rows = [run_row(run) for run in find_runs(folders)]
    return sorted(rows, key=lambda row: (-(row.updated or 0.0), row.name))


def run_row(run: RunDir, state: RunState | None = None) -> RunRow:
    """The row of one run; `state` is what `run_state` says now, if it was asked already."""
    name = run.path.resolve().name
    bare = RunRow(run_id(run.path), name, str(run.path), "unknown", "")
    try:
        state = state or run_state(run)
        sources = [run.config, run.metrics, run.summary, run.findings, run.events]
        row = _ROWS.get(run.path, sources, lambda: _row(run, bare))
    except Exception as error:  # one odd folder must not hide the others
        return replace(bare, detail=f"{type(error).__name__}: {error}"[:500])
    return replace(
        row,
        state=state.state,
        detail=state.detail,
        step=state.step,
        num_steps=state.num_steps,
        updated=state.updated,
    )


def _row(run: RunDir, bare: RunRow) -> RunRow:
    """What changes only when a file does."""
    config = section(identity(run), "config")
    evals, step = evals_of(run), last_step(run)
    best = best_step(run, evals)
    last_eval = evals[-1] if evals else {}
    newest: Record = {**last_eval, **step} if step else last_eval
    return replace(
        bare,
        epoch=number(newest.get("epoch")),
        loss=number(step.get("loss")),
        val_loss=number(last_eval.get("val_loss")),
        best_val_loss=number(best.record.get("val_loss")),
        best_step=best.step,
        verdicts={str(f.get("guard")): str(f.get("verdict")) for f in verdict_records(run)},
        started=started(run),
        seconds=number(step.get("seconds")),
        model=str(section(config, "model").get("name") or ""),
        data=data_paths(identity(run)),
        method=str(section(config, "method").get("kind") or ""),
        config={key: without_secrets(key, value) for key, value in dotted(config).items()},
    )


def started(run: RunDir) -> str | None:
    """When the first attempt began (ISO 8601), where that was recorded."""
    events = events_of(run)
    with events.lock:
        when = events.starts[0].get("time") if events.starts else None
    try:
        return datetime.fromisoformat(str(when)).astimezone(UTC).isoformat() if when else None
    except (ValueError, OverflowError):
        return None


def verdict_records(run: RunDir) -> list[Record]:
    """The finding that stands for each guard after the last evaluation; none with guards off."""
    summary = summary_of(run)
    if isinstance(summary.get("guards"), list):
        return objects(summary, "guards")
    last = last_findings(run)
    if not last:
        return []
    # Imported only here: the guards load scipy, which a list of finished runs can do without.
    from sft.guards.base import SEVERITY, Finding, verdicts

    known = [record for record in last if str(record.get("verdict")) in SEVERITY]
    try:
        findings = [Finding.from_record(record) for record in known]
        return [finding.record() for finding in verdicts(findings).values()]
    except (TypeError, ValueError, KeyError):
        return known


def last_findings(run: RunDir) -> list[Record]:
    """All findings of the last evaluation, as recorded."""
    records = tail(run.findings, _MOST_FINDINGS)
    last = max((whole(record.get("step")) or 0 for record in records), default=0)
    return [record for record in records if (whole(record.get("step")) or 0) == last]


def _is_run(path: Path) -> bool:
    try:
        return RunDir(path).is_run()
    except (OSError, ValueError):
        return False
