"""Follower a file that grows: each whole line once, in order, whatever is in it."""

import json
import random

import pytest

from sft.runs.jsonl import Tail


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_each_line_comes_once_and_a_torn_one_when_it_is_whole(path):
    tail = Tail(path)
    assert tail.read() == []  # not there yet
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
    assert tail.read() == [{"a": 1}, {"a": 2}]
    assert tail.read() == []
    with open(path, "ab") as file:
        file.write(b": 3}\n")
    assert (tail.read(), tail.offset) == ([{"a": 3}], path.stat().st_size)


def test_any_cut_of_the_bytes_gives_the_same_records(path):
    rng = random.Random(0)
    records = [{"n": n, "text": "ü" * rng.randrange(20)} for n in range(200)]
    data = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()
    found, tail, end = [], Tail(path), 0
    while end < len(data):
        start, end = end, min(len(data), end + rng.randrange(1, 90))
        with open(path, "ab") as file:
            file.write(data[start:end])
        found += tail.read(most=rng.choice([1, 3, None]))
    while more := tail.read(most=7):
        found += more
    assert found == records


@pytest.mark.parametrize(
    "bad", [b"", b"nonsense", b"[1, 2]", b'"text"', b'{"a": 1}, {"b": 2}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_record_is_left_out_and_takes_no_other_with_it(path, bad):
    path.write_bytes(b'{"a": 1}\n' + bad + b'\n{"a": 2}\n')
    assert Tail(path).read() == [{"a": 1}, {"a": 2}]


def test_a_place_is_kept_over_a_restart(path):
    path.write_bytes(b"".join(b'{"a": %d}\n' % n for n in range(5)))
    first = Tail(path)
    assert first.read(most=2) == [{"a": 0}, {"a": 1}]
    assert Tail(path, first.offset).read() == [{"a": 2}, {"a": 3}, {"a": 4}]


def test_a_file_that_was_cut_back_is_followed_from_its_new_end(path):
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n')
    tail = Tail(path)
    tail.read()
    path.write_bytes(b'{"a": 1}\n')
    assert (tail.read(), tail.was_cut, tail.offset) == ([], True, 9)
    with open(path, "ab") as file:
        file.write(b'{"a": 5}\n')
    assert tail.read() == [{"a": 5}]


def test_a_line_longer_than_a_block_is_read_whole(path):
    path.write_bytes(json.dumps({"text": "x" * (9 << 20)}).encode() + b"\n" + b'{"a": 1}\n')
    tail, found = Tail(path), []
    while records := tail.read():
        found += records
    assert [len(found[0]["text"]), found[1]] == [9 << 20, {"a": 1}]


def test_lines_that_nobody_wants_are_not_read(path):
    path.write_bytes(b'{"kind": "a"}\nbroken\n{"kind": "b"}\n')
    assert Tail(path, keep=lambda line: b'"b"' in line).read() == [{"kind": "b"}]
