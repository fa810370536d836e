"""The settings of a run, where each comes from, and how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any

from sft.config import Config
from sft.errors import SFTError
from sft.runs.files import Record, identity, section
from sft.runs.index import dotted, events_of
from sft.runs.masked import masked
from sft.runs.run_dir import RunDir


def config(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """Every setting with its source and, where it was `auto`, why it has its value.

    A run of old did not record whether a value came from a file, a flag or Python: it was `given`.
    """
    problems = []
    try:
        saved = identity(run)
    except SFTError as error:
        saved, problems = {}, [str(error)]
    return {
        "rows": _rows(saved),
        **_again(run, saved),
        "started": _started(run),
        "versions": section(saved, "versions"),
        "fingerprint": section(saved, "fingerprint"),
        "template": section(saved, "template"),
        "num_steps": saved.get("num_steps"),
        "problems": problems,
    }


@cache
def defaults() -> dict[str, Any]:
    """The default of every setting, by dotted key."""
    return dotted(Config().model_dump(mode="json"))


def _rows(saved: Record) -> list[dict[str, Any]]:
    reasons, sources = section(saved, "reasons"), saved.get("sources")
    return [
        {
            "key": key,
            "value": masked(key, value),
            "source": _source(key, value, reasons, sources),
            "reason": reasons.get(key),
            "default": masked(key, defaults().get(key)),
        }
        for key, value in dotted(section(saved, "config")).items()
    ]


def _again(run: RunDir, saved: Record) -> dict[str, str | None]:
    """What to type; None where sft does not do the training, or does not know how."""
    elsewhere = section(saved, "template").get("source") == "the trainer's tokenizer"
    if elsewhere or not section(saved, "config"):
        return {"rerun": None, "resume": None}
    resume = f"sft train {shlex.quote(str(run.config))}"
    return {"rerun": f"{resume} --run {shlex.quote(f'{run.path}-again')}", "resume": resume}


def _source(key: str, value: Any, reasons: Record, sources: Any) -> str:
    """`auto`, `file`, `flag`, `python` or `default`; `given` where only that is known."""
    if key in reasons:
        return "auto"
    if isinstance(sources, dict):
        return str(sources.get(key, "default"))
    known = defaults()
    return "default" if key in known and known[key] == value else "given"


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
