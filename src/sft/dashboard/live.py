"""What is new in the runs, sent to pages as it is written: server-sent events.

One thread looks at the sizes of the files of every run that somebody watches; however many pages
there are, the files are looked at once, and what is new is read once for all that are up to date.
A page asks for the next message only when it has taken the last one, so a slow page holds one
message, and reads on from its own place when it is ready.

Each message carries as its id the place behind it (`cursor.Cursor`). A browser that reconnects
says the last id it has heard, so nothing is lost and nothing comes twice, also over a restart of
the server: it keeps nothing that the files do not hold.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from sft.dashboard.cursor import Cursor, followed
from sft.dashboard.folders import Folders, refusal
from sft.runs.files import plain
from sft.runs.jsonl import Tail
from sft.runs.run_dir import RunDir
from sft.runs.state import RunState, run_state

T = TypeVar("T")
Messages = AsyncGenerator[bytes, None]

POLL = 0.2  # seconds between two looks at the sizes of the files
STATE_LOOK = 1.0  # seconds between two looks at what a run is doing
SAID_AGAIN = 5.0  # seconds after which it is told although it did not change
MOST_RECORDS = 500  # in a message
_MOST_HELD = 8  # messages that are kept for other pages
_ROWS_SHARE = 0.05  # of the time, at most, goes into looking at the list of runs
_RETRY = b"retry: 1000\n\n"


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next message of a reader, which may be empty, and its place behind it."""

    cursor: Cursor
    message: bytes


class Source(Protocol):
    """Something that is watched: `poll` looks whether it changed, `listeners` are told."""

    listeners: set[asyncio.Event]

    def poll(self, now: float) -> bool:
        """Did anything change? `now` is monotonic, in seconds."""
        ...


class RunFeed:
    """What is new in one run, for all that listen to it."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.listeners: set[asyncio.Event] = set()
        self.state = b""  # the newest message about what the run is doing,
        self.number = 0  # and how many there were
        self._said: RunState | None = None
        self._said_at = self._looked_at = float("-inf")
        self._sizes: tuple[int, ...] = ()
        self._held: OrderedDict[Cursor, Chunk] = OrderedDict()
        self._lock = threading.Lock()

    def poll(self, now: float) -> bool:
        """Look at the sizes of the files, and now and then at what the run is doing."""
        sizes = tuple(_size(path) for path in followed(self.run))
        changed = sizes != self._sizes
        self._sizes = sizes
        if now - self._looked_at >= STATE_LOOK:
            self._looked_at = now
            changed |= self._eval(now)
        return changed

    def _eval(self, now: float) -> bool:
        """Say what the run is doing, when that changed or was not said for a while."""
        reason = refusal(self.run.path)
        state = _unknown(reason) if reason else run_state(self.run)
        if state == self._said and now - self._said_at < SAID_AGAIN:
            return False
        self._said, self._said_at = state, now
        self.state = message("state", plain(asdict(state)))
        self.number += 1
        return True

    def may_have(self, cursor: Cursor) -> bool:
        """Is there anything behind `cursor`? Told from the last `poll`, without reading."""
        offsets = (cursor.metrics, cursor.events, cursor.findings, cursor.samples)
        return offsets != self._sizes

    def read(self, cursor: Cursor) -> Chunk | None:
        """What follows `cursor`; None when nothing does. Blocks; for any thread."""
        with self._lock:
            if cursor in self._held:
                return self._held[cursor]
            if refusal(self.run.path):
                return None
            if not cursor.fits(self.run):
                return self._reset("the records were cut back")
            return self._read(cursor)

    def _read(self, cursor: Cursor) -> Chunk | None:
        offsets = (cursor.metrics, cursor.events, cursor.findings, cursor.samples)
        tails = [
            Tail(path, offset) for path, offset in zip(followed(self.run), offsets, strict=True)
        ]
        left, new = MOST_RECORDS, []
        for tail in tails:
            records = tail.read(left) if left > 0 else []
            left -= len(records)
            new.append(records)
        if any(tail.was_cut for tail in tails):
            return self._reset("the records were cut back")
        metrics, events, findings, samples = new
        # Who has seen nothing yet has nothing to forget.
        if cursor != Cursor() and any(event.get("kind") == "resumed" for event in events):
            return self._reset("the run was resumed")
        behind = Cursor(*(tail.offset for tail in tails))
        if behind == cursor:
            return None
        parts = {
            "steps": [record for record in metrics if "loss" in record],
            "evaluations": [record for record in metrics if "loss" not in record],
            "events": events,
            "findings": findings,
            "samples": samples,
        }
        told = message("records", parts, str(behind)) if any(parts.values()) else b""
        chunk = self._held[cursor] = Chunk(behind, told)
        while len(self._held) > _MOST_HELD:
            self._held.popitem(last=False)
        return chunk

    def _reset(self, reason: str) -> Chunk:
        """The page has to forget its records, and load what there is now."""
        self._held.clear()  # places that are none any more
        end = Cursor.at_end(self.run)
        return Chunk(end, message("reset", {"reason": reason, "cursor": str(end)}, str(end)))


class RowsFeed:
    """The list of all runs."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.listeners: set[asyncio.Event] = set()
        self.rows = b""  # the newest message,
        self.number = 0  # and how many there were
        self._next = self._said_at = float("-inf")

    def poll(self, now: float) -> bool:
        """Look at all runs, once a second; less often where that takes long."""
        if now < self._next:
            return False
        began = time.monotonic()
        rows = message("runs", {"runs": self.folders.rows()})
        took = time.monotonic() - began
        self._next = now + min(max(1.0, took / _ROWS_SHARE), 10.0)
        if rows == self.rows and now - self._said_at < SAID_AGAIN:
            return False
        self.rows, self._said_at = rows, now
        self.number += 1
        return True


class Watcher:
    """The thread that looks at everything that has listeners, and at nothing else."""

    def __init__(self, folders: Folders, log: Callable[[str], None]) -> None:
        self._folders = folders
        self._log = log
        self._feeds: dict[str, Any] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = Threads(2)
        self._streams: set[asyncio.Task[None]] = set()

    @property
    def num_streams(self) -> int:
        """Pages that are connected."""
        return len(self._streams)

    async def run_messages(self, run: RunDir, cursor: Cursor) -> Messages:
        """The messages of a page that watches one run, from `cursor` on, without end."""
        feed: RunFeed = self._feed(str(run.path), lambda: RunFeed(run))
        with _Listening(self, str(run.path), feed) as woken:
            yield _RETRY
            said = 0
            while True:
                woken.clear()
                if feed.number != said:
                    said = feed.number
                    yield feed.state
                chunk = None
                if feed.may_have(cursor):
                    chunk = await self._threads.run(feed.read, cursor)
                if chunk is None:
                    await woken.wait()
                else:
                    cursor = chunk.cursor
                    yield chunk.message

    async def rows_messages(self) -> Messages:
        """The messages of a page that watches the list of runs, without end."""
        feed: RowsFeed = self._feed("", lambda: RowsFeed(self._folders))
        with _Listening(self, "", feed) as woken:
            yield _RETRY
            said = 0
            while True:
                woken.clear()
                if feed.number != said:
                    said = feed.number
                    yield feed.rows
                await woken.wait()

    async def send(self, messages: Messages, write: Callable[[bytes], Any]) -> None:
        """Write all messages, until the page is gone, which cancels this, or `stop` is called."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            async with aclosing(messages):
                async for text in messages:
                    if text:
                        await write(text)
        finally:
            self._streams.discard(task)

    def stop(self) -> None:
        """End all streams, and the thread."""
        self._ended.set()
        for task in list(self._streams):
            task.cancel()

    def drop(self, name: str) -> None:
        """Look at something no more."""
        self._feeds = {key: feed for key, feed in self._feeds.items() if key != name}

    def _feed(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._feeds:
            # A new dictionary: the thread may be going through the old one.
            self._feeds = {**self._feeds, name: make()}
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, name="watcher", daemon=True)
            self._thread.start()
        return self._feeds[name]

    def _work(self) -> None:
        while not self._ended.wait(POLL):
            for feed in self._feeds.values():
                try:
                    changed = feed.poll(time.monotonic())
                except Exception as error:  # one odd run must not silence the others
                    self._log(f"looking for what is new: {type(error).__name__}: {error}")
                    continue
                if changed and self._loop is not None:
                    with suppress(RuntimeError):  # the loop has ended
                        self._loop.call_soon_threadsafe(_wake, feed)


class _Listening:
    """Being one of the listeners of a feed, which is dropped when the last one leaves."""

    def __init__(self, watcher: Watcher, name: str, feed: Source) -> None:
        self._watcher, self._name, self._feed = watcher, name, feed
        self._woken = asyncio.Event()

    def __enter__(self) -> asyncio.Event:
        self._feed.listeners.add(self._woken)
        return self._woken

    def __exit__(self, *_error: object) -> None:
        self._feed.listeners.discard(self._woken)
        if not self._feed.listeners:
            self._watcher.drop(self._name)


class Threads:
    """Blocking work beside the event loop, at most `most` pieces at once.

    The threads are daemons, unlike those of the standard library's executor: a long answer must
    not hold back the end of the process.
    """

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """What `function(*args)` returns or raises."""
        async with self._free:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[tuple[Any, Exception | None]] = loop.create_future()

            def finish(value: Any, error: Exception | None) -> None:
                if not done.done():
                    done.set_result((value, error))

            def work() -> None:
                value, failed = None, None
                try:
                    value = function(*args)
                except Exception as error:
                    failed = error
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(finish, value, failed)

            threading.Thread(target=work, daemon=True).start()
            value, error = await done
        if error is not None:
            raise error
        result: T = value
        return result


def message(event: str, data: Any, cursor: str = "") -> bytes:
    """One server-sent event. JSON holds no line break, so one `data` line is enough."""
    head = f"id: {cursor}\n" if cursor else ""
    return f"{head}event: {event}\ndata: ".encode() + json_bytes(data) + b"\n\n"


def json_bytes(value: Any) -> bytes:
    """`value` as JSON that browsers read: a NaN, which is no JSON, becomes null."""
    try:
        text = _json(value)
    except (ValueError, TypeError):
        text = _json(plain(value))
    return text.encode("utf-8", "replace")


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _wake(feed: Source) -> None:
    for woken in feed.listeners:
        woken.set()


def _unknown(reason: str) -> RunState:
    return RunState("unknown", f"not served: {reason}", None, None, None, None, None)


def _size(path: os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
