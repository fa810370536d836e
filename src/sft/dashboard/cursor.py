"""A place in the records of a run: how much of each file a reader has seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from sft.runs import jsonl
from sft.runs.files import stamp
from sft.runs.run_dir import RunDir

_SHAPE = re.compile(r"\d{1,15}-\d{1,15}-\d{1,15}-\d{1,15}", re.ASCII)


class Cursor(NamedTuple):
    """Bytes of whole lines that were read, of each file of records that is followed."""

    metrics: int = 0
    events: int = 0
    findings: int = 0
    samples: int = 0

    def __str__(self) -> str:
        return "-".join(str(offset) for offset in self)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that was written as `text`. Raises `ValueError` for anything else."""
        if not _SHAPE.fullmatch(text):
            raise ValueError(f"not a cursor: {text[:80]!r}")
        return cls(*(int(part) for part in text.split("-")))

    @classmethod
    def at_end(cls, run: RunDir) -> Cursor:
        """Behind the last whole line of every file, as it is now."""
        return cls(*(line_end(path) for path in followed(run)))

    def fits(self, run: RunDir) -> bool:
        """Is each place still the end of a line, as it was when it was read?

        Not so when the files were cut back and have grown past the place with other lines.
        """
        places = zip(followed(run), self, strict=True)
        return all(
            not offset or (stamp(path) is not None and _line_end(path, offset) == offset)
            for path, offset in places
        )


def followed(run: RunDir) -> tuple[Path, ...]:
    """The files that a cursor has a place in, in its order."""
    return (run.metrics, run.events, run.findings, run.samples)


def line_end(path: Path) -> int:
    """Bytes of whole lines in a file; 0 where there is none. A pipe is none: opening one waits."""
    status = stamp(path)
    return _line_end(path, status[0]) if status else 0


def _line_end(path: Path, end: int) -> int:
    """Bytes of the whole lines in the first `end` bytes of a file."""
    try:
        with open(path, "rb") as file:
            return jsonl.line_end(file.fileno(), end)
    except OSError:
        return 0
