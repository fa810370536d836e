"""Trackers follow a run from its own files, each in a thread of its own.

The files are the queue. So an outage can neither stop nor slow training, memory is bounded, and
nothing is ever dropped: what a service did not get stays in the run folder, and goes on from its
place (`trackers/<name>.json`) with the next attempt, or with `sft track RUN --to NAME`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sft.config import Config, parse_yaml
from sft.errors import ConfigError, SFTError
from sft.runs.run_dir import RunDir
from sft.trackers import TRACKERS
from sft.trackers.base import Tracker, clean, tidy
from sft.trackers.installed import asked_for, need
from sft.trackers.place import Hold, Place, everything

WAIT = 5.0  # most seconds that the end of a run waits for all trackers together
POLL = 0.5  # seconds between evaluations for something new
LONGEST_PAUSE = 60.0  # seconds between two tries of a service that fails
ENDS = ("finished", "failed", "interrupted")  # kinds of events that end an attempt

Tell = Callable[[str], None]  # shows a warning


class Followers:
    """All trackers of one attempt at a run."""

    def __init__(self, run: RunDir, config: Config, tell: Tell) -> None:
        """Raises `ConfigError` where one of them cannot be used; starts nothing yet."""
        self._since = now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._make: Callable[[str], Follower] = lambda name: Follower(
            run, name, settings_of(run, config, name, since=now, wait=WAIT - 1), tell
        )
        self._names = asked_for(config)
        for name in self._names:
            with suppress(Exception, SystemExit):  # its follower will tell it
                TRACKERS[name]()  # loads its library: beside training that would slow steps
        if "alerts" in self._names:
            TRACKERS["alerts"]().start(run, settings_of(run, config, "alerts"), {})
        self._run = run
        self._tell = tell
        self._followers: list[Follower] = []

    def start(self) -> None:
        """Follow from now on. Call it after `metrics.jsonl` was cut back to the checkpoint."""
        self._start(self._names)

    def finish(self, *, failed: bool) -> None:
        """Wait, at most `WAIT` seconds, until everything is sent, and tell what is not."""
        if failed and not self._followers and self._told_anything():  # before the first step
            self._start([name for name in self._names if name == "alerts"])
        for follower in self._followers:
            follower.end()
        deadline = time.monotonic() + WAIT
        for follower in self._followers:
            follower.join(max(0.0, deadline - time.monotonic()))
        for follower in self._followers:
            left = follower.give_up()
            if left:
                self._tell(left)

    def _told_anything(self) -> bool:
        """Whether this attempt left a trace; one that was refused must not get one by us."""
        return any(str(e.get("time", "")) >= self._since for e in everything(self._run.events))

    def _start(self, names: list[str]) -> None:
        for name in names:
            follower = self._make(name)
            try:
                follower.start()
            except RuntimeError as error:  # no more threads
                self._tell(f"{name}: {error}")
            else:
                self._followers.append(follower)


@contextmanager
def follow(run: RunDir, config: Config, tell: Tell) -> Iterator[Followers]:
    """Trackers that follow the run from `start` on, and are told how it ended after the block.

    Raises:
        ConfigError: a tracker is asked for that is not installed, or an alert cannot be sent.
    """
    followers = Followers(run, config, tell)
    try:
        yield followers
    except BaseException:
        followers.finish(failed=True)
        raise
    followers.finish(failed=False)


class Follower(threading.Thread):
    """One tracker. What it raises is told once, and tried again with growing pauses."""

    def __init__(self, run: RunDir, name: str, settings: Mapping[str, Any], tell: Tell) -> None:
        super().__init__(name=f"sft-{name}", daemon=True)
        self._run, self._settings, self._tell = run, settings, tell
        self._what = name
        self._ending, self._done, self._given_up = threading.Event(), False, False
        self._lock = threading.Lock()
        self._hold: Hold | None = None
        self._tracker: Tracker | None = None
        self._handed_over = False
        self._problem = ""
        self._pause = 0.5

    def run(self) -> None:
        """Send until the end; the body of the thread."""
        while not self._given_up and not self._done:
            try:
                self._session()
            except (Exception, SystemExit) as error:
                self._warn(error)
                self._wait()
            finally:
                self._release()

    def end(self) -> None:
        """Nothing more will be written: send what there is, and finish."""
        self._ending.set()

    def give_up(self) -> str | None:
        """Stop following. A sentence about what was not sent, or None when all was."""
        with self._lock:  # from here on the thread keeps no place any more
            self._given_up = True
        if self._done:
            return None
        if self._tracker is not None:
            with suppress(Exception):
                self._tracker.abandon()
        self._release()
        return self._left()

    def _session(self) -> None:
        hold = self._hold = Hold(self._run, self._what)
        place = Place(self._run, self._what)
        tracker = self._tracker = TRACKERS[self._what]()
        tracker.start(self._run, self._settings, place.state)
        self._keep(place.confirm)
        while not self._given_up and self._hold is hold:
            ending = self._ending.is_set()  # asked first: what was written before it is seen
            if self._pass_on(tracker, place):
                self._pause = 0.5
            elif ending:
                status, summary = ending_of(self._run)
                tracker.finish(status, summary)
                self._keep(partial(place.confirm, status))
                self._done = True
                return
            else:
                self._ending.wait(POLL)

    def _pass_on(self, tracker: Tracker, place: Place) -> bool:
        records = place.new_records()
        if records:
            tracker.record(records)
            self._handed_over = True
            if tracker.confirms:
                self._keep(place.confirm)
        return pass_events(tracker, place, self._keep) or bool(records)

    def _keep(self, confirm: Callable[[], None]) -> None:
        with self._lock:
            if not self._given_up:
                confirm()

    def _release(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.release()

    def _warn(self, error: BaseException) -> None:
        first, self._problem = not self._problem, reason(error)
        if first and not self._ending.is_set():  # at the end `give_up` tells it
            with suppress(Exception):
                self._tell(f"{self._what}: {self._problem}; training goes on, retrying")

    def _wait(self) -> None:
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if self._ending.wait(self._pause):
            time.sleep(0.5)  # the end is near: again soon, but not in a hurry

    def _left(self) -> str:
        later = f"`sft track {self._run.path} --to {self._what}`"
        why = f" ({self._problem})" if self._problem else ""
        count = unsent(self._run, self._what, self._settings)
        thing, to = ("alert", "") if self._what == "alerts" else ("record", f" to {self._what}")
        counted = f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
        if not count:
            return f"{self._what} was not told how the run ended{why}; {later} tells it"
        if self._tracker is not None and self._handed_over and not self._tracker.confirms:
            missing = f"{later} sends what is missing"
            return f"{counted} may not have reached {self._what}{why}; {missing}"
        was, them = ("was", "it") if count == 1 else ("were", "them")
        return f"{counted} {was} not sent{to}{why}; {later} sends {them}"


def send(run: RunDir, name: str, config: Config) -> int:
    """Send what was not sent of a run, finished or not. Returns the number of records (or alerts).

    Raises:
        ConfigError: there is no such tracker, or its library is missing.
        SFTError: the service failed; what it had taken by then is not sent again.
    """
    need(name)
    if name == "alerts" and name not in asked_for(config):
        raise ConfigError(f"{run.path}: has neither alerts.webhook nor alerts.command")
    hold = Hold(run, name)
    try:
        settings = settings_of(run, config, name)
        count = unsent(run, name, settings)
        place, (status, summary) = Place(run, name), ending_of(run)
        if not count and place.ended == status:
            return 0
        tracker = TRACKERS[name]()
        try:
            tracker.start(run, settings, place.state)
            place.confirm()
            while records := place.new_records():
                tracker.record(records)
                if tracker.confirms:
                    place.confirm()
            pass_events(tracker, place, lambda confirm: confirm())
            tracker.finish(status, summary)
        except SFTError:
            raise
        except (Exception, SystemExit) as error:
            left = unsent(run, name, settings)
            raise SFTError(
                f"{name}: {reason(error)}; {count - left:,} of {count:,} were sent; "
                "the same command goes on"
            ) from error
        place.confirm(status)
        return count
    finally:
        hold.release()


def pass_events(tracker: Tracker, place: Place, keep: Callable[[Callable[[], None]], None]) -> bool:
    """Hand over all new events; True when there were some. After an error none comes twice."""
    found = False
    for start, events in place.new_events():
        found = True
        for number, event in enumerate(events):
            try:
                tracker.event(tidy(event))
            except BaseException:
                place.back_to(start, number)
                keep(place.confirm_events)
                raise
        keep(place.confirm_events)
    return found


def unsent(run: RunDir, name: str, settings: Mapping[str, Any]) -> int:
    """How many records (or alerts) the service has not confirmed; a count beyond 100,000 ends."""
    place = Place(run, name)
    if name == "alerts":
        kinds = settings["alerts"]["on"]
        since = place.state.get("since") or settings["since"] or ""
        return sum(
            event.get("kind") in kinds and str(event.get("time", "")) >= since
            for _, events in place.new_events()
            for event in events
        )
    count = 0
    while count < 100_000 and (records := place.new_records()):
        count += len(records)
    return count


def ending_of(run: RunDir) -> tuple[str, dict[str, Any] | None]:
    """How the newest attempt ended, and the summary of a finished run."""
    status = None
    for event in everything(run.events):
        if event.get("kind") == "started":
            status = None
        elif event.get("kind") in ENDS:
            status = str(event["kind"])
    try:
        summary = json.loads(run.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        summary = None
    if status is None:
        status = "finished" if isinstance(summary, dict) else _without_events(run)
    return status, summary if status == "finished" and isinstance(summary, dict) else None


def _without_events(run: RunDir) -> str:
    """A lock that was left filled belongs to an attempt that goes on, or was killed."""
    with suppress(OSError):
        return "running" if run.lock.stat().st_size else "interrupted"
    return "interrupted"


def settings_of(
    run: RunDir, config: Config, name: str, since: str | None = None, wait: float | None = None
) -> dict[str, Any]:
    """What a tracker is started with, see `Tracker.start`."""
    return {
        "project": config.trackers.project,
        "name": clean(config.trackers.name or run.path.resolve().name),
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
            clean(f"{section}.{key}"): clean(value) if isinstance(value, str) else value
            for section, values in sections.items()
            if section not in ("trackers", "alerts")
            for key, value in values.items()
        }
    except (OSError, ValueError, SFTError, KeyError, TypeError, AttributeError):
        return {}  # an older run, or one of another trainer


def reason(error: BaseException) -> str:
    """One line about an error of a library."""
    text = " ".join(clean(str(error)).split())
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text and not isinstance(error, SFTError) else text or name
