"""The rules for turns: conversations that pass, and one reason per fault."""

from dataclasses import replace

import pytest

from sft.data.rows.conversation import Message
from sft.data.rows.validation import validate

SYSTEM = Message("system", "")
USER = Message("user", "q")
ANSWER = Message("assistant", "a", weight=1.0)
SHOWN = Message("assistant", "a")
CALL = Message("assistant", "", ({"function": {"name": "f"}},), 1.0)
RESULT = Message("tool", "")
RESULT_OF_ID = Message("tool", "", extra={"tool_call_id": "1"})


@pytest.mark.parametrize(
    "messages",
    [
        [USER, ANSWER],
        [SYSTEM, USER, ANSWER, USER, ANSWER],
        [USER, SHOWN, USER, ANSWER],
        [USER, CALL],
        [USER, CALL, RESULT, RESULT_OF_ID, ANSWER],
        [USER, CALL, ANSWER],
        [USER, CALL, RESULT, USER, ANSWER],
        [USER, ANSWER, RESULT, ANSWER],
    ],
)
def test_good_conversations(messages):
    assert validate(messages) is None


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "messages: ends before its first message; the last message must be the assistant's"),
        ([USER], "messages: ends with a user message"),
        ([USER, CALL, RESULT], "messages: ends with a tool message"),
        ([USER, SHOWN], "messages: no assistant message to train on"),
        ([ANSWER], "messages[0]: a user message must come first, found role 'assistant'"),
        ([SYSTEM, RESULT], "messages[1]: a user message must come first, found role 'tool'"),
        ([USER, SYSTEM, ANSWER], "messages[1]: a system message may only come first"),
        ([SYSTEM, SYSTEM, USER, ANSWER], "messages[1]: a system message may only come first"),
        ([USER, USER, ANSWER], "messages[1]: two user messages in a row"),
        ([USER, ANSWER, ANSWER], "messages[2]: two assistant messages in a row"),
        ([USER, RESULT, ANSWER], "messages[1]: a tool message must follow"),
        ([USER, ANSWER, RESULT_OF_ID, ANSWER], "messages[2]: a tool message has a tool_call_id"),
        ([Message("user", " \n"), ANSWER], "messages[0]: the user message is empty"),
        ([USER, Message("assistant", "\t")], "messages[1]: the assistant message is empty"),
    ],
)
def test_reasons(messages, reason):
    assert (validate(messages) or "").startswith(reason)


def call(*ids):
    calls = tuple({"id": name, "type": "function", "function": {"name": "f"}} for name in ids)
    return Message("assistant", "", calls, 1.0)


def result(name):
    return Message("tool", "1", extra={"tool_call_id": name})


def test_parallel_calls_are_answered_in_any_order():
    assert validate([USER, call("a", "b"), result("b"), result("a"), ANSWER]) is None
    assert validate([USER, call("a"), call("b"), result("a"), result("b"), ANSWER]) is None
    again = [USER, call("a"), result("a"), ANSWER]
    assert validate([*again, *again]) is None


def test_a_result_of_a_call_that_was_not_made():
    turns = [USER, call("call_a1", "call_b2"), result("call_b2"), result("call_b3"), ANSWER]
    assert validate(turns) == (
        "messages[3]: tool_call_id 'call_b3' is not the id of a call before it. "
        "Did you mean 'call_b2'?"
    )
    assert validate([USER, call("a"), result("xyz"), ANSWER]) == (
        "messages[2]: tool_call_id 'xyz' is not the id of a call before it. Calls before it: a."
    )
    later = [USER, call("a"), result("b"), call("b"), result("b"), ANSWER]
    assert (validate(later) or "").startswith("messages[2]: tool_call_id 'b'")


def test_messages_are_named_by_their_place_in_the_file():
    turns = [USER, ANSWER, replace(ANSWER, place=4)]
    assert validate(turns, "turns", has_places=True) == "turns[4]: two assistant messages in a row"
