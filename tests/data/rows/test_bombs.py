"""Small files that decode to far too much: refused quickly, in bounded memory."""

import bz2
import gzip
import json
import os
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from sft.config import SourceConfig
from sft.config.yaml_text import MAX_VALUES, parse_yaml
from sft.data.rows.files import MAX_RATIO
from sft.data.rows.lines import MAX_ROW_BYTES
from sft.data.rows.problems import BadRows
from sft.data.rows.sources import read_rows
from sft.errors import ConfigError, DataError

# Reads each file, and says what came of it, the seconds of computing and the memory in MB that
# it took beyond what all need (Arrow included).
READER = """
import json, resource, sys, time
import pyarrow.parquet, pyarrow.compute
from sft.config import SourceConfig
from sft.data.rows.problems import BadRows
from sft.data.rows.sources import read_rows
from sft.errors import SFTError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before = peak()
for path in sys.argv[1:]:
    start, report, num_rows, message = time.process_time(), BadRows("skip"), 0, ""
    try:
        for row in read_rows(SourceConfig(path=path), report, {}):
            num_rows += 1
    except SFTError as error:
        message = str(error)
    seconds = time.process_time() - start
    bad = [[row.origin.line, row.reason] for row in report.rows]
    print(json.dumps([message, num_rows, bad, seconds, peak() - before]))
"""


def read_elsewhere(*paths):
    done = subprocess.run(
        [sys.executable, "-c", READER, *map(str, paths)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


TEXT_BOMBS = {
    "one_line.jsonl.gz": lambda: gzip.compress(b"x" * 100_000_000),
    "empty_lines.jsonl.gz": lambda: gzip.compress(b"\n" * 10_000_000),
    "tiny_rows.jsonl.gz": lambda: gzip.compress(b"{}\n" * 3_000_000),
    "lists.json.gz": lambda: gzip.compress(b'[{"a":[' + b"[]," * 30_000_000),
    "quote.csv.gz": lambda: gzip.compress(b'a,b\n"' + b"x\n" * 5_000_000),
    "text.jsonl.bz2": lambda: bz2.compress(b"x" * 70_000_000),
    "text.jsonl.zst": lambda: pyarrow.compress(b"x" * 100_000_000, "zstd", asbytes=True),
}


def test_compressed_bombs(tmp_path):
    for name, data in TEXT_BOMBS.items():
        (tmp_path / name).write_bytes(data())
        assert (tmp_path / name).stat().st_size < 120_000
    paths = [tmp_path / name for name in TEXT_BOMBS]
    for path, (message, _, _, seconds, memory) in zip(paths, read_elsewhere(*paths), strict=True):
        assert message.startswith(f"{path}: ") and "decompression bomb" in message
        assert "decompress it first: " in message
        assert seconds < 5 and memory < 300, (path, seconds, memory)


def parquet_bombs(folder):
    """A gigabyte and more in files of kilobytes, each in another way."""
    text, num = "x" * 1_000_000, 100_000
    indices = pyarrow.array([0] * num, pyarrow.int32())
    column = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([text]))
    offsets = pyarrow.array([0, num], pyarrow.int32())
    structs = pyarrow.StructArray.from_arrays([column, column], ["role", "content"])
    large = pyarrow.DictionaryArray.from_arrays(
        indices, pyarrow.array([text.encode()], pyarrow.large_binary())
    )
    tables = {
        "dictionary": pyarrow.table({"prompt": column, "completion": column}),
        "bytes": pyarrow.table({"prompt": large}),
        "one_row": pyarrow.table({"messages": pyarrow.ListArray.from_arrays(offsets, structs)}),
        "page": pyarrow.table({"prompt": ["z" * 100_000_000]}),
        "nulls": pyarrow.table({"prompt": pyarrow.nulls(100_000_000, pyarrow.string())}),
        "deltas": pyarrow.table({"prompt": [text[:100_000] + str(i) for i in range(1_000)]}),
    }
    for name, table in tables.items():
        options = {"compression": "zstd", "store_schema": False}
        if name in ("page", "deltas"):
            options["use_dictionary"] = False
        if name == "deltas":
            options["column_encoding"] = {"prompt": "DELTA_BYTE_ARRAY"}
        path = folder / f"{name}.parquet"
        pyarrow.parquet.write_table(table, path, row_group_size=len(table), **options)
        assert path.stat().st_size < 300_000
        yield path
    yield forged(folder / "page.parquet", folder / "footer.parquet")


def forged(path, copy):
    """A copy of `page.parquet` whose footer claims that it decodes to nothing."""
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    head, tail = data[:footer], data[footer:]
    size, number = 2 * 100_000_035, b""  # Thrift's zigzag, seven bits a byte, the lowest first
    while size:
        number += bytes([size % 128 | (128 if size >> 7 else 0)])
        size >>= 7
    assert number in tail
    copy.write_bytes(head + tail.replace(number, b"\x80" * (len(number) - 1) + b"\0"))
    assert pyarrow.parquet.read_metadata(copy).row_group(0).total_byte_size < 1_000
    return copy


def test_parquet_bombs(tmp_path):
    paths = list(parquet_bombs(tmp_path))
    for path, (message, num_rows, bad, seconds, memory) in zip(
        paths, read_elsewhere(*paths), strict=True
    ):
        assert message.startswith(f"{path}: ") and "decompression bomb" in message
        assert not bad and num_rows < 1_000
        assert seconds < 5 and memory < 600, (path, seconds, memory)


def test_a_parquet_page_that_lies(tmp_path):
    """Its header says that a page of 1.2 MB decodes to 134."""
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"a": ["x" * 1_200_000]})
    pyarrow.parquet.write_table(table, path, use_dictionary=False, compression="zstd")
    data = path.read_bytes()
    assert data[:7] == b"PAR1\x15\x00\x15" and data[10] < 128  # a data page, and its size
    path.write_bytes(data[:7] + b"\xfe\xff\xff\x7f" + data[11:])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(read_rows(SourceConfig(path=str(path)), BadRows("skip"), {}))


def test_text_that_is_well_compressed_is_no_bomb(tmp_path):
    """The same rows again and again, as in a test of one's own."""
    line = b'{"prompt": "What is the capital of France?", "completion": "Paris."}\n'
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(line * 20_000))
    assert 20_000 * len(line) / path.stat().st_size > MAX_RATIO
    rows = list(read_rows(SourceConfig(path=str(path)), BadRows("error"), {}))
    assert len(rows) == 20_000
    table = pyarrow.table({"prompt": ["What is the capital of France?"] * 20_000})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows = list(read_rows(SourceConfig(path=str(tmp_path / "a.parquet")), BadRows("error"), {}))
    assert len(rows) == 20_000


def test_large_files_and_rows_in_small_memory(tmp_path):
    """Rows are read one by one, whatever the kind of file, and one of 12 MB is passed over."""
    long, row = b'{"a": "' + b"x" * 12_000_000 + b'"}', b'{"a": "' + b"y" * 3_000 + b'"}'
    (tmp_path / "a.jsonl").write_bytes(row + b"\n" + long + b"\n" + (row + b"\n") * 16_000)
    document = b"[" + row + b",\n" + long + b",\n" + (row + b",\n") * 2_999 + row + b"]"
    (tmp_path / "b.json").write_bytes(document)
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(b'{"n": 1, "rows": ' + document + b"}", 1))
    cell = b'"' + (b"z" * 80 + b"\n") * 150_000 + b'"'
    lines = [b"a,b", b"1,2", cell + b",2", *[b"y" * 3_000 + b",2"] * 3_000]
    (tmp_path / "d.csv").write_bytes(b"\n".join(lines))
    table = pyarrow.table({"a": ["y", "z" * 12_000_000, *["y" * 3_000] * 3_000]})
    pyarrow.parquet.write_table(table, tmp_path / "e.parquet", use_dictionary=False)
    paths = sorted(tmp_path.iterdir())
    assert paths[0].stat().st_size > 60_000_000
    for path, (message, num_rows, bad, _, memory) in zip(
        paths, read_elsewhere(*paths), strict=True
    ):
        assert (message, num_rows) == ("", 16_001 if path == paths[0] else 3_001), path
        ((line, reason),) = bad
        assert line == (3 if path.suffix == ".csv" else 2)
        assert f"longer than {MAX_ROW_BYTES:,} bytes" in reason
        assert memory < (250 if path.suffix == ".parquet" else 100), path


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b"{" + b",".join(b'"k%d":1' % i for i in range(200_000)) + b',"k199999":1}',
            "given twice",
        ),
        (b'{"a": ' + b"9" * 5_000_000 + b"}", "a number of 5,000,000 digits is too large"),
        (b'{"a": ' + b"9" * 3_000_000 + b".5}", "is too large"),
        (b"[" * 9_000_000, "nested more than 100 levels deep"),
        (b'{"a":' * 1_000_000, "nested more than 100 levels deep"),
    ],
    ids=["keys", "digits", "float", "lists", "objects"],
)
def test_a_line_that_takes_long(tmp_path, data, reason):
    (tmp_path / "a.jsonl").write_bytes(data + b'\n{"a": 1}\n')
    ((message, num_rows, ((line, found),), seconds, memory),) = read_elsewhere(tmp_path / "a.jsonl")
    assert (message, num_rows, line) == ("", 1, 1) and reason in found
    assert seconds < 5 and memory < 300


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ALIASES, "run.yaml:2: aliases (*name) are not read"),
        ("a: [" + "1," * 30_000 + "]", f"run.yaml:1: more than {MAX_VALUES:,} values"),
        ("[" * 30_000, "run.yaml: not valid YAML (nested too deeply)"),
        ("- " * 30_000, "run.yaml: not valid YAML (nested too deeply)"),
        ("a: " + "9" * 900_000, "run.yaml: not valid YAML (Exceeds the limit"),
        ("a: !!timestamp x", "run.yaml:1: tags (!!timestamp) are not read"),
        ("a: !!set [1]", "run.yaml:1: tags (!!set) are not read"),
        ("a: !!bool x", "run.yaml:1: tags (!!bool) are not read"),
        ("a:\n  !!merge <<: {b: 1}", "run.yaml:2: tags (!!merge) are not read"),
        ('a: "\\0"', "run.yaml:1: holds a NUL character or half a surrogate pair"),
        ('a: "\\ud800"', "run.yaml:1: holds a NUL character or half a surrogate pair"),
    ],
    ids=lambda value: value[:20],
)
def test_a_configuration_that_is_a_bomb(text, problem):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "run.yaml")
    assert str(caught.value).startswith(problem)
