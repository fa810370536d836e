"""The layout of one run on disk, its lock, and writing files that are whole or not there.

This is the only file that spells the paths of a run. Training holds the lock; every
reader (report, page, guards) does without it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sft.disk import (
    FREE_SOME,
    TMP_PREFIX,
    disk_errors,
    format_bytes,
    free_bytes,
    remove_path,
    sync_path,
)
from sft.errors import ConfigError, DiskError, did_you_mean


class RunDir:
    """The folder of one run. `RunDir(path)` and `RunDir.find` are for readers; see `open`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.account = self.path / "account.json"
        self.metrics = self.path / "metrics.jsonl"
        self.scores = self.path / "scores.jsonl"
        self.samples = self.path / "samples.jsonl"
        self.findings = self.path / "findings.jsonl"
        self.events = self.path / "events.jsonl"
        self.preflight = self.path / "preflight.json"
        self.examples = self.path / "examples.json"
        self.data = self.path / "data"
        self.probes = self.path / "probes"
        self.retain = self.probes / "retain.jsonl"
        self.replay = self.probes / "replay.jsonl"
        self.drift = self.probes / "usage_drift.jsonl"
        self.base_logits = self.probes / "base.safetensors"
        self.blended = self.path / "model-blend"
        self.blend = self.path / "blend.json"
        self.summary = self.path / "summary.json"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.adapter = self.path / "adapter"
        self.report = self.path / "report.html"
        self.report_json = self.path / "report.json"
        self.card = self.model / "README.md"
        self.trackers = self.path / "trackers"
        self.lock = self.path / "run.lock"

    def evaluation(self, name: str) -> Path:
        """Where `sft eval` writes what it found on the data called `name`."""
        return self.path / f"eval-{name}.json"

    @classmethod
    @contextmanager
    def open(cls, path: str | Path) -> Iterator[RunDir]:
        """Create or open a run folder for writing, and hold its lock inside the `with` block."""
        run = cls(path)
        try:
            with disk_errors(run.path):
                run._create()
                lock = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
            raise ConfigError(
                f"{run.path}: cannot be a run folder ({error}); choose another --run"
            ) from None
        try:
            with _locked(lock, run.path):
                with disk_errors(run.path):
                    for stale in run.path.glob(TMP_PREFIX + "*"):
                        remove_path(stale)
                yield run
        finally:
            os.close(lock)

    @classmethod
    def find(cls, path: str | Path) -> RunDir:
        """An existing run folder, for readers; takes no lock and writes nothing."""
        run = cls(path)
        try:
            if run.is_run():
                return run
            what = "not a run folder" if run.path.exists() else "no such run folder"
        except OSError as error:
            raise ConfigError(f"{run.path}: cannot be read ({error.strerror})") from None
        if inside := runs_in(run.path):
            hint = f" It holds runs: {', '.join(path.name for path in inside[:5])}."
        else:
            hint = did_you_mean(run.path.name, [path.name for path in runs_in(run.path.parent)])
        raise ConfigError(f"{run.path}: {what} (expected config.yaml in it).{hint}")

    def check_space(self, num_bytes: int) -> None:
        """Raise `DiskError` unless `num_bytes` are free on the disk of the run."""
        free = free_bytes(self.path)
        if free < num_bytes:
            raise DiskError(
                f"{self.path}: the run needs {format_bytes(num_bytes)} and "
                f"{format_bytes(free)} are free; {FREE_SOME}"
            )

    def is_run(self) -> bool:
        """Is there a run here, if only one that is just starting?"""
        return self.config.is_file() or self.lock.is_file()

    def _create(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path}: is a file, not a run folder; choose another --run")
        if not self.path.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            sync_path(self.path.parent)
        # In this order: another process may be creating run.lock in between.
        if any(self.path.iterdir()) and not self.is_run():
            raise ConfigError(
                f"{self.path}: holds files, but no run (no config.yaml); nothing was touched; "
                "choose another --run, or an empty folder"
            )
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))


def runs_in(folder: Path) -> list[Path]:
    """The run folders directly in `folder`, in order; those still being written are left out."""
    try:
        inside = sorted(folder.iterdir())
        names = [path for path in inside if not path.name.startswith(TMP_PREFIX)]
        return [path for path in names if RunDir(path).is_run()]
    except (OSError, ValueError):
        return []


@contextmanager
def _locked(lock: int, path: Path) -> Iterator[None]:
    """Hold the kernel's lock on `run.lock`. The kernel frees it however the process ends.

    The text in the file only serves the message; it may be that of a killed process.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{path}: run folder in use by {_holder(lock)}; "
            "wait for it, stop it, or choose another --run"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be locked ({error.strerror}); choose a --run on a local disk"
        ) from None
    try:
        with disk_errors(path):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": now}
            os.ftruncate(lock, 0)
            os.pwrite(lock, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.ftruncate(lock, 0)
        # Not left to `close`: a forked worker that outlives us shares the descriptor.
        fcntl.flock(lock, fcntl.LOCK_UN)


def _holder(lock: int) -> str:
    try:
        holder = json.loads(os.pread(lock, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
