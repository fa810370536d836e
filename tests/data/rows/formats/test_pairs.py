"""Pairs of columns: literal rows in, literal messages out; one reason per fault."""

import pytest

from sft.data.rows.conversation import Message
from sft.data.rows.formats import pairs
from sft.data.rows.problems import RowError


@pytest.mark.parametrize(
    "pair",
    [
        pairs.PROMPT_COMPLETION,
        pairs.PROMPT_RESPONSE,
        pairs.INSTRUCTION_RESPONSE,
        pairs.QUESTION_ANSWER,
        pairs.QUERY_RESPONSE,
        pairs.INPUT_OUTPUT,
    ],
)
def test_texts(pair):
    row = {pair.prompt: " q", pair.answer: " a "}
    assert pair.matches(row)
    assert not pair.matches({pair.prompt: "q"})
    assert pair.parse(row) == [Message("user", " q"), Message("assistant", " a ", weight=1.0)]


def test_context_is_added_to_the_prompt():
    row = {"question": "q", "answer": "a", "context": "c"}
    assert pairs.QUESTION_ANSWER.parse(row)[0] == Message("user", "q\n\nc")
    row = {"instruction": "i", "input": "x", "response": "a", "context": ""}
    assert pairs.INSTRUCTION_RESPONSE.parse(row)[0] == Message("user", "i\n\nx")


def test_messages_of_the_prompt_are_not_trained_on():
    user, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    row = {"prompt": [user, answer, user], "completion": [answer]}
    assert [turn.weight for turn in pairs.PROMPT_COMPLETION.parse(row)] == [0, 0, 0, 1]
    row["prompt"][1] = {**answer, "train": True}
    assert [turn.weight for turn in pairs.PROMPT_COMPLETION.parse(row)] == [0, 1, 0, 1]
    row = {"prompt": [user], "completion": "a"}
    assert pairs.PROMPT_COMPLETION.parse(row)[1] == Message("assistant", "a", weight=1.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"completion": ""}, "completion: empty"),
        ({"completion": None}, "completion: expected text, found null"),
        ({"prompt": 1}, "prompt: expected text, found a number"),
        ({"prompt": " "}, "prompt: empty"),
        ({"context": ["c"]}, "context: expected text, found a list"),
        ({"prompt": ["x"]}, "prompt[0]: expected an object, found text"),
    ],
)
def test_reasons(change, expected):
    with pytest.raises(RowError) as caught:
        pairs.PROMPT_COMPLETION.parse({"prompt": "q", "completion": "a", **change})
    assert str(caught.value) == expected
