"""The work folder: columns of numbers that grow by whole chunks, and how far the work is.

`state.json` is replaced at once and says how long each column is. What is longer was being
written when the process ended, and is cut off, so that a run can be killed at any point.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sft.errors import ConfigError, DiskError


class Store:
    """The work folder of one run of `sft curate`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: dict[str, Any] = {}
        self._files: dict[str, BinaryIO] = {}

    def open(self, fingerprint: Mapping[str, Any]) -> str:
        """Go on with what is there, or begin; the reason when what is there cannot be used.

        Raises:
            ConfigError: the folder exists and is not one of ours.
        """
        reason = ""
        path = self.folder / "state.json"
        if path.is_file():
            try:
                self.state = json.loads(path.read_text(encoding="utf-8"))
                reason = _difference(self.state["fingerprint"], fingerprint)
            except ValueError:  # the machine stopped before the disk had all of it
                reason = "state.json is damaged"
        elif self.folder.exists() and set(os.listdir(self.folder)) - {"lock", "state.json.new"}:
            raise ConfigError(f"{self.folder}: exists and is no work folder of sft curate")
        if reason:
            self.remove()
            self.state = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.state:
            self.state = {"fingerprint": dict(fingerprint), "parts": {}}
            self.save()
        self._cut()
        return reason

    def _cut(self) -> None:
        """Cut off what was being written when the process ended."""
        with disk_errors(self.folder):
            for part in self.state["parts"].values():
                for name, size in ({} if part["done"] else part["bytes"]).items():
                    os.truncate(self.path(name), size)

    def remove(self) -> None:
        """Delete the folder with all in it."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def part(self, name: str) -> dict[str, Any]:
        """How far a part of the work is: rows done, bytes of its columns, whether it is done."""
        empty = {"rows": 0, "bytes": {}, "done": False}
        found: dict[str, Any] = self.state["parts"].setdefault(name, empty)
        return found

    def append(self, part: str, columns: Mapping[str, bytes | memoryview], rows: int) -> None:
        """Add the columns of `rows` more rows to `part`; they count once `commit` is called."""
        sizes = self.part(part)["bytes"]
        with disk_errors(self.folder):
            for name, data in columns.items():
                if name not in self._files:
                    self._files[name] = self._writer(name, sizes.get(name, 0))
                self._files[name].write(data)
                sizes[name] = sizes.get(name, 0) + len(data)
        self.part(part)["rows"] += rows

    def commit(self) -> None:
        """From here on, what was appended is found again after a kill."""
        with disk_errors(self.folder):
            for file in self._files.values():
                file.flush()
            self.save()

    def finish(self, part: str, **notes: Any) -> None:
        """Mark a part as done, with what is to be remembered of it."""
        self.close()
        self.part(part).update(done=True, **notes)
        self.save()

    def _writer(self, name: str, size: int) -> BinaryIO:
        return self.path(name).open("ab" if size else "wb")

    def save(self) -> None:
        """Replace `state.json`."""
        new = self.folder / "state.json.new"
        with disk_errors(self.folder):
            new.write_text(json.dumps(self.state), encoding="utf-8")
            os.replace(new, self.folder / "state.json")

    def close(self) -> None:
        """Close the columns that are open for writing."""
        with disk_errors(self.folder):
            for file in self._files.values():
                file.close()
        self._files = {}

    def path(self, name: str) -> Path:
        """The file of a column."""
        return self.folder / name

    def load(self, name: str, dtype: DTypeLike) -> NDArray[Any]:
        """A whole column in memory."""
        return np.fromfile(self.path(name), dtype=dtype)

    def write_array(self, name: str, values: NDArray[Any]) -> None:
        """Write a column that is made at once, such as a step's decisions."""
        with disk_errors(self.folder):
            values.tofile(self.path(name))


class Mapped:
    """A column on disk as an array whose pages can be given back."""

    def __init__(self, path: Path, dtype: DTypeLike, width: int = 1) -> None:
        self._file = path.open("rb")
        size = path.stat().st_size
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        flat = np.frombuffer(self._map if self._map is not None else b"", dtype=dtype)
        self.values = flat.reshape(-1, width) if width > 1 else flat

    def forget(self) -> None:
        """Drop the pages that were read from this process's memory; the disk has them."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Lists:
    """A column of lists of numbers: `counts` of each row, and all of them end to end on disk."""

    def __init__(self, store: Store, name: str, dtype: DTypeLike) -> None:
        counts = store.load(f"{name}.counts", np.uint32)
        self.begins = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=self.begins[1:])
        self._dtype = np.dtype(dtype)
        self._file = store.path(name).open("rb", buffering=0)

    def row(self, index: int) -> NDArray[Any]:
        """The numbers of one row."""
        return self.rows(index, index + 1)

    def rows(self, start: int, end: int) -> NDArray[Any]:
        """The numbers of rows that stand together, end to end."""
        first, last = int(self.begins[start]), int(self.begins[end])
        size = self._dtype.itemsize
        self._file.seek(first * size)
        return np.frombuffer(self._file.read((last - first) * size), dtype=self._dtype)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class disk_errors:
    """A full or read-only disk as a `DiskError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise DiskError(f"{self._folder}: cannot be written ({error.strerror})") from None


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs first between two fingerprints; empty when nothing does."""
    for section in sorted({*old, *new}):
        before, after = old.get(section, {}), new.get(section, {})
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                shown = section == "parameters" or section == "versions"
                was = f" was {before.get(key)!r:.60} and is {after.get(key)!r:.60}"
                return f"{key}{was}" if shown else f"{key} has changed"
    return ""
