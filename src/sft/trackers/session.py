"""One tracker at one run: what is new is handed over, and what arrived is remembered."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from filelock import FileLock, Timeout

from sft.config import Config
from sft.errors import ConfigError, SFTError
from sft.runs.files import Record, identity, section
from sft.runs.run_dir import RunDir
from sft.runs.settings import dotted
from sft.runs.state import ending_of
from sft.texts.safe import printable
from sft.trackers.base import printable_event
from sft.trackers.installed import label, maker
from sft.trackers.position import Position


class Session:
    """From `start` to `finish`. Only one process at a time may have one with a tracker and a run.

    Whoever calls `close` from another thread ends it: from then on no position is saved.
    """

    def __init__(self, run: RunDir, name: str, settings: Mapping[str, Any]) -> None:
        """Raises `ConfigError` where another process has one, or there is no such tracker."""
        self.tracker = maker(name)()
        self.handed_over = False
        self._run, self._settings = run, settings
        run.trackers.mkdir(exist_ok=True)
        self._lock = FileLock(run.trackers / f"{label(name)}.lock", thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            text = f"{run.path}: is being sent to {name} by another process"
            raise ConfigError(text) from None
        self._position = Position(run, label(name))
        self._saving = threading.Lock()

    def start(self) -> None:
        """Connect."""
        self.tracker.start(self._run, self._settings, self._position.state)
        self._save()

    def send_new(self) -> bool:
        """Hand over a batch of records and all events that are new; False when there were none."""
        records = self._position.new_records()
        if records:
            self.tracker.record(records)
            self.handed_over = True
            if self.tracker.confirms:
                self._save()
        any_new = bool(records)
        for start, events in self._position.new_events():
            any_new = True
            for number, event in enumerate(events):
                try:
                    self.tracker.event(printable_event(event))
                except BaseException:  # none before it comes twice
                    self._position.back_to(start, number)
                    self._save(records=False)
                    raise
            self._save(records=False)
        return any_new

    def finish(self) -> None:
        """Say how the run ended."""
        status, summary = ending_of(self._run)
        self.tracker.finish(status, summary)
        self._save(ended=status)

    def close(self) -> None:
        """Let others send. May be called twice."""
        with self._saving:
            self._lock.release()

    def _save(self, *, records: bool = True, ended: str | None = None) -> None:
        with self._saving:
            if self._lock.is_locked:
                self._position.save(records=records, ended=ended)


def send(run: RunDir, name: str, config: Config) -> int:
    """Send what was not sent of a run, finished or not. Returns the number of records (or alerts).

    Raises:
        ConfigError: there is no such tracker, or its library is missing.
        SFTError: the service failed; what it had taken by then is not sent again.
    """
    if name == "alerts" and not (config.alerts.webhook or config.alerts.command):
        raise ConfigError(f"{run.path}: has neither alerts.webhook nor alerts.command")
    settings = start_settings(run, config, name)
    session = Session(run, name, settings)
    try:
        count = unsent(run, name, settings)
        if not count and Position(run, label(name)).ended == ending_of(run)[0]:
            return 0
        session.start()
        while session.send_new():
            pass
        session.finish()
    except SFTError:
        raise
    except (Exception, SystemExit) as error:
        left = unsent(run, name, settings)
        raise SFTError(
            f"{label(name)}: {reason(error)}; {count - left:,} of {count:,} were sent; "
            "the same command goes on"
        ) from error
    finally:
        session.close()
    return count


def unsent(run: RunDir, name: str, settings: Mapping[str, Any]) -> int:
    """How many records (or alerts) the service has not confirmed; a count beyond 100,000 ends."""
    position = Position(run, label(name))
    if name == "alerts":
        kinds = settings["alerts"]["on"]
        since = position.state.get("since") or settings["since"] or ""
        return sum(
            event.get("kind") in kinds and str(event.get("time", "")) >= since
            for _, events in position.new_events()
            for event in events
        )
    count = 0
    while count < 100_000 and (records := position.new_records()):
        count += len(records)
    return count


def start_settings(
    run: RunDir, config: Config, name: str, since: str | None = None, wait: float | None = None
) -> dict[str, Any]:
    """What a tracker is started with, see `Tracker.start`."""
    return {
        "project": config.trackers.project,
        "name": printable(config.trackers.name or run.path.resolve().name),
        "settings": public_settings(run),
        "alerts": config.alerts.model_dump(mode="json") if name == "alerts" else {},
        "since": since,
        "wait": wait,
    }


def public_settings(run: RunDir) -> dict[str, Any]:
    """The settings of the run by dotted key, fit to be shown; not those that hold secrets."""
    return {
        printable(key): printable(value) if isinstance(value, str) else value
        for key, value in dotted(section(saved_identity(run), "config")).items()
        if not key.startswith(("trackers.", "alerts."))
    }


def saved_identity(run: RunDir) -> Record:
    """What `config.yaml` says; nothing, of an older run or one of another trainer."""
    try:
        return identity(run)
    except SFTError:
        return {}


def reason(error: BaseException) -> str:
    """One line about an error of a library."""
    text = " ".join(printable(str(error)).split())
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text and not isinstance(error, SFTError) else text or name
