"""What is new in the runs, sent to pages as it is written: server-sent events.

One thread polls the sizes of the files of every run that somebody watches; however many pages there
are, each file is polled once, and what is new is read once for all pages that are up to date.
A page asks for the next message only when it has taken the last one, so a slow page holds one
message, and reads on from its own place when it is ready.

Each message carries as its id the place behind it (`cursor.Cursor`). A browser that reconnects
sends the last id it has heard, so nothing is lost and nothing comes twice, also over a restart of
the server: it keeps nothing that the files do not hold.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

from sft.dashboard.cursor import Cursor, followed
from sft.dashboard.folders import Folders, refusal
from sft.runs.files import plain, stamp
from sft.runs.jsonl import Tail
from sft.runs.run_dir import RunDir
from sft.runs.state import RunState, run_state

T = TypeVar("T")
Messages = AsyncGenerator[bytes, None]

POLL = 0.2  # seconds between two polls of the sizes of the files
STATE_POLL = 1.0  # seconds between two polls of what a run is doing
REPEAT = 5.0  # seconds after which a headline is sent although it did not change
MOST_RECORDS = 500  # in a message
_MOST_CHUNKS = 8  # messages that are kept for other pages
_ROWS_SHARE = 0.05  # of the time, at most, goes into listing the runs
_RETRY = b"retry: 1000\n\n"


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next message of a reader, which may be empty, and its place behind it."""

    cursor: Cursor
    message: bytes


class Feed:
    """Something that pages watch: a headline that is replaced, and records that are added."""

    def __init__(self) -> None:
        self.listeners: set[asyncio.Event] = set()
        self.headline = b""  # the newest message about the whole,
        self.number = 0  # and how many there were
        self._sent_at = float("-inf")

    def poll(self, now: float) -> bool:
        """Did anything change? `now` is monotonic, in seconds."""
        raise NotImplementedError

    def may_have(self, cursor: Cursor) -> bool:
        """Is there anything behind `cursor`? Told from the last `poll`, without reading."""
        return False

    def read(self, cursor: Cursor) -> Chunk | None:
        """What follows `cursor`; None when nothing does. Blocks; for any thread."""
        return None

    def _replace(self, event: str, value: Any, now: float) -> bool:
        """Make `value` the headline, when it changed or was not sent for a while."""
        headline = message(event, value)
        if headline == self.headline and now - self._sent_at < REPEAT:
            return False
        self.headline, self._sent_at = headline, now
        self.number += 1
        return True


class RunFeed(Feed):
    """What is new in one run; its headline is what the run is doing."""

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        self._polled_at = float("-inf")
        self._sizes: tuple[int, ...] = ()
        self._chunks: OrderedDict[Cursor, Chunk] = OrderedDict()
        self._lock = threading.Lock()

    def poll(self, now: float) -> bool:
        """Compare the sizes of the files, and now and then what the run is doing."""
        stamps = [stamp(path) for path in followed(self.run)]
        sizes = tuple(status[0] if status else 0 for status in stamps)
        changed = sizes != self._sizes
        self._sizes = sizes
        if now - self._polled_at >= STATE_POLL:
            self._polled_at = now
            reason = refusal(self.run.path)
            refused = RunState("unknown", f"not served: {reason}")
            state = refused if reason else run_state(self.run)
            changed |= self._replace("state", plain(asdict(state)), now)
        return changed

    def may_have(self, cursor: Cursor) -> bool:
        """See `Feed.may_have`."""
        return cursor != self._sizes

    def read(self, cursor: Cursor) -> Chunk | None:
        """What follows `cursor`; None when nothing does. Blocks; for any thread."""
        with self._lock:
            if cursor in self._chunks:
                return self._chunks[cursor]
            if refusal(self.run.path):
                return None
            if not cursor.fits(self.run):
                return self._reset("the records were cut back")
            return self._read(cursor)

    def _read(self, cursor: Cursor) -> Chunk | None:
        tails = [Tail(*place) for place in zip(followed(self.run), cursor, strict=True)]
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
        text = message("records", parts, str(behind)) if any(parts.values()) else b""
        chunk = self._chunks[cursor] = Chunk(behind, text)
        while len(self._chunks) > _MOST_CHUNKS:
            self._chunks.popitem(last=False)
        return chunk

    def _reset(self, reason: str) -> Chunk:
        """The page has to forget its records, and load what there is now."""
        self._chunks.clear()  # places that are none any more
        end = Cursor.at_end(self.run)
        return Chunk(end, message("reset", {"reason": reason, "cursor": str(end)}, str(end)))


class RowsFeed(Feed):
    """The list of all runs, which is all headline."""

    def __init__(self, folders: Folders) -> None:
        super().__init__()
        self.folders = folders
        self._next = float("-inf")

    def poll(self, now: float) -> bool:
        """List all runs, once a second; less often where that takes long."""
        if now < self._next:
            return False
        began = time.monotonic()
        rows = self.folders.rows()
        took = time.monotonic() - began
        self._next = now + min(max(1.0, took / _ROWS_SHARE), 10.0)
        return self._replace("runs", {"runs": rows}, now)


class Watcher:
    """The thread that polls everything that has listeners, and nothing else."""

    def __init__(self, folders: Folders, log: Callable[[str], None]) -> None:
        self._folders = folders
        self._log = log
        self._feeds: dict[str, Feed] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = Threads(2)
        self._streams: set[asyncio.Task[None]] = set()

    @property
    def num_streams(self) -> int:
        """Pages that are connected."""
        return len(self._streams)

    def run_messages(self, run: RunDir, cursor: Cursor) -> Messages:
        """The messages of a page that watches one run, from `cursor` on, without end."""
        return self._messages(str(run.path), lambda: RunFeed(run), cursor)

    def rows_messages(self) -> Messages:
        """The messages of a page that watches the list of runs, without end."""
        return self._messages("", lambda: RowsFeed(self._folders), Cursor())

    async def _messages(self, name: str, make: Callable[[], Feed], cursor: Cursor) -> Messages:
        with self._listening(name, make) as (feed, woken):
            yield _RETRY
            sent = 0
            while True:
                woken.clear()
                if feed.number != sent:
                    sent = feed.number
                    yield feed.headline
                chunk = None
                if feed.may_have(cursor):
                    chunk = await self._threads.run(feed.read, cursor)
                if chunk is None:
                    await woken.wait()
                else:
                    cursor = chunk.cursor
                    yield chunk.message

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

    @contextmanager
    def _listening(
        self, name: str, make: Callable[[], Feed]
    ) -> Iterator[tuple[Feed, asyncio.Event]]:
        """One listener of the feed `name`, which is dropped when the last one leaves."""
        if name not in self._feeds:
            # A new dictionary: the thread may be going through the old one.
            self._feeds = {**self._feeds, name: make()}
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, name="watcher", daemon=True)
            self._thread.start()
        feed, woken = self._feeds[name], asyncio.Event()
        feed.listeners.add(woken)
        try:
            yield feed, woken
        finally:
            feed.listeners.discard(woken)
            if not feed.listeners:
                self._feeds = {key: other for key, other in self._feeds.items() if key != name}

    def _work(self) -> None:
        while not self._ended.wait(POLL):
            for feed in self._feeds.values():
                try:
                    changed = feed.poll(time.monotonic())
                except Exception as error:  # one odd run must not silence the others
                    self._log(f"polling for what is new: {type(error).__name__}: {error}")
                    continue
                if changed and self._loop is not None:
                    with suppress(RuntimeError):  # the loop has ended
                        self._loop.call_soon_threadsafe(_wake, feed)


class Threads:
    """Blocking work beside the event loop, at most `most` pieces at once.

    The threads are daemons, unlike those of the standard library's executor: a long answer must
    not hold back the end of the process.
    """

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """What `function(*args)` returns or raises."""
        future: Future[T] = Future()

        def work() -> None:
            future.set_running_or_notify_cancel()
            try:
                future.set_result(function(*args))
            except StopIteration as error:  # which no future can carry
                future.set_exception(RuntimeError(error))
            except Exception as error:
                future.set_exception(error)

        async with self._free:
            threading.Thread(target=work, daemon=True).start()
            return await asyncio.wrap_future(future)


def message(event: str, data: Any, cursor: str = "") -> bytes:
    """One server-sent event. JSON holds no line break, so one `data` line is enough."""
    head = f"id: {cursor}\n" if cursor else ""
    return f"{head}event: {event}\ndata: ".encode() + json_bytes(data) + b"\n\n"


def json_bytes(value: Any) -> bytes:
    """`value` as JSON that browsers read: a NaN, which is no JSON, becomes null."""
    write = partial(json.dumps, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    try:
        text = write(value)
    except (ValueError, TypeError):
        text = write(plain(value))
    return text.encode("utf-8", "replace")


def _wake(feed: Feed) -> None:
    for woken in feed.listeners:
        woken.set()
