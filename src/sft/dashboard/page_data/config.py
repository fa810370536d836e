"""The settings of a run, where each comes from, and how to run it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sft.errors import SFTError
from sft.runs.files import Record, identity, section
from sft.runs.index import events_of
from sft.runs.run_dir import RunDir
from sft.runs.settings import rerun_command, resume_command, settings_of


def config(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """Every setting with its source and, where it was `auto`, why it has its value."""
    saved: Record = {}
    problems = []
    try:
        saved = identity(run)
    except SFTError as error:
        problems = [str(error)]
    # Another trainer does the training, or nothing says how it was done.
    ours = section(saved, "template").get("source") != "the trainer's tokenizer"
    known = ours and bool(section(saved, "config"))
    return {
        "rows": [asdict(setting) for setting in settings_of(saved)],
        "rerun": rerun_command(run) if known else None,
        "resume": resume_command(run) if known else None,
        "started": _started(run),
        "versions": section(saved, "versions"),
        "fingerprint": section(saved, "fingerprint"),
        "template": section(saved, "template"),
        "num_steps": saved.get("num_steps"),
        "problems": problems,
    }


def _started(run: RunDir) -> dict[str, Any] | None:
    """The event of the first attempt."""
    events = events_of(run)
    with events.lock:
        events.update()
        first = events.starts[0] if events.starts else None
    if first is None:
        return None
    names = ("command", "folder", "host", "pid", "time")
    return {name: first.get(name) for name in names}
