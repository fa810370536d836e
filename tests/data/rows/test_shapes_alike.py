"""Rows that say the same in different shapes are the same example: ids, labels, weights."""

import json

import pytest

import tiny
from sft.config import SourceConfig
from sft.data.rows.conversation import Origin
from sft.data.rows.formats import detect, parse
from sft.data.rows.problems import BadRows
from sft.data.rows.sources import Row
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import IGNORE_INDEX, tokenize

# <|im_start|>user \n H i <|im_end|> \n <|im_start|>assistant \n Y e s <|im_end|> \n
IDS = [3, 330, 203, 44, 77, 4, 203, 3, 302, 358, 88, 203, 61, 73, 87, 4, 203]
NO = IGNORE_INDEX
LABELS = [NO] * 11 + [61, 73, 87, 4] + [NO, NO]

USER, BOT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}
WRONG = {"role": "assistant", "content": "No"}

SHAPES = [
    {"messages": [USER, BOT]},
    {"messages": json.dumps([USER, BOT])},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, BOT]},
    {"conversations": [HUMAN, GPT]},
    {"conversations": [USER, BOT]},
    {"conversation": [{"input": "Hi", "output": "Yes"}]},
    {"dialogue": ["Hi", "Yes"]},
    {"instruction": "Hi", "input": "", "output": "Yes"},
    {"prompt": "Hi", "completion": "Yes"},
    {"prompt": [USER], "completion": [BOT]},
    {"prompt": "Hi", "completion": "Yes", "label": True},
    {"problem": "Hi", "solution": "Yes"},
    {"inputs": "Hi", "targets": "Yes"},
    {"prompt": "Hi", "chosen": "Yes", "rejected": "No"},
    {"prompt": [USER], "chosen": [BOT], "rejected": [WRONG]},
    {"chosen": [USER, BOT], "rejected": [USER, WRONG]},
    {"input_ids": IDS, "labels": [NO] * 12 + IDS[12:16] + [NO]},
    {"input_ids": IDS, "completion_mask": [0] * 12 + [1] * 4 + [0]},
    {"input_ids": IDS, "assistant_masks": [0] * 12 + [1] * 4 + [0], "attention_mask": [1] * 17},
]


@pytest.fixture(scope="module")
def template():
    return ChatTemplate(tiny.tokenizer())


def example(template, row):
    source = SourceConfig.model_validate("rows.jsonl")
    parsed = parse(Row(row, Origin("rows.jsonl", 1)), source, detect(row, {}))
    bad = BadRows("skip")
    (made,) = tokenize([parsed], template, bad, max_seq_len=2_000).examples
    assert not bad.count
    return made


@pytest.mark.parametrize("row", SHAPES, ids=lambda row: "-".join(row))
def test_all_shapes_of_one_row(row, template):
    made = example(template, row)
    assert made.input_ids.tolist() == IDS
    assert made.labels.tolist() == LABELS
    assert made.weights.tolist() == [0] * 11 + [1] * 4 + [0, 0]
    assert made.num_bytes == len("Yes<|im_end|>")


def call(name, number):
    return {"id": number, "type": "function", "function": {"name": name, "arguments": {"x": 1}}}


def trained(made):
    """The text of each trained run of tokens."""
    runs, before = [], False
    for label in made.labels.tolist():
        if label != NO:
            runs = [*runs[:-1], [*runs[-1], label]] if before else [*runs, [label]]
        before = label != NO
    return [tiny.tokenizer().decode(run) for run in runs]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OPENAI = {
    "tools": [TOOL],
    "messages": [
        USER,
        {"role": "assistant", "content": "one", "tool_calls": [call("f", "a"), call("g", "b")]},
        {"role": "tool", "tool_call_id": "a", "content": "two"},
        {"role": "tool", "tool_call_id": "b", "content": "three"},
        {**BOT, "weight": 0},
        {"role": "user", "content": "four"},
        BOT,
    ],
}


def use(name, number):
    return {"type": "tool_use", "id": number, "name": name, "input": {"x": 1}}


def result(number, text):
    return {"type": "tool_result", "tool_use_id": number, "content": text}


ANTHROPIC = {
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "messages": [
        USER,
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "one"}, use("f", "a"), use("g", "b")],
        },
        {"role": "user", "content": [result("a", "two"), result("b", "three")]},
        {**BOT, "train": False},
        {"role": "user", "content": "four"},
        BOT,
    ],
}


def test_parallel_calls_are_trained_and_their_results_are_not(template):
    made = example(template, OPENAI)
    calls = [
        f'<tool_call>\n{{"name": "{name}", "arguments": {{"x": 1}}}}\n</tool_call>' for name in "fg"
    ]
    assert trained(made) == ["\n".join(["one", *calls]) + "<|im_end|>", "Yes<|im_end|>"]


def test_blocks_are_the_same_as_messages(template):
    first, second = example(template, OPENAI), example(template, ANTHROPIC)
    assert first.input_ids.tolist() == second.input_ids.tolist()
    assert first.labels.tolist() == second.labels.tolist()


def test_arguments_as_text_are_kept_and_rendered_as_they_are(template):
    row = json.loads(json.dumps(OPENAI))
    for made in row["messages"][1]["tool_calls"]:
        made["function"]["arguments"] = '{"x": 1}'
    source = SourceConfig.model_validate("rows.jsonl")
    parsed = parse(Row(row, Origin("rows.jsonl", 1)), source, "messages")
    assert parsed.messages[1].tool_calls[0]["function"]["arguments"] == '{"x": 1}'
    assert example(template, row).input_ids.tolist() == example(template, OPENAI).input_ids.tolist()
