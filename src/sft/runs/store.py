"""Append-only files of JSON lines: one writer, many readers.

A record exists when its newline does. What follows the last newline is a line that was
being written when the process or the machine stopped: readers ignore it, the next writer
removes it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sft.disk import disk_errors, sync_path
from sft.errors import DataError
from sft.runs.files import decode_json
from sft.runs.jsonl import line_end
from sft.runs.metrics import NONFINITE_SUFFIX
from sft.runs.run_dir import RunDir

_BLOCK = 1 << 16


class RecordStore:
    """The writer of one file of records."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, and remove a torn last line."""
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with disk_errors(path):
            self._file = os.open(path, flags, 0o666)
            size = os.fstat(self._file).st_size
            self._offset = line_end(self._file, size)
            if self._offset < size:
                os.ftruncate(self._file, self._offset)

    @property
    def offset(self) -> int:
        """Bytes of whole lines in the file; a checkpoint stores it for `truncate_to`."""
        return self._offset

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line. A NaN or infinite value becomes null, beside `<name>_nonfinite`."""
        line = json.dumps(_finite(record), allow_nan=False) + "\n"
        self._write(line.encode())

    def sync(self) -> None:
        """Return when everything appended would survive a power loss."""
        with disk_errors(self.path):
            os.fsync(self._file)
            sync_path(self.path.parent)

    def truncate_to(self, offset: int) -> None:
        """Cut back to an earlier `offset`; the lines cut go to `<name>.discarded.jsonl`.

        They belong to steps after the checkpoint that is being resumed from.
        """
        whole = 0 <= offset <= self._offset and line_end(self._file, offset) == offset
        if not whole:
            raise DataError(
                f"{self.path}: the checkpoint was saved with {offset} bytes of whole lines here, "
                f"found {self._offset} bytes with no line ending at {offset}; the file was changed "
                "since; put it back, or resume from another checkpoint"
            )
        if offset == self._offset:
            return
        with RecordStore(self.path.with_suffix(".discarded.jsonl")) as discarded:
            for start in range(offset, self._offset, _BLOCK):
                block = os.pread(self._file, min(_BLOCK, self._offset - start), start)
                discarded._write(block)
            discarded.sync()
        with disk_errors(self.path):
            os.ftruncate(self._file, offset)
            os.fsync(self._file)
        self._offset = offset

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        """One write. If the disk takes only part of it, nothing of it stays."""
        with disk_errors(self.path):
            try:
                written = os.write(self._file, data)
                while written < len(data):  # nearly full: writing the rest names the reason
                    written += os.write(self._file, data[written:])
            except OSError:
                os.ftruncate(self._file, self._offset)
                raise
        self._offset += written


@contextmanager
def open_stores(run: RunDir) -> Iterator[dict[str, RecordStore]]:
    """The files of records that a run appends to, by name."""
    paths = (run.metrics, run.scores, run.samples, run.findings)
    with ExitStack() as stack:
        yield {path.stem: stack.enter_context(RecordStore(path)) for path in paths}


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: `{"loss": nan}` becomes `{"loss": None, "loss_nonfinite": "nan"}`."""
    result: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            result[name] = None
            result[name + NONFINITE_SUFFIX] = str(float(value))
        elif isinstance(value, Mapping):
            result[name] = _finite(value)
        else:
            result[name] = value
    return result


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a file; none when there is no file yet.

    Raises:
        DataError: it cannot be read, or a line is damaged; with the file and line.
    """
    return [record for _, record in _numbered(path)]


def end_of_step(path: Path, step: int) -> int:
    """Bytes of the lines of a file of records up to those of `step`.

    Raises:
        DataError: as `read_records`.
    """
    end = 0
    for behind, record in _numbered(path):
        if record["step"] > step:
            break
        end = behind
    return end


def _numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each record, after the bytes of the file up to its end."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    end = 0
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        end += len(line) + 1
        yield end, _parse(line, path, number)


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = decode_json(line)
    except (ValueError, RecursionError) as error:
        reason = f"not JSON ({error})"
    else:
        if isinstance(record, dict):
            return record
        reason = "not a JSON object"
    raise DataError(
        f"{path}:{number}: {reason}: {line[:60]!r}; remove the line, or restore the file"
    )
