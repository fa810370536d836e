"""Which runs are served: found below the folders that were named, and known by id from then on.

A request names a run by an id that is looked up here, and never by a path. This is also the one
place that decides whether the files of a run may be read: a run folder may come from someone else,
and a link in it, or a pipe, must neither lead out of the folder nor block the server.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sft.runs.index import RunRow, run_id, run_row
from sft.runs.run_dir import RunDir

DEPTH = 3  # folders below a named one that may hold runs
MOST_FOLDERS = 10_000  # that are searched
_RECORDS = (".json", ".jsonl", ".yaml", ".lock")
_SUBFOLDERS = ("probes", "trackers")  # whose records are read too
_AGE = 1.0  # seconds for which a search holds


class NotServed(Exception):
    """There is no such run, or its files may not be read; says which."""


class Folders:
    """The runs of some folders; safe to use from several threads.

    `folders` are runs or folders that hold some. Only what a search finds by itself must be no
    link: a folder that the user named may be one.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [Path(os.path.realpath(folder)) for folder in folders]
        self._lock = threading.Lock()
        self._runs: dict[str, Path] = {}
        self._searched = float("-inf")

    def find(self, known_as: str) -> RunDir:
        """The run with this id. Raises `NotServed`."""
        path = self._by_id().get(known_as)
        if path is None:
            raise NotServed("there is no such run")
        reason = refusal(path)
        if reason:
            raise NotServed(f"{path.name} is not served: {reason}")
        return RunDir(path)

    def rows(self) -> list[dict[str, Any]]:
        """All runs as JSON, newest change first; one that may not be read says why."""
        rows = [_row(known_as, path) for known_as, path in self._by_id().items()]
        rows.sort(key=lambda row: (-(row.updated or 0.0), row.name))
        return [row.record() for row in rows]

    def __len__(self) -> int:
        return len(self._by_id())

    def _by_id(self) -> dict[str, Path]:
        with self._lock:
            if time.monotonic() - self._searched > _AGE:
                self._runs = {run_id(path): path for path in search(self.folders)}
                self._searched = time.monotonic()
            return self._runs


def search(folders: Sequence[Path]) -> Iterator[Path]:
    """Run folders among and below `folders`, not following links, and not inside of runs."""
    todo = [(folder, 0) for folder in folders]
    for searched, (folder, depth) in enumerate(todo):
        if searched >= MOST_FOLDERS:
            return
        entries = _entries(folder)
        if any(entry.name in ("config.yaml", "run.lock") for entry in entries):
            yield folder
        elif depth < DEPTH:
            inside = (entry for entry in entries if not entry.name.startswith("."))
            todo += [(Path(entry.path), depth + 1) for entry in inside if _is_folder(entry)]


def refusal(path: Path) -> str:
    """Why the files of a run may not be read; empty when they may."""
    root = os.path.realpath(path)
    for entry in _entries(path):
        if reason := _reason(entry, root):
            return reason
        inside = _entries(Path(entry.path)) if entry.name in _SUBFOLDERS else []
        if reason := next(filter(None, (_reason(record, root) for record in inside)), ""):
            return reason
    return ""


def _reason(entry: os.DirEntry[str], root: str) -> str:
    if not entry.name.endswith((*_RECORDS, *_SUBFOLDERS)):
        return ""
    if entry.is_symlink() and not _is_inside(entry.path, root):
        return f"{entry.name} leads out of the run folder"
    try:
        mode = entry.stat().st_mode
    except OSError:  # gone, or a link to nothing
        return ""
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else f"{entry.name} is no regular file"


def _is_inside(path: str, root: str) -> bool:
    return os.path.realpath(path).startswith(root.rstrip(os.sep) + os.sep)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; nothing when it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError):
        return []


def _row(known_as: str, path: Path) -> RunRow:
    reason = refusal(path)
    if reason:
        return RunRow(known_as, path.name, str(path), "unknown", f"not served: {reason}")
    return run_row(RunDir(path))
