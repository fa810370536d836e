"""Streams: read as far as needed, kept as tokens only, validated on rows of their own."""

import gzip
import json
import tracemalloc

import pytest

import tiny
from sft.config import DataConfig
from sft.data import stream
from sft.data.account import account
from sft.data.dataset import load_data
from sft.data.stream import HELD_OUT
from sft.data.template.chat_template import ChatTemplate
from sft.data.token_cache import TokenCache
from sft.data.tokenize import fingerprint
from sft.errors import ConfigError, DataError

WORDS = ["fox", "dog", "Paris", "France", "quick", "brown", "lazy", "one", "two", "three"]


@pytest.fixture(scope="module")
def template():
    return ChatTemplate(tiny.tokenizer())


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Windows of a size that tests can fill."""
    for name, value in (("SAMPLE_ROWS", 100), ("MARGIN_ROWS", 20)):
        monkeypatch.setattr(stream, name, value)


def row(i, answer="Yes"):
    words = [WORDS[(i * k + i // 11) % len(WORDS)] for k in (1, 3, 5, 7)]
    return {"prompt": f"{' '.join(words)} {i}", "completion": answer}


def write(path, rows):
    lines = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(lines)
    return str(path)


@pytest.fixture
def read(tmp_path, template):
    """Streams `path` (or sources) for so many examples; the cache is in `tmp_path`."""

    def load(source, num_examples=100, seed=0, **settings):
        sources = source if isinstance(source, list) else [{"path": source, "streaming": True}]
        config = DataConfig.model_validate({"train": sources, "max_seq_len": 60, **settings})
        cache = TokenCache(tmp_path / "tokens", "t" * 64)
        return load_data(config, template, seed, cache=cache, num_examples=num_examples)

    return load


def lines(examples):
    return [example.origin.line for example in examples]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_a_stream_is_read_as_far_as_the_steps_need(read, tmp_path, name):
    rows, path = [row(i) for i in range(1000)], str(tmp_path / name)
    if name.endswith("parquet"):
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    else:
        write(tmp_path / name, rows)
    data = read(path)
    # 5 % more than 100, 16 to validate on, and the margin of 20
    assert data.num_rows == 105 + 16 + 20
    assert data.counts() == {
        "used": 125,
        "val": 16,
        "changed": 0,
        "truncated": 0,
        "dropped": 0,
        "bad": 0,
    }
    assert sorted(lines(data.train) + lines(data.val)) == list(range(1, 142))
    assert len(data.split.train) == 100 - 16 and data.sampled == 84 / 125
    assert "141 rows were read for the 100 examples of optim.max_steps" in data.notes[0]
    assert [entry["status"] for entry in account(data)["rows"]] == ["val"] * 16


def test_the_examples_are_those_of_a_run_that_holds_them(read, tmp_path):
    path = write(tmp_path / "rows.jsonl", [row(i) for i in range(200)])
    streamed = read(path, val_fraction=0)
    plain = read([{"path": path, "max_rows": 125}], num_examples=None, val_fraction=0)
    assert streamed.val == [] and "no validation" in streamed.notes[-1]
    assert fingerprint(streamed.train) == fingerprint(plain.train)


def test_a_resumed_run_reads_the_first_rows_only(read, tmp_path, monkeypatch):
    path = write(tmp_path / "rows.jsonl", [row(i) for i in range(300)])
    first = read(path)
    monkeypatch.setattr(stream, "tokenize_chunks", None)  # not called again
    again = read(path)
    assert fingerprint(first.train) == fingerprint(again.train)
    assert fingerprint(first.val) == fingerprint(again.val)
    assert account(first) == account(again)
    assert "cache miss" in first.remarks[0] and "cache hit" in again.remarks[0]
    monkeypatch.undo()
    assert lines(read(path, seed=1).val) != lines(first.val)
    write(tmp_path / "rows.jsonl", [row(i, "No") for i in range(300)])
    changed = read(path)
    assert "the data (rows.jsonl) changed" in changed.remarks[0]
    assert fingerprint(changed.train) != fingerprint(first.train)


def test_rows_like_a_validation_row_are_not_trained_on(read, tmp_path):
    rows = [row(i) for i in range(200)]
    held_out = lines(read(write(tmp_path / "rows.jsonl", rows)).val)
    copy = {**rows[held_out[0] - 1]}
    rows[110], rows[120] = copy, {**copy, "completion": "No"}
    data = read(write(tmp_path / "rows.jsonl", rows))
    assert lines(data.val) == held_out
    dropped = [(f.origin.line, f.reason) for f in data.fates if f.status == "dropped"]
    assert dropped == [(111, HELD_OUT), (121, HELD_OUT)]
    assert not {111, 121} & set(lines(data.train)) and sum(data.counts().values()) == data.num_rows


def test_validation_of_ones_own_wins_over_the_stream(read, tmp_path):
    rows = [row(i) for i in range(150)]
    val = write(tmp_path / "val.jsonl", [rows[3], rows[90], row(500)])
    data = read(write(tmp_path / "rows.jsonl", rows), val=val)
    assert len(data.val) == 3 and not {4, 91} & set(lines(data.train))
    counts = data.counts()
    assert counts["val"] == 3 and counts["dropped"] == 2
    assert sum(counts.values()) == data.num_rows == 105 + 20 + 3


def test_bad_rows_are_skipped_or_stop_the_run(read, tmp_path):
    rows = [row(i) for i in range(150)]
    rows[2], rows[100], rows[120] = "{", row(100, ""), row(120, "\ue0f0")
    path = write(tmp_path / "rows.jsonl", rows)
    data = read(path, on_bad_row="skip")
    assert data.counts()["bad"] == 3 and sum(data.counts().values()) == data.num_rows
    bad = [f.origin.line for f in data.fates if f.status == "bad"]
    assert bad == [3, 101, 121]
    with pytest.raises(DataError, match=r"of 10\d rows cannot be used"):
        read(path)
    rows[2] = row(2)
    with pytest.raises(DataError, match=r"rows cannot be used:(.|\n)*rows\.jsonl:101"):
        read(write(tmp_path / "rows.jsonl", rows))
    assert not list((tmp_path / "tokens").glob(".tmp-*"))


def test_two_streams_share_what_is_needed(read, tmp_path):
    a = write(tmp_path / "a.jsonl", [row(i) for i in range(300)])
    b = write(tmp_path / "b.jsonl", [row(i, "No") for i in range(300, 600)])
    data = read([{"path": path, "streaming": True} for path in (a, b)])
    sources = [example.source for example in data.train]
    assert sources == sorted(sources)
    assert data.num_rows == 2 * (61 + 20)
    assert {example.source for example in data.val} == {0, 1}


def test_a_row_weight_in_a_stream_is_refused(read, tmp_path):
    path = write(tmp_path / "rows.jsonl", [row(0), {**row(1), "row_weight": 2}, row(2)])
    with pytest.raises(DataError, match=r"rows.jsonl:2: has a row_weight"):
        read(path, num_examples=8)


def test_a_stream_that_ends_early_says_so(read, tmp_path):
    data = read(write(tmp_path / "rows.jsonl", [row(i) for i in range(40)]))
    assert len(data.train) == 32 and "each is seen 3.1 times" in data.notes[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_examples": None}, r"no length; say how far to read it with --set optim\.max_steps"),
        ({"deduplicate": True}, r"data\.deduplicate: compares all rows"),
        ({"openers": "strip"}, r"data\.openers: compares all rows"),
        ({"select_rows": 10}, r"data\.select_rows: compares all rows"),
        ({"usage_weighting": True}, r"data\.usage_weighting: compares all rows"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(read, tmp_path, settings, message):
    path = write(tmp_path / "rows.jsonl", [row(i) for i in range(40)])
    with pytest.raises(ConfigError, match=message):
        read(path, **settings)


def test_a_stream_needs_a_place_for_its_tokens(template, tmp_path):
    path = write(tmp_path / "rows.jsonl", [row(1)])
    source = [{"path": path, "streaming": True}]
    config = DataConfig.model_validate({"train": source, "max_seq_len": 60})
    with pytest.raises(ConfigError, match=r"data\.cache: off, but a stream is kept there"):
        load_data(config, template, 0, cache=None, num_examples=8)
    # With a limit of its own and no number of steps it is read into memory, as it always was.
    limited = config.model_copy(
        update={"train": [config.train[0].model_copy(update={"max_rows": 1})]}
    )
    assert load_data(limited, template, 0).num_rows == 1


def test_memory_does_not_grow_with_the_stream(read, tmp_path):
    def peak(num_rows, streaming):
        path = write(tmp_path / f"{num_rows}.jsonl", [row(i, "Yes " * 40) for i in range(num_rows)])
        source = {"path": path, "streaming": streaming}
        tracemalloc.start()
        try:
            needed = 10_000 if streaming else None
            settings = {
                "val_fraction": 0,
                "max_seq_len": 300,
                "workers": 1,
            }  # more hold chunks
            data = read([source], num_examples=needed, **settings)
            return tracemalloc.get_traced_memory()[1], len(data.train)
        finally:
            tracemalloc.stop()

    peak(50, True)  # imports
    grown = {}
    for streaming in (True, False):
        (few, _), (many, examples) = peak(150, streaming), peak(350, streaming)
        assert examples == 350
        grown[streaming] = (many - few) / 200  # bytes a row
    assert grown[True] < 400 < 2_000 < grown[False], grown
