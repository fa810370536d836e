"""Following a file of records while another process writes it: each whole line once, in order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MOST_BYTES = 4 << 20  # read at once


class Tail:
    """A reader with a place in a file: `offset` bytes of whole lines have been read.

    The file may not exist yet. A run that is resumed cuts its files back to a checkpoint; then
    `read` goes on at the new end, and `was_cut` is true until it is set to false. `keep` says which
    lines are wanted before they are parsed, which is what takes the time.
    """

    def __init__(
        self, path: Path, offset: int = 0, keep: Callable[[bytes], bool] | None = None
    ) -> None:
        self.path = path
        self.offset = offset
        self.was_cut = False
        self._keep = keep

    def read(self, most: int | None = None) -> list[dict[str, Any]]:
        """The records that are new since the last call, of at most `most` lines.

        A line that is no JSON object is left out: following a file is no place to judge it.
        """
        try:
            size = os.stat(self.path).st_size
            if size < self.offset:
                self.offset, self.was_cut = size, True
            if size == self.offset:
                return []
            data = self._bytes(size - self.offset)
        except OSError:  # not there yet, or gone
            return []
        lines = data.split(b"\n", most if most is not None else -1)[:-1]
        self.offset += sum(map(len, lines)) + len(lines)
        if self._keep is not None:
            lines = list(filter(self._keep, lines))
        return _parsed(lines)

    def _bytes(self, available: int) -> bytes:
        """What follows `offset`; more than usual only where one line is longer than that."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read(min(available, _MOST_BYTES))
            while b"\n" not in data and len(data) < available:
                data += file.read(_MOST_BYTES)
        return data


def _parsed(lines: list[bytes]) -> list[dict[str, Any]]:
    """The records of `lines`. All at once takes half the time of one by one."""
    try:
        found = json.loads(b"[" + b",".join(lines) + b"]")
        if len(found) == len(lines):
            return [record for record in found if isinstance(record, dict)]
    except (ValueError, RecursionError):
        pass
    each = map(_parse, lines)
    return [record for record in each if record is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
