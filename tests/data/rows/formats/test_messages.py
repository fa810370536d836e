"""OpenAI's format: literal rows in, literal messages out; one reason per fault."""

import json

import pytest

from sft.data.rows.conversation import Message
from sft.data.rows.formats import FORMATS, messages
from sft.data.rows.problems import RowError

USER = {"role": "user", "content": "q"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":  1}'}}


def parse(*turns):
    assert FORMATS["messages"].matches({"messages": turns})
    return messages.parse({"messages": list(turns)})


def reason(*turns):
    with pytest.raises(RowError) as caught:
        parse(*turns)
    return str(caught.value)


def test_roles_contents_and_default_weights():
    turns = parse(
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "reasoning_content": "r", "name": None},
    )
    assert turns == [
        Message("system", "s"),
        Message("user", "ab"),
        Message("assistant", "c", weight=1.0, extra={"reasoning_content": "r"}),
    ]


def test_tool_calls_are_kept_exactly():
    turns = parse(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "", "tool_call_id": "1", "name": "f"},
        {"role": "assistant", "content": "done", "tool_calls": []},
    )
    assert turns[1:] == [
        Message("assistant", "", (CALL,), 1.0),
        Message("tool", "", extra={"name": "f", "tool_call_id": "1"}),
        Message("assistant", "done", (), 1.0),
    ]
    assert turns[1].tool_calls[0] is CALL


def test_a_call_without_its_wrapper_gets_one():
    bare = {"name": "f", "arguments": {"a": None}}
    turns = parse({"role": "assistant", "tool_calls": [bare]})
    assert turns[0].tool_calls == ({"type": "function", "function": bare},)


def test_the_legacy_function_call():
    turns = parse(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    )
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert turns == [
        Message("assistant", "", (call,), 1.0),
        Message("tool", "1", extra={"name": "f"}),
    ]


@pytest.mark.parametrize(
    ("key", "value", "weight"),
    [("train", True, 1.0), ("train", False, 0.0), ("weight", 0, 0.0), ("weight", 0.5, 0.5)],
)
def test_train_and_weight(key, value, weight):
    assert parse({"role": "assistant", "content": "a", key: value})[0].weight == weight


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ("x", "messages[0]: expected an object, found text"),
        ({"content": "x"}, "messages[0].role: missing; found content"),
        ({"role": 1, "content": "x"}, "messages[0].role: expected text, found a number"),
        (
            {"role": "assitant", "content": "x"},
            "messages[0].role: unknown role 'assitant'. Did you mean 'assistant'?",
        ),
        (
            {"role": "human", "content": "x"},
            "messages[0].role: unknown role 'human'. "
            "Known roles: system, developer, user, assistant, tool, function.",
        ),
        ({"role": "user"}, "messages[0].content: missing; found role"),
        ({"role": "user", "content": None}, "messages[0].content: expected text, found null"),
        ({"role": "user", "content": {"a": 1}}, "messages[0].content: expected text, found an obj"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "messages[0].content[0]: a part of type 'image_url'; sft trains on text only; "
            "leave such rows out with on_bad_row: skip",
        ),
        (
            {"role": "user", "content": [{"type": "riddle"}]},
            "messages[0].content[0].type: only parts of type 'text' can be used, found 'riddle'",
        ),
        (
            {"role": "user", "content": ["x"]},
            "messages[0].content[0]: expected an object with type and text, found text",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": 1}]},
            "messages[0].content[0].text: expected text, found a number",
        ),
        (
            {"role": "user", "content": "x", "train": True},
            "messages[0].train: only assistant messages are trained on, not user",
        ),
        (
            {"role": "user", "content": "x", "weight": 1},
            "messages[0].weight: only assistant messages are trained on, not user",
        ),
        (
            {"role": "assistant", "content": "x", "train": 1},
            "messages[0].train: expected true or false, found a number",
        ),
        (
            {"role": "assistant", "content": "x", "weight": True},
            "messages[0].weight: expected a number, found true",
        ),
        (
            {"role": "assistant", "content": "x", "weight": -1},
            "messages[0].weight: expected a number from 0 to 100, found -1",
        ),
        (
            {"role": "assistant", "content": "x", "weight": 10**400},
            "messages[0].weight: expected a number from 0 to 100, found inf",
        ),
        (
            {"role": "assistant", "content": "x", "weight": 1, "train": True},
            "messages[0]: has both train and weight",
        ),
        (
            {"role": "assistant", "content": "x", "name": 1},
            "messages[0].name: expected text, found a number",
        ),
        (
            {"role": "user", "content": "x", "tool_calls": [CALL]},
            "messages[0].tool_calls: only assistant messages call tools, not user",
        ),
        (
            {"role": "assistant", "tool_calls": CALL},
            "messages[0].tool_calls: expected a list, found an object",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": "f"}]},
            "messages[0].tool_calls[0].function: expected an object, found text",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]},
            "messages[0].tool_calls[0].name: missing; found arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]},
            "messages[0].tool_calls[0].arguments: expected an object, found a list",
        ),
        (
            {"role": "assistant", "tool_calls": [CALL], "function_call": {"name": "f"}},
            "messages[0]: has both tool_calls and function_call",
        ),
    ],
)
def test_reasons(turn, expected):
    assert reason(turn).startswith(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hi", "messages: expected a list of messages, found text"),
        ("[{", "messages: column 3: not valid JSON"),
        (
            "[{'role': 'user'}]",
            "messages: column 3: not valid JSON (Expecting property name enclosed in double "
            "quotes); this looks like Python's notation: write it with json.dumps",
        ),
    ],
)
def test_messages_must_be_a_list(value, expected):
    with pytest.raises(RowError) as caught:
        messages.parse({"messages": value})
    assert str(caught.value).startswith(expected)


def test_lists_may_be_json_text():
    calling = {"role": "assistant", "tool_calls": json.dumps([CALL])}
    turns = [USER, calling, {**USER, "tool_calls": ""}]
    assert messages.parse({"messages": json.dumps(turns)}) == [
        Message("user", "q"),
        Message("assistant", "", (CALL,), 1.0),
        Message("user", "q"),
    ]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_under_any_of_its_names(key):
    (turn,) = parse({"role": "assistant", "content": "a", key: "r"})
    assert turn == Message("assistant", "a", weight=1.0, extra={"reasoning_content": "r"})


def test_reasoning_given_twice():
    twice = {"role": "assistant", "content": "a", "reasoning": "r", "thinking": "r"}
    assert parse(twice)[0].extra == {"reasoning_content": "r"}
    assert parse({**twice, "thinking": ""})[0].extra == {"reasoning_content": "r"}
    assert parse({"role": "assistant", "content": "a", "reasoning": None})[0].extra == {}
    assert reason({**twice, "thinking": "s"}) == (
        "messages[0]: has reasoning and thinking, which are not the same"
    )
    assert reason({"role": "assistant", "content": "a", "reasoning": ["r"]}) == (
        "messages[0].reasoning: expected text, found a list"
    )
