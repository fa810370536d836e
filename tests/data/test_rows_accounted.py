"""Rows that are too long, empty or there twice: every row and every token of them is accounted."""

import json

import pytest

import tiny
from sft.config import DataConfig
from sft.data.dataset import load_data
from sft.data.rows.conversation import Origin
from sft.data.rows.problems import BadRows
from sft.data.rows.read import read_conversations
from sft.data.template.chat_template import ChatTemplate
from sft.errors import DataError

LIMIT = 40


@pytest.fixture(scope="module")
def template():
    return ChatTemplate(tiny.tokenizer())


def num_tokens(template, prompt, completion):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return len(tiny.tokenizer()(template.render(messages), add_special_tokens=False).input_ids)


def row_of(template, length, name):
    """A row of exactly `length` tokens, most of them in the answer."""
    prompt = f"{name}?"
    answer = "z" * (length - num_tokens(template, prompt, "z") + 1)
    assert num_tokens(template, prompt, answer) == length
    return {"prompt": prompt, "completion": answer}


def load(folder, template, rows, **settings):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"val_fraction": 0.0, "max_seq_len": LIMIT, "on_bad_row": "skip"} | settings
    config = DataConfig.model_validate({"train": [path], **settings})
    return load_data(config, template, seed=0)


@pytest.mark.parametrize(
    ("overflow", "kept", "lost", "counts"),
    [
        ("drop", [LIMIT - 1, LIMIT], LIMIT + 1, {"used": 2, "dropped": 1}),
        ("truncate", [LIMIT - 1, LIMIT, LIMIT], 1, {"used": 2, "truncated": 1}),
        ("error", [LIMIT - 1, LIMIT], LIMIT + 1, {"used": 2, "bad": 1}),
    ],
)
def test_one_token_less_and_more_than_the_limit(tmp_path, template, overflow, kept, lost, counts):
    lengths = (LIMIT - 1, LIMIT, LIMIT + 1)
    rows = [row_of(template, length, f"row {length}") for length in lengths]
    data = load(tmp_path, template, rows, overflow=overflow)
    assert [example.num_tokens for example in data.train] == kept
    assert sum(kept) + lost == sum(lengths)
    assert {name: count for name, count in data.counts().items() if count} == counts
    (fate,) = (fate for fate in data.fates if fate.status != "used")
    assert fate.reason.startswith(f"{LIMIT + 1} tokens, max_seq_len is {LIMIT}")


@pytest.mark.parametrize("overflow", ["drop", "truncate"])
def test_half_of_the_rows_too_long(tmp_path, template, overflow):
    lengths = [LIMIT - 5, LIMIT + 20] * 10
    rows = [row_of(template, length, f"row {i}") for i, length in enumerate(lengths)]
    data = load(tmp_path, template, rows, overflow=overflow)
    kept = sum(example.num_tokens for example in data.train)
    fates = [fate for fate in data.fates if fate.status in ("dropped", "truncated")]
    assert [fate.origin.line for fate in fates] == list(range(2, 21, 2))
    lost = sum(int(fate.reason.split()[0]) - LIMIT * (overflow == "truncate") for fate in fates)
    assert kept + lost == sum(lengths)
    status = "dropped" if overflow == "drop" else "truncated"
    assert any(f"10 over-long rows were {status}" in note for note in data.notes)


@pytest.mark.parametrize("overflow", ["drop", "truncate"])
def test_all_prompts_too_long(tmp_path, template, overflow):
    rows = [{"prompt": "z" * 100 + str(i), "completion": "b"} for i in range(5)]
    with pytest.raises(DataError, match=r"every row is longer than data\.max_seq_len = 40"):
        load(tmp_path, template, rows, overflow=overflow)


def test_empty_answers_are_never_trained_on(tmp_path, template):
    rows = [{"prompt": f"p{i}", "completion": text} for i, text in enumerate(["", " \n", "\u3000"])]
    with pytest.raises(DataError, match="no usable row in 3:\n       3  completion: empty"):
        load(tmp_path, template, rows)
    data = load(tmp_path, template, [*rows, {"prompt": "p", "completion": "b"}])
    assert data.counts()["bad"] == 3 and len(data.train) == 1


def test_rows_that_are_there_twice(tmp_path, template):
    same = {"prompt": "What is the capital of France?", "completion": "Paris."}
    rows = [
        same,
        *({"prompt": f"Number {i}?", "completion": f"It is {i}."} for i in range(40)),
        same,
    ]
    data = load(tmp_path, template, rows, val_fraction=0.3)
    sides = {fate.status for fate in data.fates if fate.origin.line in (1, 42)}
    assert len(sides) == 1  # never one to train on and its copy to measure by
    val = tmp_path / "val.jsonl"
    val.write_text(json.dumps(same) + "\n" + json.dumps({"prompt": "q", "completion": "a"}) + "\n")
    data = load(tmp_path, template, rows, val=[val])
    leaked = [fate for fate in data.fates if fate.reason == "its prompt is also in data.train"]
    assert [str(fate.origin) for fate in leaked] == [f"{val}:1"]
    assert sum(data.counts().values()) == data.num_rows == 44


def test_hidden_characters_in_keys_do_not_reach_the_terminal(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"\\u001b[2J\\u202ex": 1}\n' * 3)
    with pytest.raises(DataError) as caught:
        read_conversations(DataConfig(train=[path]).train, "error")
    assert r"\x1b[2J\u202ex" in str(caught.value)
    assert "\x1b" not in str(caught.value) and "\u202e" not in str(caught.value)


def test_bytes_that_differ_are_one_reason():
    report = BadRows("skip")
    for line, byte in enumerate((0xE9, 0xFC, 0xDF), start=1):
        report.add(Origin("a.csv", line), f"column {line}: byte 0x{byte:X} is not UTF-8")
    assert report.table() == "       3  column *: byte * is not UTF-8 [a.csv:1, a.csv:2, a.csv:3]"
