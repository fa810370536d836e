"""Rows of every shape, damaged at random: a conversation that can be written, or one reason."""

import copy
import json
import random

from sft.config import SourceConfig
from sft.data.rows.conversation import Origin
from sft.data.rows.formats import FORMATS, detect, parse
from sft.data.rows.formats.writing import WRITERS, write
from sft.data.rows.sources import Row
from sft.errors import DataError

USER, BOT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
USE = {"type": "tool_use", "id": "1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "r"}]}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning": "r"}
SAID = {"from": "function_call", "value": '{"name": "f"}', "tool_calls": [CALL]}
ROWS = [
    {"messages": [USER, BOT], "tools": "[]"},
    {"messages": [USER, CALLING, {"role": "tool", "tool_call_id": "1", "content": "1"}, BOT]},
    {
        "tools": [{"name": "f", "input_schema": {}}],
        "messages": [USER, {**BOT, "content": [USE]}, {**USER, "content": [RESULT]}, BOT],
    },
    {"conversations": [HUMAN, SAID, {"from": "observation", "value": "1"}, GPT]},
    {"conversation": [{"input": "q", "output": "a", "system": "s"}]},
    {"dialogue": ["q", "a"]},
    {"instruction": "q", "input": "i", "output": "a", "history": [["q", "a"]]},
    {"prompt": [USER], "completion": [BOT], "label": True},
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"chosen": [USER, BOT, USER, BOT], "rejected": [USER, BOT, USER, BOT]},
    {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT},
    {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": ""},
    {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "completion_mask": [0, 1, 1]},
    {"problem": "q", "solution": "a", "images": [], "functions": [{"name": "f"}]},
]
VALUES = [None, "", "x", "[", "[{", "[]", "Human:", "\n\nAssistant: x", 0, -1, 1.5, 10**30, True]
VALUES += [[], {}, [None], [1], ["x"], [[]], [{}], {"role": "user"}, {"from": "gpt"}, RESULT, USE]
VALUES += [{"type": "text"}, {"type": "tool_use"}, {"type": "tool_result"}, {"type": "thinking"}]
KEYS = ["role", "content", "from", "value", "type", "text", "tool_calls", "weight", "train", "name"]
KEYS += ["id", "input", "chosen", "rejected", "messages", "tools", "reasoning", "labels", "image"]


def places(value, path=()):
    """The path to everything within `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def damaged(rng, row):
    row = copy.deepcopy(row)
    for _ in range(rng.randint(1, 3)):
        path = rng.choice([*places(row)] or [("messages",)])
        holder = row
        for key in path[:-1]:
            holder = holder[key]
        value, way = copy.deepcopy(rng.choice(VALUES)), rng.random()
        if way < 0.5 or path[-1] not in (holder if isinstance(holder, dict) else range(99)):
            holder[path[-1]] = value
        elif way < 0.65:
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder[rng.choice(KEYS)] = value
        else:
            holder.insert(0, value)
    return row


def test_damage_is_told_and_what_can_be_read_can_be_written():
    rng, source = random.Random(3), SourceConfig.model_validate("rows.jsonl")
    num_read = num_refused = num_written = 0
    for _ in range(3_000):
        row = damaged(rng, rng.choice(ROWS))
        try:
            name = rng.choice([*FORMATS]) if rng.random() < 0.1 else detect(row, {})
            read = parse(Row(row, Origin("rows.jsonl", 1)), source, name)
        except DataError as error:
            assert 0 < len(str(error)) < 3_000
            num_refused += 1
            continue
        num_read += 1
        for shape in WRITERS:
            try:
                written = json.loads(json.dumps(write(read, shape)))
            except DataError:
                continue
            assert parse(Row(written, read.origin), source, shape) == read
            num_written += 1
    assert min(num_read, num_refused, num_written) > 500
