"""Each kind of damage in each kind of file: the row is named, and the good rows survive."""

import bz2
import gzip
import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from sft.config import SourceConfig
from sft.data.rows.problems import BadRows
from sft.data.rows.read import read_conversations
from sft.data.rows.sources import read_rows
from sft.errors import ConfigError, DataError

PACKED = {".gz": gzip.compress, ".bz2": bz2.compress}
JSON = ["jsonl", "json", "jsonl.gz", "json.gz"]
TABLES = ["csv", "tsv", "csv.gz", "tsv.gz"]
TEXT = [*JSON, *TABLES]
ALL = [*TEXT, "parquet"]
GOOD = {"prompt": "Where?", "completion": "Here."}


def row_text(kind, row):
    """One row as it stands in a file; bytes are taken as they are."""
    if isinstance(row, bytes):
        return row
    if kind in JSON:
        return json.dumps(row).encode()
    mark = "\t" if kind.startswith("tsv") else ","
    cells = ('"' + cell.replace('"', '""') + '"' if '"' in cell else cell for cell in row.values())
    return mark.join(cells).encode()


def write(folder, kind, rows):
    """A file of `rows`; the second row begins on the line that is returned too."""
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path, 2
    lines = [row_text(kind, row) for row in rows]
    if kind.startswith("json."):
        data = b"[" + b",\n".join(lines) + b"]\n"
    elif kind == "json":
        data = b"[" + b",\n".join(lines) + b"]"
    else:
        data = b"".join(line + b"\n" for line in lines)
    if kind in TABLES:
        data = row_text(kind, {"a": "prompt", "b": "completion"}) + b"\n" + data
    path.write_bytes(PACKED.get(path.suffix, bytes)(data))
    return path, 3 if kind in TABLES else 2


def check(folder, kind, bad, reason):
    """Between two good rows, `bad` is named with its line under both policies, and counted."""
    path, line = write(folder, kind, [GOOD, bad, {**GOOD, "prompt": "Why?"}])
    source = SourceConfig(path=str(path))
    with pytest.raises(DataError) as caught:
        read_conversations([source], "error")
    assert str(caught.value).startswith("1 of 3 rows cannot be used:\n")
    assert f"[{path}:{line}]" in str(caught.value) and reason in str(caught.value)
    loaded = read_conversations([source], "skip")
    assert [row.messages[0].content for row in loaded.conversations] == ["Where?", "Why?"]
    assert [(row.origin.line, reason in row.reason) for row in loaded.bad_rows] == [(line, True)]
    assert loaded.num_bad == 1


def pair(prompt, completion="b"):
    return {"prompt": prompt, "completion": completion}


def raw(kind, cell):
    """A row whose prompt is `cell` as it is."""
    if kind in JSON:
        return b'{"prompt": "' + cell + b'", "completion": "b"}'
    return cell + (b"\t" if kind.startswith("tsv") else b",") + b"b"


@pytest.mark.parametrize("kind", TEXT)
@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (b"caf\xe9", "byte 0xE9 is not UTF-8"),  # latin-1
        (b"\xff\xfea", "byte 0xFF is not UTF-8"),  # a mark of UTF-16 within the file
        (b"\xed\xa0\x80", "byte 0xED is not UTF-8"),  # half a surrogate pair, encoded
        (b"a\0b", "NUL byte"),
    ],
)
def test_bytes_that_are_not_text(tmp_path, kind, cell, reason):
    check(tmp_path, kind, raw(kind, cell), reason)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pair("a", ""), "completion: empty"),
        (pair("a", " \t\n "), "completion: empty"),
        (pair(""), "prompt: empty"),
        (pair(" \u3000 "), "prompt: empty"),
    ],
)
def test_empty_texts(tmp_path, kind, bad, reason):
    if kind in TABLES:  # white space that is no cell's end
        bad = {name: text.replace("\t\n", " ") for name, text in bad.items()}
    check(tmp_path, kind, bad, reason)


@pytest.mark.parametrize("kind", [*JSON, "parquet"])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pair("a", None), "completion: expected text"),
        (pair(None), "prompt: expected text"),
        (pair("a\0"), "prompt: holds a NUL character"),
    ],
)
def test_null_and_nul(tmp_path, kind, bad, reason):
    check(tmp_path, kind, bad, reason)


@pytest.mark.parametrize("kind", JSON)
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pair("a", 7), "completion: expected text"),
        (pair("a", {"text": "b"}), "completion: expected text"),
        ({"prompt": "a"}, "not of the format prompt_completion"),
        ({"messages": []}, "not of the format prompt_completion"),
        (b"[1, 2]", "expected an object, found a list"),
        (b'"text"', "expected an object, found text"),
        (b"null", "expected an object, found null"),
        (b'{"prompt": "a", "prompt": "b", "completion": "c"}', "key 'prompt' is given twice"),
        (b'{"prompt": NaN, "completion": "c"}', "NaN is not a JSON number"),
        (b'{"prompt": 1e999, "completion": "c"}', "the number 1e999 is too large"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "a number of 5,000 digits is too large"),
        (b'{"prompt": "\\ud800", "completion": "c"}', "half a surrogate pair"),
        (b'{"prompt": ' + b"[" * 200 + b"]" * 200 + b"}", "nested more than 100 levels deep"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_that_are_no_row(tmp_path, kind, bad, reason):
    check(tmp_path, kind, bad, reason)


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"a", "expected 2 cells, as in the header, found 1"),
        (b"a;b", "expected 2 cells, as in the header, found 1"),
        (b"a,b\tb,a\tb", "expected 2 cells, as in the header, found 3"),
        (b'"a"b,c\t"a"b', "not valid CSV"),
    ],
)
def test_cells_that_are_no_row(tmp_path, kind, bad, reason):
    check(tmp_path, kind, bad, reason)


@pytest.mark.parametrize(
    ("rows", "num_good", "bad"),
    [
        ([b'"a'], 1, [3, 4]),  # never closed
        ([b'"a,b', *[GOOD] * 5000, b'c,"d'], 1, range(3, 5006)),  # closed by another row's quote
        ([b'"She said "no"\nand went","home"'], 1, [3, 4, 5]),  # a quote that is not doubled
        ([b'"' + b"a line, with, commas\n" * 50 + b'"x,b'], 1, range(3, 55)),  # a wrong end
        ([b'"two ""cells""\nof",one', b'"two "cells" of",one'], 3, [5]),  # ends on its own line
    ],
    ids=["end", "another", "within", "long", "one_line"],
)
def test_where_a_quote_is_not_closed_the_rest_is_counted_as_bad(tmp_path, rows, num_good, bad):
    path, _ = write(tmp_path, "csv", [GOOD, *rows, GOOD])
    report = BadRows("skip")
    assert len(list(read_rows(SourceConfig(path=str(path)), report, {}))) == num_good
    assert [row.origin.line for row in report.rows] == list(bad)
    assert report.rows[0].reason.startswith("not valid CSV (")
    with pytest.raises(DataError) as caught:
        read_conversations([SourceConfig(path=str(path))], "error")
    if len(bad) > 1:
        assert "a quote that is opened in this row is not closed" in report.rows[0].reason
        assert f"[{path}:3]" in str(caught.value)
        assert f"follows a quote that is opened at {path}:3 and not closed" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"prompt;completion\nWhere, oh where?;Here.\n"),
        ("a.csv", b'\n"prompt";"completion"\n"Where, oh where?";"Here."\n'),
        ("a.csv", b"prompt\tcompletion\nWhere, oh where?\tHere.\n"),
        ("a.tsv", b'prompt,completion\n"Where, oh where?",Here.\n'),
    ],
)
def test_the_header_says_what_separates_the_cells(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    (row,) = read_conversations([SourceConfig(path=str(tmp_path / name))], "error").conversations
    assert [message.content for message in row.messages] == ["Where, oh where?", "Here."]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'[{"prompt": "a"},\n', "it is one JSON document"),
        (
            "a.jsonl",
            gzip.compress(b"{}", mtime=0),
            "a gzip file, not jsonl text; its name should end in",
        ),
        ("a.csv", b"PAR1....", "a Parquet file, not csv text; its name should end in .parquet"),
        ("a.json", b"PK\x03\x04....", "a ZIP file (or a workbook), not json text; unpack it"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
        ("a.csv", "a,b\n".encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
        ("a.csv", b"a," * 100_000 + b"\n", "a.csv:1: column 'a' is given twice in the header"),
        ("a.csv.gz", gzip.compress(b"prompt,completion\n", mtime=0), "holds no rows"),
        ("a.jsonl.gz", b"", "holds no rows"),
        ("a.jsonl.gz", gzip.compress(b" \n", mtime=0), "holds no rows"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:-9], "damaged or cut off"),
        ("a.jsonl.gz", b'{"a": 1}\n', "damaged or cut off (Not a gzipped file"),
        ("a.jsonl.bz2", bz2.compress(b'{"a": 1}\n')[:-9], "damaged or cut off"),
        ("a.jsonl.zst", b'{"a": 1}\n', "damaged or cut off"),
        ("a.parquet", b"", "not a readable Parquet file"),
        ("a.parquet", b"PAR1" * 9, "not a readable Parquet file"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(read_rows(SourceConfig(path=str(tmp_path / name)), BadRows("skip"), {}))
    assert str(caught.value).startswith(f"{tmp_path / name}:") and message in str(caught.value)


@pytest.mark.parametrize("kind", TEXT)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_any_line_ending_and_a_mark(tmp_path, kind, end):
    path, _ = write(tmp_path, kind, [GOOD, GOOD])
    unpack = {".gz": gzip.decompress}.get(path.suffix, bytes)
    data = b"\xef\xbb\xbf" + unpack(path.read_bytes()).replace(b"\n", end)
    path.write_bytes(PACKED.get(path.suffix, bytes)(data))
    loaded = read_conversations([SourceConfig(path=str(path))], "error")
    first = 2 if kind in TABLES else 1
    assert [row.origin.line for row in loaded.conversations] == [first, first + 1]


def test_zstandard_and_several_parts_in_one_file(tmp_path):
    line = row_text("jsonl", GOOD) + b"\n"
    zst = pyarrow.compress(line * 2, "zstd", asbytes=True)
    for name, data in (("a.jsonl.zst", zst), ("a.jsonl.gz", gzip.compress(line) * 2)):
        (tmp_path / name).write_bytes(data)
        loaded = read_conversations([SourceConfig(path=str(tmp_path / name))], "error")
        assert [row.origin.line for row in loaded.conversations] == [1, 2]


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path)


def link_to_nothing(path):
    path.symlink_to("nothing")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pipe, "is a named pipe, and a regular file is needed"),
        (device, "is a device, and a regular file is needed"),
        (loop, "cannot be read (Too many levels of symbolic links)"),
        (link_to_nothing, "a link to nothing, which is not there"),
    ],
)
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises((ConfigError, DataError)) as caught:
        list(read_rows(SourceConfig(path=str(tmp_path / name)), BadRows("skip"), {}))
    assert str(caught.value) == f"{tmp_path / name}: {message}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_and_a_folder_that_may_not_be_read(tmp_path):
    path, _ = write(tmp_path, "jsonl", [GOOD])
    path.chmod(0)
    for place in (path, tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            list(read_rows(SourceConfig(path=str(place)), BadRows("skip"), {}))


@pytest.mark.parametrize(
    "name", ["a b.jsonl", "it's.jsonl", "ä 中\u202f🎉.jsonl", "-x.jsonl", "#.jsonl"]
)
def test_odd_names_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(row_text("jsonl", GOOD))
    loaded = read_conversations([SourceConfig(path=str(tmp_path / name))], "error")
    assert str(loaded.conversations[0].origin) == f"{tmp_path / name}:1"


@pytest.mark.parametrize(
    "name", ["a\n.jsonl", "a\x1b[31m.jsonl", "caf\udce9.jsonl", "\u202e.jsonl"]
)
@pytest.mark.parametrize("whole_folder", [False, True])
def test_names_that_cannot_be_shown_are_refused(tmp_path, name, whole_folder):
    (tmp_path / name).write_bytes(row_text("jsonl", GOOD))
    place = tmp_path if whole_folder else tmp_path / name
    with pytest.raises(ConfigError, match="rename the file") as caught:
        list(read_rows(SourceConfig(path=str(place)), BadRows("skip"), {}))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["x" * 300 + ".jsonl", "a\0.jsonl", "a.jsonl/b.jsonl"])
def test_names_that_no_file_can_have(tmp_path, name):
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(ConfigError):
        list(read_rows(SourceConfig(path=str(tmp_path / name)), BadRows("skip"), {}))
