"""Files of every kind and every kind of damage, to rows with their place."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sft.config import SourceConfig
from sft.data.rows.lines import MAX_ROW_BYTES
from sft.data.rows.problems import BadRows
from sft.data.rows.sources import arrow_row, read_rows
from sft.errors import ConfigError, DataError, SFTError

GOOD = b'{"prompt": "a", "completion": "b"}\n'


def read(path, **options):
    report = BadRows("skip")
    rows = list(read_rows(SourceConfig(path=str(path), **options), report, {}))
    return rows, report


def read_bytes(folder: Path, name: str, data: bytes, **options):
    path = folder / name
    path.write_bytes(data)
    rows, report = read(path, **options)
    good = [(row.origin.line, row.values) for row in rows]
    return good, [(bad.origin.line, bad.reason) for bad in report.rows]


def error_of(folder: Path, name: str, data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        read_bytes(folder, name, data)
    return str(caught.value)


def test_lines_are_numbered_as_in_an_editor(tmp_path):
    good, bad = read_bytes(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert good == [(1, {"a": 1}), (4, {"a": 2})]
    assert bad == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": "caf\xc3\xa9 \xe9"}', "column 13: byte 0xE9 is not UTF-8"),
        (b'{"a": "\0"}', "column 8: NUL byte"),
        (rb'{"a": ["\u0000"]}', r"a[0]: holds a NUL character"),
        (rb'{"a": {"b": "\uD800 x"}}', r"a.b: holds half a surrogate pair '\ud800'"),
        (rb'{"\udc00": 1}', "a key: holds half a surrogate pair"),
        (b'{"a": 1, "b": 2, "a": 3}', "key 'a' is given twice"),
        (b'{"a": {"b": 1, "b": 1}}', "key 'b' is given twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e999}', "the number 1e999 is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5,000 digits is too large"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested more than 100 levels deep"),
        (b"[" * 200_000, "nested more than 100 levels deep"),
        (b'{"a" 1}', "column 6: not valid JSON (Expecting ':' delimiter)"),
        (b'{"a": 1} {"a": 2}', "column 9: more than one JSON value"),
        (b"[1, 2]", "expected an object, found a list"),
        (b"null", "expected an object, found null"),
        (b'{"a": "' + b"x" * MAX_ROW_BYTES + b'"}', "longer than 10,000,000 bytes"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_bad_line_is_named_and_the_next_is_read(tmp_path, line, reason):
    good, bad = read_bytes(tmp_path, "a.jsonl", GOOD + line + b"\n" + GOOD)
    assert [number for number, _ in good] == [1, 3]
    assert [number for number, _ in bad] == [2]
    assert reason in bad[0][1]


def test_escaped_surrogate_pairs_are_text(tmp_path):
    good, bad = read_bytes(tmp_path, "a.jsonl", rb'{"a": "\ud83d\ude00"}')
    assert (good, bad) == ([(1, {"a": "\U0001f600"})], [])


@pytest.mark.parametrize("rest", [b'{"prompt": "a", "comp', b'{"prompt": "caf\xc3'])
def test_a_torn_last_line_is_called_so(tmp_path, rest):
    good, bad = read_bytes(tmp_path, "a.jsonl", GOOD + rest)
    assert len(good) == 1
    assert [(line, reason.split(":")[0]) for line, reason in bad] == [(2, "torn last line")]


def test_an_unfinished_line_within_the_file_is_not_called_torn(tmp_path):
    _, bad = read_bytes(tmp_path, "a.jsonl", b'{"prompt": "a\n' + GOOD)
    assert "not valid JSON" in bad[0][1]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be", "utf-32-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_other_encodings_are_refused_with_the_way_out(tmp_path, encoding, name):
    text = ("\ufeff" if encoding.endswith("be") else "") + GOOD.decode()
    message = error_of(tmp_path, name, text.encode(encoding))
    assert f"iconv -f {encoding[:6].upper()} -t UTF-8" in message


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\xef\xbb\xbf\n \n"),
        ("a.json", b"\xef\xbb\xbf \n"),
        ("a.json", b"[ ]"),
        ("a.csv", b""),
        ("a.csv", b"prompt,completion\n"),
    ],
)
def test_an_empty_file_is_an_error(tmp_path, name, data):
    assert error_of(tmp_path, name, data) == f"{tmp_path / name}: holds no rows"


def test_tool_arguments_come_out_as_they_were(tmp_path):
    row = {"calls": [{"arguments": {"a": None}}, {"arguments": '{"b":  1}'}, {"arguments": {}}]}
    for name, data in (("a.jsonl", row), ("a.json", [row])):
        good, _ = read_bytes(tmp_path, name, json.dumps(data).encode())
        assert good == [(1, row)]


def test_elements_of_an_array_have_the_line_they_begin_on(tmp_path):
    data = b'\xef\xbb\xbf[\r\n  {"a": [1,\n 2]},\n\n {"a": 2}, {"a": 3},\n 4, {"a": NaN}\n, {}]\n'
    good, bad = read_bytes(tmp_path, "a.json", data)
    assert good == [(2, {"a": [1, 2]}), (5, {"a": 2}), (5, {"a": 3}), (7, {})]
    assert bad == [
        (6, "expected an object, found a number"),
        (6, "NaN is not a JSON number"),
    ]


def test_a_wrong_byte_in_an_array_spoils_its_row_only(tmp_path):
    good, bad = read_bytes(tmp_path, "a.json", b'[{"a": "b"},\n{"a":\n "\xe9"},\n{"a": "c"}]')
    assert [line for line, _ in good] == [1, 4]
    assert bad == [(2, "line 3, column 3: byte 0xE9 is not UTF-8")]


def test_an_object_that_holds_one_list(tmp_path):
    data = b'{"version": {"n": [1]},\n "data":\n [{"a": 1},\n {"a": 2}], "end": null}'
    good, _ = read_bytes(tmp_path, "a.json", data)
    assert good == [(3, {"a": 1}), (4, {"a": 2})]


def test_json_lines_under_the_name_json(tmp_path):
    good, _ = read_bytes(tmp_path, "a.json", GOOD + b"\n" + GOOD)
    assert [line for line, _ in good] == [1, 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"a": 1},\n {"a": tru}]', "a.json:2:8: not valid JSON (Expecting value)"),
        (b'[{"a": 1}\n {"a": 2}]', "a.json:2:2: not valid JSON (expected ',', found '{')"),
        (b'[{"a": 1},\n', "a.json:2:1: not valid JSON"),
        (b'[{"a": 1}', "found 'the end of the file'"),
        (b"[1] 2", "a.json:1:5: not valid JSON (expected the end of the file)"),
        (b"[" * 200_000, "nested more than 100 levels deep"),
        (b'{"a": [], "b": []}', "found an object with 2 lists (a, b)"),
        (b'{"a": 1}', "found an object with 0 lists"),
        (b"{}", "found an object with 0 lists"),
        (b'{"a": []} x', "expected the end of the file"),
        (b'"text"', "expected '['"),
    ],
)
def test_a_document_that_is_not_rows_is_refused(tmp_path, data, message):
    assert message in error_of(tmp_path, "a.json", data)


def test_csv_lines_quotes_and_damage(tmp_path):
    data = (
        b'\xef\xbb\xbfprompt,completion\r\n"two\nlines, ""here""",b\n\n'
        b'c,\xe9\nd,e,f\n"g"h,i\nj,\0\nk,l\n"m\n'
    )
    good, bad = read_bytes(tmp_path, "a.csv", data)
    assert good == [
        (2, {"prompt": 'two\nlines, "here"', "completion": "b"}),
        (9, {"prompt": "k", "completion": "l"}),
    ]
    assert [line for line, _ in bad] == [5, 6, 7, 8, 10]
    assert bad[0][1] == "line 5, column 3: byte 0xE9 is not UTF-8"
    assert bad[1][1] == "expected 2 cells, as in the header, found 3"
    assert "not valid CSV" in bad[2][1]
    assert "NUL" in bad[3][1]
    assert "unexpected end of data" in bad[4][1]


def test_csv_cells_may_be_long_and_tsv_has_tabs(tmp_path):
    long = "x" * 200_000
    good, bad = read_bytes(tmp_path, "a.tsv", f"a\tb\n{long}\t,\n".encode())
    assert (good, bad) == ([(2, {"a": long, "b": ","})], [])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b,a\n1,2,3\n", "a.csv:1: column 'a' is given twice"),
        (b"\n\xe9,b\n1,2\n", "a.csv:2: the header cannot be read: line 2, column 1: byte 0xE9"),
        (b'"a"b,c\n1,2\n', "the header cannot be read: not valid CSV"),
    ],
)
def test_a_csv_header_must_be_right(tmp_path, data, message):
    assert message in error_of(tmp_path, "a.csv", data)


def test_parquet_rows_have_no_keys_that_arrow_added(tmp_path):
    rows = [
        {"m": [{"arguments": {"a": 1}}], "system": None},
        {"m": [{"arguments": {"b": {"c": "x"}}}], "system": "s"},
    ]
    table = pyarrow.Table.from_pylist(rows)
    assert table.to_pylist() != rows  # what we are here for
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    got, _ = read(tmp_path / "a.parquet")
    assert [row.values for row in got] == rows
    assert [row.origin.line for row in got] == [1, 2]


def test_parquet_damage(tmp_path):
    assert "not a readable Parquet file" in error_of(tmp_path, "a.parquet", b"PAR1 no")
    offsets = pyarrow.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2, 3)))
    buffers = [None, offsets, pyarrow.py_buffer(b"x\0\xe9")]
    column = pyarrow.Array.from_buffers(pyarrow.string(), 3, buffers)
    pyarrow.parquet.write_table(pyarrow.table({"a": column}), tmp_path / "b.parquet")
    rows, report = read(tmp_path / "b.parquet")
    assert [row.values for row in rows] == [{"a": "x"}]
    assert [bad.origin.line for bad in report.rows] == [2, 3]
    assert report.rows[1].reason == "byte 0xE9 is not UTF-8"


def test_a_folder_is_read_in_order_with_known_extensions_only(tmp_path):
    for name in ("b.jsonl", "sub/a.jsonl", "a.csv", ".cache/x.jsonl", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a\n1\n" if name.endswith("csv") else b'{"a": "1"}\n')
    rows, _ = read(tmp_path)
    assert [row.origin.source for row in rows] == [
        str(tmp_path / name) for name in ("a.csv", "b.jsonl", "sub/a.jsonl")
    ]


def test_a_folder_without_data_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no \.jsonl"):
        read(tmp_path)


def test_max_rows_counts_bad_rows_too(tmp_path):
    good, bad = read_bytes(tmp_path, "a.jsonl", GOOD + b"x\n" + GOOD + GOOD, max_rows=3)
    assert ([line for line, _ in good], [line for line, _ in bad]) == ([1, 3], [2])


def test_files_are_known_by_their_sha256(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n')
    files: dict[str, str] = {}
    list(read_rows(SourceConfig(path=str(tmp_path / "a.jsonl")), BadRows("error"), files))
    digest = hashlib.sha256(b'{"a": 1}\n').hexdigest()
    assert files == {str(tmp_path / "a.jsonl"): digest}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian.jsonl", "no such file. Did you mean 'train.jsonl'?"),
        ("none/train.jsonl", "no such file. Nor is there a folder"),
        ("train.txt", "no such file. Did you mean 'train.jsonl'?"),
        ("notes.md", "name must end in one of .jsonl"),
    ],
)
def test_a_missing_file_is_named_with_the_nearest(tmp_path, name, message):
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / name)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_data_set_says_what_it_was_taken_for(tmp_path):
    code = (
        "from sft.config import SourceConfig; from sft.data.rows.read import read_conversations\n"
        "from sft.errors import DataError\n"
        "try: read_conversations([SourceConfig(path='nobody/nothing')], 'error')\n"
        "except DataError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    message = done.stdout.decode().strip()
    assert message.startswith(
        "nobody/nothing: no such file, so it was taken for a Hugging Face data set id, "
        "and reading that failed: "
    ), done.stderr.decode()
    assert "\n" not in message


def test_rows_of_a_data_set_lose_what_arrow_added(tmp_path):
    import datasets

    rows = [{"m": [{"a": 1}, {"b": None}]}, {"m": [{"b": "x"}]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = datasets.load_dataset(
        "json", data_files=str(tmp_path / "a.jsonl"), split="train", cache_dir=str(tmp_path / "c")
    )
    assert [arrow_row(row) for row in dataset] == [{"m": [{"a": 1}, {}]}, {"m": [{"b": "x"}]}]


def mutate(line: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(line) + 1)
    piece = rng.choice([b"", b"\xff", b"\0", b'"', b"{", b"}", b"\\u d800", b"\\ud800", b"NaN"])
    if rng.random() < 0.3:
        piece = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5)))
    return (line[:at] + piece + line[at + rng.randrange(4) :]).replace(b"\n", b" ")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_random_damage_is_counted_and_never_crashes(tmp_path, name):
    rng = random.Random(5)
    line = '{"messages": [{"role": "user", "content": "caf\u00e9 \\u00e9"}], "n": 1.5}'.encode()
    damaged = [mutate(line, rng) for _ in range(2_000)]
    data = b"\n".join(damaged)
    if name == "a.jsonl":
        good, bad = read_bytes(tmp_path, name, data)
        assert len(good) + len(bad) == sum(bool(line.strip()) for line in damaged)
        assert len(good) > 100
        assert len(bad) > 1000
        return
    for start in range(0, len(damaged), 10):
        try:
            part = b",\n".join(damaged[start : start + 10])
            read_bytes(tmp_path, name, b"[" + part + b"]" if name == "a.json" else part)
        except SFTError as error:
            assert str(error).encode()


def test_a_name_with_an_extension_is_a_file_and_never_asked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    for name in ("trian.jsonl", "data/train.jsonl"):
        with pytest.raises(ConfigError, match="no such file"):
            read(name)
