"""Anthropic's blocks as OpenAI's messages, and parts of a content that are not text."""

import pytest

from sft.config import SourceConfig
from sft.data.rows.conversation import Message, Origin
from sft.data.rows.formats import messages, parse
from sft.data.rows.formats.content import MEDIA_TYPES
from sft.data.rows.problems import RowError
from sft.data.rows.sources import Row

USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
TEXT = {"type": "text", "text": "x"}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "2"}


def convert(*turns):
    return messages.parse_messages(list(turns), "messages")


def user(*parts):
    return {"role": "user", "content": list(parts)}


def bot(*parts, **more):
    return {"role": "assistant", "content": list(parts), **more}


def reason(*turns):
    with pytest.raises(RowError) as caught:
        convert(*turns)
    return str(caught.value)


def test_calls_and_reasoning_of_the_assistant():
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    assert convert(bot(thought, TEXT, USE, {**USE, "id": "t2"}, weight=0.5)) == [
        Message("assistant", "x", (CALL, {**CALL, "id": "t2"}), 0.5, {"reasoning_content": "hm"})
    ]


def test_results_become_messages_of_their_own():
    parts = [{**RESULT, "content": [TEXT, TEXT]}, RESULT, {"type": "tool_result"}, TEXT]
    assert convert(user(*parts)) == [
        Message("tool", "xx", extra={"tool_call_id": "t1"}),
        Message("tool", "2", extra={"tool_call_id": "t1"}),
        Message("tool", ""),
        Message("user", "x"),
    ]


def test_a_whole_row_with_its_tools():
    row = {
        "system": "s",
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "messages": [user(TEXT), bot(USE), user(RESULT), bot(TEXT)],
    }
    got = parse(Row(row, Origin("a", 1)), SourceConfig.model_validate("a"), "messages")
    roles = [turn.role for turn in got.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert got.tools[0]["function"]["parameters"] == {"type": "object"}


def test_errors_name_the_place_in_the_file():
    turns = [user(TEXT), bot(USE), user(RESULT, RESULT), bot(TEXT), bot(TEXT)]
    with pytest.raises(RowError) as caught:
        parse(
            Row({"messages": turns}, Origin("a", 1)), SourceConfig.model_validate("a"), "messages"
        )
    assert str(caught.value) == "messages[4]: two assistant messages in a row"
    wrong = {**RESULT, "content": [TEXT, {"type": "image"}]}
    assert reason(user(TEXT), user(RESULT, wrong)).startswith(
        "messages[1].content[1].content[1]: a part of type 'image'; sft trains on text only"
    )


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (bot(USE, TEXT), "messages[0].content[1]: comes after a tool call, which must end the"),
        (bot(USE, tool_calls=[CALL]), "messages[0]: has tool_calls beside the content, and in it"),
        (
            bot({"type": "thinking", "thinking": "a"}, reasoning_content="b"),
            "messages[0]: has reasoning_content beside the content, and in it",
        ),
        (bot({"type": "thinking"}), "messages[0].content[0].thinking: missing; found type"),
        (bot({"type": "tool_use"}), "messages[0].content[0].name: missing; found type"),
        (bot(RESULT), "messages[0].content[0].type: only parts of type 'text' can be used"),
        (user(USE), "messages[0].content[0].type: only parts of type 'text' can be used"),
        (user(RESULT, "x"), "messages[0].content[1]: expected an object with type and text"),
    ],
)
def test_reasons(turn, expected):
    assert reason(turn).startswith(expected)


@pytest.mark.parametrize("kind", MEDIA_TYPES)
@pytest.mark.parametrize("others", [[TEXT], [RESULT]])
def test_parts_that_are_not_text_are_refused(kind, others):
    assert reason(user(*others, {"type": kind})) == (
        f"messages[0].content[1]: a part of type '{kind}'; sft trains on text only; "
        "leave such rows out with on_bad_row: skip"
    )


def test_texts_of_the_responses_api():
    parts = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]
    assert convert(user(*parts)) == [Message("user", "ab")]
