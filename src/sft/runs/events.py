"""What happened in a run, in the order it happened: `events.jsonl`.

Unlike the other records these carry the time of day, and a resumed run does not cut them back:
they are the history of all its attempts. Nothing is computed from them but what readers show.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Level = Literal["info", "warning", "error"]

# The level of an event that tells a verdict of a guard; the others are `info`.
VERDICT_LEVELS: dict[str, Level] = {"watch": "warning", "alarm": "error"}

# kind: what it tells
KINDS: dict[str, str] = {
    "started": "An attempt began; with `command`, `folder`, `host` and `pid`.",
    "resumed": "It continues from a checkpoint; records after that step were cut off.",
    "phase": "What is being done before, between and after steps.",
    "note": "A line of the terminal.",
    "evaluation": "The model was measured.",
    "checkpoint": "The complete state was saved.",
    "watch": "A guard is worried; with `guard` and `signal`.",
    "alarm": "A guard is sure; with `guard` and `signal`.",
    "stopped": "A guard or early stopping ended the training.",
    "interrupted": "The user or the system asked it to stop; the same command resumes it.",
    "failed": "It ended with an error; `text` is its message.",
    "finished": "The model is saved and verified.",
}


class EventLog:
    """The writer of `events.jsonl`. What cannot be written is lost, and never stops a run."""

    def __init__(self, path: Path, *, held: bool = False) -> None:
        """With `held`, nothing is written before `release`."""
        self.path = path
        self.released = False
        self._waiting: list[str] | None = [] if held else None

    def release(self) -> None:
        """What this attempt does counts from now on. Writes what was held back."""
        self.released = True
        waiting, self._waiting = self._waiting or [], None
        for line in waiting:
            self._write(line)

    def forget(self) -> None:
        """Leave no trace of an attempt that was never released."""
        if self._waiting is None:
            self.path.unlink(missing_ok=True)

    def add(
        self, kind: str, text: str, *, level: Level = "info", step: int | None = None, **more: Any
    ) -> None:
        """Append one event, stamped with the time now (UTC, milliseconds)."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = {"time": now, "kind": kind, "level": level, "step": step, "text": text, **more}
        line = json.dumps(event, allow_nan=False, default=str) + "\n"
        if self._waiting is None:
            self._write(line)
        else:
            self._waiting.append(line)

    def _write(self, line: str) -> None:
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(self.path, flags, 0o666)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)
