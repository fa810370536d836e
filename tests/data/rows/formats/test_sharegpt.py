"""ShareGPT's format: literal rows in, literal messages out; one reason per fault."""

import pytest

from sft.data.rows.conversation import Message
from sft.data.rows.formats import sharegpt
from sft.data.rows.problems import RowError


def parse(*turns, column="conversations"):
    row = {column: [dict(zip(("from", "value"), turn, strict=True)) for turn in turns]}
    assert sharegpt.has_turns(row)
    return sharegpt.parse(row)


@pytest.mark.parametrize("column", ["conversations", "conversation"])
@pytest.mark.parametrize("speaker", ["gpt", "assistant", "chatgpt", "bard", "model"])
def test_speakers(speaker, column):
    turns = parse(("system", "s"), ("human", "q"), (speaker, "a"), ("user", "q"), column=column)
    assert turns == [
        Message("system", "s"),
        Message("user", "q"),
        Message("assistant", "a", weight=1.0),
        Message("user", "q"),
    ]


def test_role_and_content_instead_of_from_and_value():
    row = {"conversations": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}]}
    assert [turn.role for turn in sharegpt.parse(row)] == ["user", "assistant"]


@pytest.mark.parametrize("speaker", ["function_call", "tool_call"])
@pytest.mark.parametrize("answerer", ["observation", "tool", "function_response", "ipython"])
def test_calls_and_their_results(speaker, answerer):
    call, result = parse((speaker, '{"name": "f", "arguments": {"a": null}}'), (answerer, "{}"))
    function = {"name": "f", "arguments": {"a": None}}
    assert call == Message("assistant", "", ({"type": "function", "function": function},), 1.0)
    assert result == Message("tool", "{}")


def test_several_calls_in_one_turn():
    (call,) = parse(("function_call", '[{"name": "f", "arguments": "{}"}, {"name": "g"}]'))
    assert [item["function"]["name"] for item in call.tool_calls] == ["f", "g"]


@pytest.mark.parametrize("text", ["f(1)", '{"no": "name"}', "[]", '{"name": "f"', "3"])
def test_a_call_that_is_not_json_stays_text(text):
    assert parse(("function_call", text)) == [Message("assistant", text, weight=1.0)]


def test_calls_that_are_given_beside_their_text():
    function = {"name": "f", "arguments": {}}
    call = {"id": "1", "type": "function", "function": function}
    turns = [
        {"from": "function_call", "value": '{"name": "f", "arguments": {}}', "tool_calls": [call]},
        {"from": "observation", "value": "2", "tool_call_id": "1"},
    ]
    assert sharegpt.parse({"conversations": turns}) == [
        Message("assistant", "", (call,), 1.0),
        Message("tool", "2", extra={"tool_call_id": "1"}),
    ]


ASKED = [Message("user", "q"), Message("assistant", "a", weight=1.0)]


@pytest.mark.parametrize("column", sharegpt.COLUMNS)
@pytest.mark.parametrize(
    "turns",
    [
        ["q", "a"],
        [{"input": "q", "output": "a"}],
        [{"human": "q", "assistant": "a"}],
        [{"from": "human", "value": "q"}, "a"],
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        '[{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]',
    ],
)
def test_other_ways_to_write_turns(column, turns):
    assert sharegpt.parse({column: turns}) == ASKED


def test_pairs_count_once_each_and_the_first_may_have_a_system_text():
    pairs = [{"system": "s", "input": "q", "output": "a"}, {"input": "q", "output": "a"}]
    messages = sharegpt.parse({"conversation": pairs})
    assert messages == [Message("system", "s"), *ASKED, *ASKED]
    assert [message.place for message in messages] == [0, 0, 0, 1, 1]
    with pytest.raises(RowError, match=r"conversation\[1\].value: expected text, found null"):
        sharegpt.parse({"conversation": [pairs[0], {"input": "q", "output": None}]})


def test_a_dialogue_of_one_text_is_another_kind_of_data():
    assert not sharegpt.has_turns({"dialogue": "A: hi B: ho", "summary": "They greet."})
    assert sharegpt.has_turns({"dialogue": ["hi", "ho"]})


def test_weight_of_a_turn():
    row = {"conversations": [{"from": "gpt", "value": "a", "train": False}]}
    assert sharegpt.parse(row)[0].weight == 0


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ("x", "conversations: expected a list of turns, found text"),
        ([1], "conversations[0]: expected an object, found a number"),
        ([{"value": "x"}], "conversations[0].from: missing; found value"),
        ([{"from": "gpt"}], "conversations[0].value: missing; found from"),
        ([{"from": "gpt", "value": None}], "conversations[0].value: expected text, found null"),
        (
            [{"from": "Human", "value": "x"}],
            "conversations[0].from: unknown role 'Human'. Did you mean 'human'?",
        ),
    ],
)
def test_reasons(turns, expected):
    with pytest.raises(RowError) as caught:
        sharegpt.parse({"conversations": turns})
    assert str(caught.value) == expected
