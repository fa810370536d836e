"""The rules for turns: conversations that pass, and one reason per fault."""

import pytest

from sft.data.conversation import Message
from sft.data.validation import validate

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
