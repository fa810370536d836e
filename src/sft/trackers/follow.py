"""Trackers follow a run from its own files, each in a thread of its own.

The files are the queue. So an outage can neither stop nor slow training, memory is bounded, and
nothing is ever dropped: what a service did not get stays in the run folder, and goes on from there
(`trackers/<label>.json`) with the next attempt, or with `sft track RUN --to NAME`.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from sft.config import Config
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.texts.numbers import counted
from sft.trackers import TRACKERS
from sft.trackers.installed import asked_for, label, maker
from sft.trackers.session import Session, reason, start_settings, unsent

WAIT = 5.0  # most seconds that the end of a run waits for all trackers together
POLL = 0.5  # seconds between two searches for something new
LONGEST_PAUSE = 60.0  # seconds between two tries of a service that fails


class Followers:
    """All trackers of one attempt at a run.

    They follow it from `start` on, and learn how it ended after the `with` block.
    """

    def __init__(self, run: RunDir, config: Config, warn: Callable[[str], None]) -> None:
        """Start nothing yet.

        Raises:
            ConfigError: a tracker is asked for that cannot be used, or an alert cannot be sent.
        """
        self._run, self._config, self._warn = run, config, warn
        self._since = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._names = asked_for(config)
        for name in self._names:
            with suppress(Exception, SystemExit):  # its follower will warn of it
                maker(name)()  # loads its library: beside training that would slow steps
        if "alerts" in self._names:
            TRACKERS["alerts"]().start(run, start_settings(run, config, "alerts"), {})
        self._followers: list[Follower] = []

    def start(self) -> None:
        """Follow from now on. Call it after `metrics.jsonl` was cut back to the checkpoint."""
        self._start(self._names)

    def __enter__(self) -> Followers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        """Wait, at most `WAIT` seconds, until everything is sent, and warn of what is not."""
        if kind and not self._followers and self._left_a_trace():  # it failed before the first step
            self._start([name for name in self._names if name == "alerts"])
        for follower in self._followers:
            follower.end()
        deadline = time.monotonic() + WAIT
        for follower in self._followers:
            follower.join(max(0.0, deadline - time.monotonic()))
        for follower in self._followers:
            if not_sent := follower.give_up():
                self._warn(not_sent)

    def _left_a_trace(self) -> bool:
        """Whether this attempt wrote anything; one that was refused must not write through us."""
        return any(str(e.get("time", "")) >= self._since for e in each_record(self._run.events))

    def _start(self, names: list[str]) -> None:
        for name in names:
            settings = start_settings(self._run, self._config, name, self._since, WAIT - 1)
            follower = Follower(self._run, name, settings, self._warn)
            try:
                follower.start()
            except RuntimeError as error:  # no more threads
                self._warn(f"{label(name)}: {error}")
            else:
                self._followers.append(follower)


class Follower(threading.Thread):
    """One tracker. What it raises is warned of once, and tried again with growing pauses."""

    def __init__(
        self, run: RunDir, name: str, settings: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        super().__init__(name=f"sft-{label(name)}", daemon=True)
        self._run, self._tracker, self._settings, self._warn = run, name, settings, warn
        self._ending, self._done, self._given_up = threading.Event(), False, False
        self._session: Session | None = None
        self._problem = ""
        self._pause = 0.5

    def run(self) -> None:
        """Send until the end; the body of the thread."""
        while not self._given_up and not self._done:
            try:
                self._send()
            except (Exception, SystemExit) as error:
                first, self._problem = not self._problem, reason(error)
                if first and not self._ending.is_set():  # at the end `give_up` says it
                    text = f"{label(self._tracker)}: {self._problem}; training goes on, retrying"
                    with suppress(Exception):
                        self._warn(text)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                if self._ending.wait(self._pause):
                    time.sleep(0.5)  # the end is near: again soon, but not in a hurry

    def end(self) -> None:
        """Nothing more will be written: send what there is, and finish."""
        self._ending.set()

    def give_up(self) -> str | None:
        """Stop following. A sentence about what was not sent, or None when all was."""
        self._given_up = True
        session = self._session
        if session is not None:
            session.close()
            with suppress(Exception):
                if not self._done:
                    session.tracker.abandon()
        return None if self._done else self._not_sent()

    def _send(self) -> None:
        session = self._session = Session(self._run, self._tracker, self._settings)
        try:
            session.start()
            while not self._given_up:
                ending = self._ending.is_set()  # asked first: what was written before it is seen
                if session.send_new():
                    self._pause = 0.5
                elif ending:
                    session.finish()
                    self._done = True
                    return
                else:
                    self._ending.wait(POLL)
        finally:
            session.close()

    def _not_sent(self) -> str:
        name, session = label(self._tracker), self._session
        later = f"`sft track {self._run.path} --to {shlex.quote(self._tracker)}`"
        why = f" ({self._problem})" if self._problem else ""
        count = unsent(self._run, self._tracker, self._settings)
        alerts = name == "alerts"
        things = counted(count, "alert" if alerts else "record")
        if not count:
            return f"{name} does not know how the run ended{why}; {later} reports it"
        if session and session.handed_over and not session.tracker.confirms:
            return f"{things} may not have reached {name}{why}; {later} sends what is missing"
        was, them = ("was", "it") if count == 1 else ("were", "them")
        to = "" if alerts else f" to {name}"
        return f"{things} {was} not sent{to}{why}; {later} sends {them}"
