"""Reading files of JSON lines, whole or while another process writes them.

One meaning of "record" for every reader: a line that ends in a newline and holds a JSON object, in
which `NaN` and `Infinity`, which JSON does not have, are null. What follows the last newline is
still being written. Any other line is damage: whoever decides by the records (training, guards,
`sft compare`, `sft export-metrics`) reads them with `sft.runs.store.read_records`, which raises
`DataError` with the file and line; whoever shows them or passes them on leaves it out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sft.runs.files import Record, decode_json, parse_object, stamp

_MOST_BYTES = 4 << 20  # read at once
_BLOCK = 1 << 16
_MOST_TAIL = 8 << 20  # bytes of a file that are read from its end at most
_MARK = 64  # bytes before the place in a file, by which a file cut and grown again is known


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

    def read(self, most: int | None = None) -> list[Record]:
        """The records that are new since the last call, of at most `most` lines.

        Damaged lines are left out.
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


def _parsed(lines: list[bytes]) -> list[Record]:
    """The records of `lines`. All at once takes half the time of one by one."""
    try:
        values = decode_json(b"[" + b",".join(lines) + b"]")
        if isinstance(values, list) and len(values) == len(lines):
            return [value for value in values if isinstance(value, dict)]
    except (ValueError, RecursionError):
        pass
    return [record for record in map(parse_object, lines) if record is not None]


class Follower:
    """A file of records that is read as it grows; a subclass says what it keeps of them.

    `offset` bytes are read. A file that was cut back, or replaced, is read anew from its start:
    also where it has grown past the old place since, which the bytes before that place tell.
    """

    def __init__(self, path: Path, keep: Callable[[bytes], bool] | None = None) -> None:
        self.lock = threading.RLock()
        self._tail = Tail(path, keep=keep)
        self._mark: tuple[int, bytes] = (0, b"")
        self.clear()

    @property
    def offset(self) -> int:
        """Bytes of whole lines that were read."""
        return self._tail.offset

    def update(self) -> None:
        """Read what is new; the calls of several threads go one after another."""
        with self.lock:
            if self._bytes_before() != self._mark:
                self._tail.offset = 0
                self.clear()
            while True:
                before = self._tail.offset
                for record in self._tail.read():
                    self.take(record)
                if self._tail.was_cut:  # between the check and the reading
                    self._tail.was_cut, self._tail.offset = False, 0
                    self.clear()
                elif self._tail.offset == before:
                    break
            self._mark = self._bytes_before()

    def take(self, record: Record) -> None:
        """Keep what is wanted of a new record."""
        raise NotImplementedError

    def clear(self) -> None:
        """Begin anew, without records."""
        raise NotImplementedError

    def _bytes_before(self) -> tuple[int, bytes]:
        """The inode, and the last bytes before our place in the file."""
        offset = self._tail.offset
        if not offset:
            return 0, b""
        if stamp(self._tail.path) is None:
            return -1, b""
        try:
            with open(self._tail.path, "rb") as file:
                file.seek(max(0, offset - _MARK))
                return os.fstat(file.fileno()).st_ino, file.read(min(_MARK, offset))
        except OSError:
            return -1, b""


def each_record(path: Path) -> Iterator[Record]:
    """Every record of a file in order, a few megabytes at a time; damaged lines are left out."""
    tail = Tail(path)
    while stamp(path) is not None:
        before = tail.offset
        yield from tail.read()
        if tail.offset == before:
            return


def line_end(file: int, end: int) -> int:
    """The position after the last newline before `end` in an open file (its descriptor)."""
    while end > 0:
        start = max(0, end - _BLOCK)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def last_records(path: Path, most: int = 64) -> list[Record]:
    """The last `most` records of a file, in order; damaged lines are left out."""
    status = stamp(path)
    if status is None:
        return []
    size, length = status[0], _BLOCK
    try:
        with open(path, "rb") as file:
            while True:
                file.seek(max(0, size - length))
                lines = file.read(min(length, size)).split(b"\n")
                # The first may have begun earlier, the last has no newline yet.
                whole = lines[:-1] if length >= size else lines[1:-1]
                if len(whole) >= most or length >= min(size, _MOST_TAIL):
                    return _parsed(whole[-most:])
                length *= 4
    except OSError:
        return []
