"""Each record once, in order, soon; over reconnects, restarts, and runs that are resumed."""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from served import Server, add, step_record, write_run
from sft.dashboard import live
from sft.dashboard.cursor import Cursor, line_end
from sft.dashboard.folders import Folders
from sft.dashboard.live import MOST_RECORDS, RowsFeed, RunFeed, Threads, Watcher, json_bytes
from sft.runs.index import run_id
from sft.runs.run_dir import RunDir

# Ten records for each line it is told, each written in two pieces.
WRITER = """
import json, sys, time
step = 3
with open(sys.argv[1], "a") as file:
    for _ in sys.stdin:
        for _ in range(10):
            step += 1
            line = json.dumps({"step": step, "loss": 1.0}) + "\\n"
            for part in (line[:9], line[9:]):
                file.write(part)
                file.flush()
                time.sleep(0.001)
"""


FINISHED = {"kind": "finished", "text": "", "time": "2026-01-01T00:00:09+00:00"}


@pytest.fixture
def run(tmp_path):
    return RunDir(write_run(tmp_path / "runs" / "a"))


def path_of(run, cursor=None):
    return f"/api/runs/{run_id(run.path)}/stream" + (f"?from={cursor}" if cursor else "")


def read_all(feed, cursor):
    """All messages behind `cursor`, as `(event, data)`, and the place behind them."""
    found = []
    while chunk := feed.read(cursor):
        cursor = chunk.cursor
        if chunk.message:
            fields = dict(line.split(": ", 1) for line in chunk.message.decode().splitlines()[:-1])
            assert Cursor.parse(fields["id"]) == cursor
            found.append((fields["event"], json.loads(fields["data"])))
    return found, cursor


def steps_in(messages):
    return [record["step"] for _, data in messages for record in data["steps"]]


# ------------------------------------------------------------------ places in files


def test_a_cursor_is_written_and_read():
    assert str(Cursor(1, 22, 0, 333)) == "1-22-0-333"
    assert Cursor.parse("1-22-0-333") == Cursor(1, 22, 0, 333)
    for text in (
        "",
        "1-2-3",
        "1-2-3-4-5",
        "-1-2-3-4",
        "1-2-3-x",
        "1-2-3-" + "9" * 16,
        "\u0661-1-1-1",
    ):
        with pytest.raises(ValueError, match="not a cursor"):
            Cursor.parse(text)


def test_the_end_of_the_lines_leaves_out_a_torn_one(tmp_path):
    path = tmp_path / "x"
    assert line_end(path) == 0
    for data, end in ((b"", 0), (b"torn", 0), (b"a\n", 2), (b"a\nb\ntorn", 4)):
        path.write_bytes(data)
        assert line_end(path) == end
    path.write_bytes(b"a\n" + b"x" * 200_000)
    assert line_end(path) == 2


def test_a_place_fits_only_behind_a_line(run):
    end = Cursor.at_end(run)
    assert end.metrics == run.metrics.stat().st_size
    assert end.fits(run) and Cursor().fits(run)
    assert not Cursor(end.metrics - 1).fits(run)
    assert not Cursor(end.metrics + 1).fits(run)
    assert not Cursor(0, 0, 7, 0).fits(run)  # there is no such file


# ------------------------------------------------------------------ what is new in a run


def test_all_kinds_of_records_are_told_once(run):
    feed = RunFeed(run)
    start = Cursor.at_end(run)
    add(run.metrics, step_record(4), {"step": 4, "val_loss": 1.0, "eval_seconds": 1.0})
    add(run.metrics, {"step": 4, "test_loss": 1.0})
    for path in (run.events, run.findings, run.samples):
        add(path, {"kind": path.name})
    ((event, data),), end = read_all(feed, start)
    assert event == "records"
    assert [record["step"] for record in data["steps"]] == [4]
    assert [set(record) - {"step"} for record in data["evaluations"]] == [
        {"val_loss", "eval_seconds"},
        {"test_loss"},
    ]
    names = {name: data[name][0]["kind"] for name in ("events", "findings", "samples")}
    assert names == {name: f"{name}.jsonl" for name in names}
    assert feed.read(end) is None
    assert end == Cursor.at_end(run)


def test_a_message_holds_only_so_many_records_and_none_of_a_torn_line(run):
    add(run.metrics, *(step_record(step) for step in range(4, 1203)))
    with open(run.metrics, "a") as file:
        file.write('{"step": 1203, "lo')
    add(run.samples, *({"id": number} for number in range(700)))
    messages, _ = read_all(RunFeed(run), Cursor())
    assert steps_in(messages) == list(range(1, 1203))
    samples = [record["id"] for _, data in messages for record in data["samples"]]
    assert samples == list(range(700))
    for _, data in messages:
        assert 0 < sum(map(len, data.values())) <= MOST_RECORDS


def test_lines_that_are_none_are_passed(run):
    start = Cursor.at_end(run)
    with open(run.metrics, "a") as file:
        file.write("nonsense\n[1]\n\n")
    assert read_all(RunFeed(run), start) == ([], Cursor.at_end(run))


def test_a_cut_back_file_and_a_resumed_run_reset_the_page(run):
    feed = RunFeed(run)
    old = Cursor.at_end(run)
    add(run.metrics, *(step_record(step) for step in range(4, 9)))
    messages, seen = read_all(feed, old)
    assert steps_in(messages) == [4, 5, 6, 7, 8]
    os.truncate(run.metrics, old.metrics)  # back to step 3
    ((event, data),), place = read_all(feed, seen)
    assert (event, data["reason"]) == ("reset", "the records were cut back")
    assert place == old == Cursor.parse(data["cursor"])
    add(run.events, {"kind": "resumed", "step": 3})
    add(run.metrics, *(step_record(step) for step in range(4, 20)))
    # It has grown past the old place meanwhile: the event tells, or the middle of a line.
    for stale in (seen, old, Cursor(seen.metrics - 1)):
        ((event, data),), place = read_all(feed, stale)
        assert (event, place) == ("reset", Cursor.at_end(run))
    add(run.metrics, step_record(20))
    assert steps_in(read_all(feed, place)[0]) == [20]
    # Who has seen nothing has nothing to forget.
    messages, _ = read_all(feed, Cursor())
    assert steps_in(messages) == list(range(1, 21))


def test_a_run_that_goes_away_and_one_that_must_not_be_read(run, tmp_path):
    feed = RunFeed(run)
    place = Cursor.at_end(run)
    run.metrics.unlink()
    ((event, _),), _ = read_all(feed, place)
    assert event == "reset"
    (tmp_path / "outside.jsonl").write_text(json.dumps(step_record(1, secret=1)) + "\n")
    run.metrics.symlink_to(tmp_path / "outside.jsonl")
    assert feed.read(Cursor()) is None
    assert feed.poll(time.monotonic())
    assert b"not served: metrics.jsonl leads out of the run folder" in feed.headline


def test_what_a_run_is_doing_is_told_when_it_changes_and_now_and_then(run):
    feed = RunFeed(run)
    assert feed.poll(0.0) and b'"interrupted"' in feed.headline
    assert not feed.poll(0.1) and not feed.poll(2.0)
    assert feed.poll(6.0)
    add(run.events, FINISHED)
    assert feed.poll(6.1) and b'"interrupted"' in feed.headline  # the files are polled more often
    assert feed.poll(7.5) and b'"finished"' in feed.headline


def test_pages_in_step_share_one_reading(run, monkeypatch):
    feed = RunFeed(run)
    opened = []
    place = Cursor.at_end(run)
    add(run.metrics, step_record(4))
    first = feed.read(place)
    monkeypatch.setattr(live, "Tail", lambda *arguments: opened.append(arguments))
    assert all(feed.read(place) is first for _ in range(20))
    assert opened == []


def test_the_list_is_told_when_it_changed(run):
    feed = RowsFeed(Folders([run.path.parent]))
    assert feed.poll(0.0) and b'"name":"a"' in feed.headline
    assert not feed.poll(0.5) and not feed.poll(2.0)
    add(run.metrics, step_record(4))
    assert feed.poll(4.0) and b'"step":4' in feed.headline
    assert not feed.poll(8.0) and feed.poll(10.0)  # said again, so that silence means a lost line


def test_json_is_that_of_browsers():
    assert (
        json_bytes({"a": float("nan"), "b": [1, "é\ud800"]}) == '{"a":null,"b":[1,"é?"]}'.encode()
    )
    assert b"\n" not in live.message("x", {"text": "a\n\ndata: b\r"})[:-2].partition(b"data")[2]


# ------------------------------------------------------------------ threads and slow pages


def test_work_in_threads_returns_raises_and_is_bounded():
    now, most = [0], [0]
    lock = threading.Lock()

    def work(number):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        if number == 3:
            raise StopIteration(number)
        return number

    async def main():
        threads = Threads(2)
        return await asyncio.gather(
            *(threads.run(work, number) for number in range(6)), return_exceptions=True
        )

    found = asyncio.run(main())
    assert isinstance(found.pop(3), RuntimeError)
    assert (found, most[0]) == ([0, 1, 2, 4, 5], 2)


def test_a_page_that_takes_nothing_costs_nothing(run):
    """It holds the message it was given; what is new waits in the file."""
    add(run.metrics, *(step_record(step) for step in range(4, 3000)))
    taken = []

    async def main():
        watcher = Watcher(Folders([run.path.parent]), print)
        blocked = asyncio.Event()

        async def write(text):
            taken.append(text)
            if b"records" in text:
                await blocked.wait()

        sending = asyncio.create_task(watcher.send(watcher.run_messages(run, Cursor()), write))
        await asyncio.sleep(1.0)
        assert watcher.num_streams == 1
        assert len([text for text in taken if b"event: records" in text]) == 1
        blocked.set()
        while b'"step":2999,' not in b"".join(taken):
            await asyncio.sleep(0.05)
        watcher.stop()
        assert isinstance((await asyncio.gather(sending, return_exceptions=True))[0], BaseException)
        assert watcher.num_streams == 0
        assert watcher._feeds == {}  # nobody listens: nothing is looked at

    asyncio.run(asyncio.wait_for(main(), 30))
    assert max(map(len, taken)) < 200_000


# ------------------------------------------------------------------ over HTTP


def test_no_gap_and_no_double_over_reconnects_and_restarts(run):
    """500 records while a page reconnects 50 times and the server is killed and restarted."""
    rng = random.Random(0)
    seen, place = [], Cursor.at_end(run)
    command = [sys.executable, "-c", WRITER, str(run.metrics)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1)
    server = Server(run.path.parent)
    try:
        for turn in range(51):
            if turn in (15, 35):
                server.__exit__()  # kill -9
                server = Server(run.path.parent)
            if turn < 50:
                writer.stdin.write("\n")
            # The header wins over the address, as for a browser that reconnects.
            headers = {"last_event_id": str(place)} if turn % 2 else {}
            with server.stream(path_of(run, "0-0-0-0" if headers else place), **headers) as stream:
                messages = rng.randint(0, 2) if turn < 50 else 1000
                while messages and len(seen) < min(10 * turn + 10, 500):
                    event, place, data = stream.read() or pytest.fail("no message came")
                    assert event == "records"
                    seen += [record["step"] for record in data["steps"]]
                    messages -= 1
    finally:
        writer.kill()
        writer.communicate()
        server.__exit__()
    assert seen == list(range(4, 504))


def test_pages_are_told_within_a_second_and_reset_and_of_the_end(run):
    with Server(run.path.parent) as server:
        place = Cursor.at_end(run)
        streams = [server.stream(path_of(run, place)) for _ in range(20)]
        for stream in streams:
            event, _, data = stream.read(skip=(None,))
            assert (event, data["state"]) == ("state", "interrupted")
        delays = []
        for step in range(4, 9):
            written = time.monotonic()
            add(run.metrics, step_record(step))
            for stream in streams:
                _, _, data = stream.read()
                assert [record["step"] for record in data["steps"]] == [step]
            delays.append(time.monotonic() - written)
        assert sorted(delays)[len(delays) // 2] < 1.0
        os.truncate(run.metrics, place.metrics)
        for stream in streams:
            assert stream.read()[0] == "reset"
            assert stream.last_id == str(place)
        add(run.events, FINISHED)
        for stream in streams:
            while stream.read(skip=(None, "records"))[2]["state"] != "finished":
                pass
        assert server.end() < 15  # with all of them connected
        for stream in streams:
            with pytest.raises(ConnectionError):
                while stream.read(skip=()):
                    pass
            stream.close()


def test_a_page_hears_something_although_nothing_happens(run, monkeypatch):
    monkeypatch.setattr(live, "REPEAT", 0.0)
    monkeypatch.setattr(live, "STATE_POLL", 0.0)

    async def main():
        watcher = Watcher(Folders([run.path.parent]), print)
        both = (watcher.run_messages(run, Cursor.at_end(run)), watcher.rows_messages())
        for messages, event in zip(both, (b"state", b"runs"), strict=True):
            found = [await anext(messages) for _ in range(3)]
            assert found[0].startswith(b"retry: ")
            assert found[1] == found[2] and found[1].startswith(b"event: " + event)
            await messages.aclose()
        watcher.stop()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_list_is_streamed(run):
    with Server(run.path.parent) as server, server.stream("/api/stream") as stream:
        event, _, data = stream.read()
        assert (event, [row["step"] for row in data["runs"]]) == ("runs", [3])
        add(run.metrics, step_record(4))
        while [row["step"] for row in stream.read()[2]["runs"]] != [4]:
            pass
        write_run(run.path.parent / "b")
        while len(stream.read()[2]["runs"]) != 2:
            pass


def test_odd_cursors_are_refused_and_head_ends_at_once(run):
    with Server(run.path.parent) as server:
        for text in ("x", "1-2-3", "-1-0-0-0"):
            assert server.ask(path_of(run, text))[0] == 400
        assert server.ask(path_of(run), "HEAD")[0] == 200
        assert server.ask("/api/stream", "HEAD")[1]["content-type"].startswith("text/event-stream")
