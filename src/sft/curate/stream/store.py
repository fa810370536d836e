"""The work folder: what finished passes wrote, so that an interrupted run need not repeat them.

`state.json` names the passes that are finished and is replaced at once. What an unfinished pass
wrote is not read: the pass is done again from its beginning.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sft.disk import disk_errors
from sft.errors import ConfigError

Append = Callable[[Mapping[str, bytes]], None]  # adds bytes to the ends of columns, by name
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Store:
    """The work folder of one run of `sft curate`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: dict[str, Any] = {}

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
            except (ValueError, KeyError):  # the machine stopped before the disk had all of it
                reason = "state.json is damaged"
        elif self.folder.exists() and set(os.listdir(self.folder)) - {"lock", "state.json.new"}:
            raise ConfigError(f"{self.folder}: exists and is no work folder of sft curate")
        if reason:
            self.remove()
            self.state = {}
        if not self.state:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.state = {"fingerprint": dict(fingerprint), "finished": {}}
            self._save()
        return reason

    def remove(self) -> None:
        """Delete the folder with all in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def finished(self, name: str) -> dict[str, Any] | None:
        """What was noted of a pass when it finished; None when it has not."""
        notes: dict[str, Any] | None = self.state["finished"].get(name)
        return notes

    def finish(self, name: str, **notes: Any) -> None:
        """Mark a pass as finished, with what is to be remembered of it (plain JSON types)."""
        self.state["finished"][name] = notes
        self._save()

    def _save(self) -> None:
        new = self.folder / "state.json.new"
        with disk_errors(self.folder):
            new.write_text(json.dumps(self.state), encoding="utf-8")
            os.replace(new, self.folder / "state.json")

    @contextmanager
    def writing(self) -> Iterator[Append]:
        """A function that appends to columns; each begins empty."""
        with disk_errors(self.folder), ExitStack() as stack:
            files: dict[str, BinaryIO] = {}

            def append(columns: Mapping[str, bytes]) -> None:
                for name, data in columns.items():
                    if name not in files:
                        files[name] = stack.enter_context(self.path(name).open("wb"))
                    files[name].write(data)

            yield append

    def path(self, name: str) -> Path:
        """The file of a column."""
        return self.folder / name

    def load(self, name: str, dtype: DTypeLike) -> NDArray[Any]:
        """A whole column in memory."""
        return np.fromfile(self.path(name), dtype=dtype)


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
        first, last = self.begins[index : index + 2].tolist()
        size = self._dtype.itemsize
        self._file.seek(first * size)
        return np.frombuffer(self._file.read((last - first) * size), dtype=self._dtype)


@dataclass(frozen=True, slots=True)
class RowChanges:
    """Rows that a step drops or edits, by index, in order, and what the reasons tell of each.

    `other` is the index of the row that is kept in its place, `value` a number that the reason
    tells, and `kind` a number that `notes` (plain JSON types) has words for: each as long as
    `rows`, or None.
    """

    rows: Rows
    other: Rows | None = None
    value: NDArray[Any] | None = None
    kind: NDArray[Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def save(self, store: Store, step: str) -> None:
        """Keep them in the work folder, so that the step is not done again."""
        arrays = {name: getattr(self, name) for name in ("rows", "other", "value", "kind")}
        given: dict[str, Any] = {name: a for name, a in arrays.items() if a is not None}
        with disk_errors(store.folder):
            np.savez(store.path(f"{step}.npz"), **given)
        store.finish(step, **self.notes)

    @classmethod
    def load(cls, store: Store, step: str) -> RowChanges | None:
        """The changes of a step that was finished before, or None."""
        notes = store.finished(step)
        if notes is None:
            return None
        with np.load(store.path(f"{step}.npz")) as arrays:
            return cls(**arrays, notes=notes)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs first between two fingerprints; empty when nothing does."""
    for section in sorted({*old, *new}):
        before, after = old.get(section, {}), new.get(section, {})
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                if section not in ("parameters", "versions"):
                    return f"{key} has changed"
                return f"{key} was {before.get(key)!r:.60} and is {after.get(key)!r:.60}"
    return ""
