"""Runs in every state that `sft watch` can find: real ones, and what a stop leaves of one."""

from __future__ import annotations

import json
import os
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

import trained
from sft.errors import DivergedError
from sft.runs.events import EventLog

HELD_BACK = ("checkpoints", "model", "summary.json", "report.html", "report.json")
STATES = {
    "first": "finished",
    "second": "finished",
    "diverged": "failed",
    "stopped": "interrupted",
    "killed": "killed",
    "beginning": "preparing",
}


def make_runs(folder: Path) -> Path:
    """A folder `runs` in `folder` with a run for each name in STATES."""
    world = trained.make_world(folder)
    usage = trained.write_rows(
        folder / "usage.jsonl", 12, lambda q, _: f"It is {q.split()[0]}.", seed=7
    )
    runs = folder / "runs"
    options = {"data__usage": [str(usage)], "eval__samples": 4}
    trained.Trained(world, "runs/first", **options)
    trained.Trained(world, "runs/second", optim__learning_rate=1e-3, **options)
    with pytest.raises(DivergedError):
        trained.Trained(world, "runs/diverged", optim__learning_rate=1e30)
    half(runs / "first", runs / "stopped")
    EventLog(runs / "stopped" / "events.jsonl").add("interrupted", "SIGTERM", step=6)
    half(runs / "first", runs / "killed")
    hold(runs / "killed", pid=2**22 + 1)  # larger than any process id
    begin(runs / "first", runs / "beginning")
    hold(runs / "beginning")
    return runs


def half(source: Path, target: Path) -> None:
    """A copy of a finished run as it was after six of its twelve steps."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*HELD_BACK))
    for name in ("metrics", "scores", "samples", "findings"):
        path = target / f"{name}.jsonl"
        lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= 6]
        path.write_text("".join(line + "\n" for line in lines))
    path = target / "events.jsonl"
    lines = path.read_text().splitlines()
    ends = ("finished", "stopped", "note")
    early = [json.loads(line) for line in lines]
    kept = [e for e in early if e["kind"] not in ends and (e["step"] or 0) <= 6]
    path.write_text("".join(json.dumps(event) + "\n" for event in kept))


def begin(source: Path, target: Path) -> None:
    """What there is while the data are being read: a configuration and first events."""
    target.mkdir()
    shutil.copy(source / "config.yaml", target / "config.yaml")
    events = EventLog(target / "events.jsonl")
    events.add("started", "process", host=socket.gethostname(), pid=os.getpid())
    events.add("phase", "reading")


def hold(run: Path, pid: int | None = None) -> None:
    """A lock that names a process, as one that was killed leaves it; or this one, which works."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": pid or os.getpid(), "host": socket.gethostname(), "started": now}
    (run / "run.lock").write_text(json.dumps(holder))
