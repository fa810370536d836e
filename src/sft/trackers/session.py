"""One tracker at one run: what is new is handed over, and what arrived is remembered."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from sft.config import Config, parse_yaml
from sft.errors import ConfigError, SFTError
from sft.runs.run_dir import RunDir
from sft.runs.state import ending_of
from sft.texts.safe import printable
from sft.trackers.base import Tracker, printable_event
from sft.trackers.installed import label, maker
from sft.trackers.position import Position

ENDS = ("finished", "failed", "interrupted")  # kinds of events that end an attempt


class Session:
    """From `start` to `finish`. Only one process at a time may have one with a tracker and a run.

    Whoever calls `close` from another thread ends it: from then on no position is saved.
    """

    def __init__(self, run: RunDir, name: str, settings: Mapping[str, Any]) -> None:
        """Raises `ConfigError` where another process has one, or there is no such tracker."""
        self._run, self._settings = run, settings
        self._saving = threading.Lock()
        self._open = True
        self._lock = _lock(run, name)
        self.handed_over = False
        self.tracker: Tracker | None = None
        try:
            self._position = Position(run, label(name))
            self.tracker = maker(name)()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Connect."""
        assert self.tracker is not None
        self.tracker.start(self._run, self._settings, self._position.state)
        self._save(self._position.confirm)

    def send_new(self) -> bool:
        """Hand over a batch of records and all events that are new; False when there were none."""
        assert self.tracker is not None
        records = self._position.new_records()
        if records:
            self.tracker.record(records)
            self.handed_over = True
            if self.tracker.confirms:
                self._save(self._position.confirm)
        return self._send_events(self.tracker) or bool(records)

    def _send_events(self, tracker: Tracker) -> bool:
        """After an error none comes twice."""
        any_new = False
        for start, events in self._position.new_events():
            any_new = True
            for number, event in enumerate(events):
                try:
                    tracker.event(printable_event(event))
                except BaseException:
                    self._position.back_to(start, number)
                    self._save(self._position.confirm_events)
                    raise
            self._save(self._position.confirm_events)
        return any_new

    def finish(self) -> None:
        """Say how the run ended."""
        assert self.tracker is not None
        status, summary = ending_of(self._run)
        self.tracker.finish(status, summary)
        self._save(partial(self._position.confirm, status))

    def close(self) -> None:
        """Let others send. May be called twice."""
        with self._saving:
            self._open = False
            lock, self._lock = self._lock, -1
        with suppress(OSError):
            os.close(lock)

    def _save(self, confirm: Callable[[], None]) -> None:
        with self._saving:
            if self._open:
                confirm()


def _lock(run: RunDir, name: str) -> int:
    """The open file `trackers/<label>.lock`, locked until it is closed."""
    run.trackers.mkdir(exist_ok=True)
    path = run.trackers / f"{label(name)}.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if not isinstance(error, BlockingIOError):
            raise
        raise ConfigError(f"{run.path}: is being sent to {name} by another process") from None
    return file


def send(run: RunDir, name: str, config: Config) -> int:
    """Send what was not sent of a run, finished or not. Returns the number of records (or alerts).

    Raises:
        ConfigError: there is no such tracker, or its library is missing.
        SFTError: the service failed; what it had taken by then is not sent again.
    """
    maker(name)
    if name == "alerts" and not (config.alerts.webhook or config.alerts.command):
        raise ConfigError(f"{run.path}: has neither alerts.webhook nor alerts.command")
    settings = settings_of(run, config, name)
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


def settings_of(
    run: RunDir, config: Config, name: str, since: str | None = None, wait: float | None = None
) -> dict[str, Any]:
    """What a tracker is started with, see `Tracker.start`."""
    return {
        "project": config.trackers.project,
        "name": printable(config.trackers.name or run.path.resolve().name),
        "settings": flat_settings(run),
        "alerts": config.alerts.model_dump(mode="json") if name == "alerts" else {},
        "since": since,
        "wait": wait,
    }


def flat_settings(run: RunDir) -> dict[str, Any]:
    """The settings of the run by dotted key, from `config.yaml`; not those that hold secrets."""
    try:
        saved = parse_yaml(run.config.read_text(encoding="utf-8"), str(run.config))
        sections = saved["config"]
        return {
            printable(f"{section}.{key}"): printable(value) if isinstance(value, str) else value
            for section, values in sections.items()
            if section not in ("trackers", "alerts")
            for key, value in values.items()
        }
    except (OSError, ValueError, SFTError, KeyError, TypeError, AttributeError):
        return {}  # an older run, or one of another trainer


def reason(error: BaseException) -> str:
    """One line about an error of a library."""
    text = " ".join(printable(str(error)).split())
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text and not isinstance(error, SFTError) else text or name
