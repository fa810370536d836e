"""Ten thousand damaged rows and hundreds of damaged files: counted, located, never a traceback."""

import copy
import gzip
import io
import json
import os
import random
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

import tiny
from sft.config import DataConfig, SourceConfig
from sft.config.load import load_config
from sft.config.yaml_text import parse_yaml
from sft.data.dataset import load_data
from sft.data.rows.problems import BadRows
from sft.data.rows.read import read_conversations
from sft.data.rows.sources import read_rows
from sft.data.template.chat_template import ChatTemplate
from sft.errors import SFTError
from sft.texts.safe import one_line

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, None]}}}
ROWS = {
    "messages": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "caf\u00e9 \U0001f600?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "7", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Seven.", "weight": 0.5},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}],
        "system": "Be kind.",
    },
    "alpaca": {"instruction": "Add", "input": "1, 2", "output": "3", "history": [["a", "b"]]},
    "prompt_completion": {"prompt": "Where?", "completion": "There."},
    "question_answer": {"question": "Why?", "answer": "So.", "system": "Be wise."},
}
JUNK = [
    *(None, True, False, 0, -1, 1e308, 10**40, "", " ", [], {}, [[]], [None], {"a": 1}),
    *("\u202e", "\ufeff", "\u0000", "\ue0f0", "e\u0301" * 9, "\U000e0041", "<|im_end|>", "\u2028"),
    *("user", "assistant", "system", "gpt", "usr", "x" * 5000, {"role": "user"}, [["a", "b"]]),
]
PIECES = [
    b"",
    b"\xff",
    b"\0",
    b'"',
    b"{",
    b"}",
    b"[",
    b",",
    b"\\",
    b"\\ud800",
    b"NaN",
    b"\r",
    b"\xc3",
]


def places(value, path=()):
    """All paths to a value within `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def change(row, rng):
    """The row with one value, key or order of values changed."""
    row = copy.deepcopy(row)
    *path, key = rng.choice(list(places(row)))
    parent = row
    for step in path:
        parent = parent[step]
    way = rng.randrange(6)
    if way == 0:
        parent[key] = rng.choice(JUNK)
    elif way == 1:
        parent[key] = [parent[key]] if rng.random() < 0.5 else {"value": parent[key]}
    elif way == 2:
        del parent[key]
    elif isinstance(parent, list):
        rng.shuffle(parent) if way == 3 else parent.insert(key, rng.choice(JUNK))
    elif way == 3:
        parent[str(key).upper()] = parent.pop(key)
    else:
        parent[rng.choice(["role", "content", "x" * 99, "", "tools", "weight"])] = rng.choice(JUNK)
    return row


def damage(line, rng):
    """The line with some bytes changed, or cut."""
    at = rng.randrange(len(line) + 1)
    way = rng.randrange(4)
    if way == 0:
        return line[:at]
    if way == 1:
        return line[:at] + bytes([rng.randrange(256)]) + line[at + 1 :]
    return line[:at] + rng.choice(PIECES) + line[at + rng.randrange(4) :]


def lines_of(row, count, rng):
    for _ in range(count):
        mutant = row
        for _ in range(rng.randrange(3)):
            mutant = change(mutant, rng) or row
        line = json.dumps(mutant, ensure_ascii=rng.random() < 0.5, allow_nan=True).encode()
        yield (damage(line, rng) if rng.random() < 0.4 else line).replace(b"\n", b" ")


@pytest.mark.parametrize("name", ROWS)
def test_ten_thousand_damaged_rows(tmp_path, name):
    rng = random.Random(f"rows of {name}")
    lines = [json.dumps(ROWS[name]).encode(), *lines_of(ROWS[name], 2_000, rng)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    loaded = read_conversations([SourceConfig(path=str(path))], "skip")
    rows = [number for number, line in enumerate(lines, start=1) if line.strip()]
    good = [row.origin.line for row in loaded.conversations]
    bad = [row.origin.line for row in loaded.bad_rows]
    assert sorted(good + bad) == rows and len(rows) > 1_990
    assert loaded.num_bad == len(bad) > 400 and len(good) > 400
    assert all(one_line(row.reason) == row.reason for row in loaded.bad_rows)


def test_damaged_rows_to_examples(tmp_path):
    rng = random.Random(3)
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps(ROWS["messages"]).encode(), *lines_of(ROWS["messages"], 600, rng)]
    path.write_bytes(b"\n".join(rows) + b"\n")
    config = DataConfig(train=[path], on_bad_row="skip", max_seq_len=2000, val_fraction=0.1)
    data = load_data(config, ChatTemplate(tiny.tokenizer()), seed=0)
    num_rows = sum(bool(line.strip()) for line in rows)
    assert sum(data.counts().values()) == data.num_rows == len(data.fates) == num_rows
    assert data.counts()["bad"] > 100 and data.counts()["used"] > 100


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_table_keeps_its_good_rows(tmp_path, quoted, packed):
    """One row in twenty is damaged: no other is lost, up to a quote that is not closed."""
    rng = random.Random(quoted)
    lines = [b"prompt,completion"]
    sound = {}
    for number in range(4_000):
        line = f'"say {number}, ""please""",yes' if quoted else f"say {number},yes"
        sound[number] = rng.random() > 0.05
        lines.append(line.encode() if sound[number] else damage(line.encode(), rng))
    data = b"\n".join(line.replace(b"\n", b" ") for line in lines)
    path = tmp_path / ("rows.csv.gz" if packed else "rows.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    report = BadRows("skip")
    got = {row.values["prompt"] for row in read_rows(SourceConfig(path=str(path)), report, {})}
    opened = [row.origin.line for row in report.rows if "is not closed" in row.reason]
    end = opened[0] - 2 if opened else len(sound)  # the number of the row with the quote
    text = 'say {}, "please"' if quoted else "say {}"
    assert all(text.format(number) in got for number in range(end) if sound[number])
    assert not any(text.format(number) in got for number in range(end, len(sound)))
    assert end + len(report.rows) >= len(sound) and end > 200


@pytest.mark.parametrize("kind", ["json", "jsonl.gz", "json.gz", "csv.gz", "txt"])
def test_damaged_files(tmp_path, kind):
    rng = random.Random(kind)
    rows = [json.dumps(row).encode() for row in ROWS.values()] * 5
    whole = {"json": b"[%s]" % b",\n".join(rows), "csv": b"a,b\n" + b'1,"2\n3"\n' * 50}
    data = whole.get(kind.split(".")[0], b"\n\n".join(rows))
    path = tmp_path / f"rows.{kind}"
    for _ in range(300):
        mutant = damage(data, rng)
        if kind.endswith("gz"):
            packed = gzip.compress(mutant, mtime=0)
            mutant = damage(packed, rng) if rng.random() < 0.7 else packed
        path.write_bytes(mutant)
        try:
            source = SourceConfig(path=str(path), format="text" if kind == "txt" else "auto")
            list(read_rows(source, BadRows("skip"), {}))
        except SFTError as error:
            assert str(error).startswith(str(path))


PARQUET = """
import pathlib, sys
from sft.config import SourceConfig
from sft.data.rows.problems import BadRows
from sft.data.rows.sources import read_rows
from sft.errors import SFTError
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.parquet")):
    print(path.name, flush=True)
    report = BadRows("skip")
    try:
        print(sum(1 for _ in read_rows(SourceConfig(path=str(path)), report, {})), report.count)
    except SFTError as error:
        print("refused", error)
"""


def test_damaged_parquet_files(tmp_path):
    rng = random.Random(9)
    rows = [
        {"prompt": f"row {i}", "messages": ROWS["sharegpt"]["conversations"]} for i in range(40)
    ]
    for number in range(300):
        out = io.BytesIO()
        options = {"compression": rng.choice(["none", "snappy", "zstd"])}
        options["data_page_version"] = rng.choice(["1.0", "2.0"])
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, out, use_dictionary=rng.random() < 0.5, **options)
        mutant = out.getvalue()
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(mutant))
            mutant = mutant[:at] + bytes([rng.randrange(256)]) + mutant[at + 1 :]
        cut = rng.randrange(len(mutant)) if rng.random() < 0.1 else len(mutant)
        (tmp_path / f"{number:03}.parquet").write_bytes(mutant[:cut])
    # In a process of its own: what is wrong in there may be a crash and no exception.
    done = subprocess.run(
        [sys.executable, "-c", PARQUET, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert sum(line.endswith(".parquet") for line in lines) == 300
    assert sum(line.startswith("refused") for line in lines) > 50


def test_damaged_configurations():
    rng = random.Random(4)
    text = (
        "model:\n  name: starter  # a comment\n  dtype: float32\ndata:\n  train:\n"
        '    - {path: "a.jsonl", weight: 2.5}\noptim: {epochs: 3, learning_rate: 1e-4}\n'
    )
    pieces = [
        *"{}[]:,-#&*!|>'\"%@`?\t\n ",
        "- - ",
        "{[",
        "!!set ",
        "&a ",
        "*a",
        "\0",
        "\x85",
        "1e999",
    ]
    for _ in range(500):
        mutant = text
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(mutant))
            mutant = mutant[:at] + rng.choice(pieces) + mutant[at + rng.randrange(3) :]
        try:
            values = parse_yaml(mutant, "run.yaml")
            if isinstance(values, dict):
                load_config(values)
        except SFTError as error:
            assert str(error)
