"""Pairs of columns: literal rows in, literal messages out; one reason per fault."""

import pytest

from sft.data.rows.conversation import Message
from sft.data.rows.formats import detect, pairs
from sft.data.rows.problems import RowError
from sft.errors import DataError


@pytest.mark.parametrize(
    "pair",
    [
        pairs.PAIRS["prompt_completion"],
        pairs.PAIRS["prompt_response"],
        pairs.PAIRS["instruction_response"],
        pairs.PAIRS["question_answer"],
        pairs.PAIRS["query_response"],
        pairs.PAIRS["input_output"],
    ],
)
def test_texts(pair):
    row = {pair.prompt: " q", pair.answer: " a "}
    assert detect(row, {}) in pairs.PAIRS
    with pytest.raises(DataError, match="no known shape"):
        detect({pair.prompt: "q"}, {})
    assert pair.parse(row) == [Message("user", " q"), Message("assistant", " a ", weight=1.0)]


def test_context_is_added_to_the_prompt():
    row = {"question": "q", "answer": "a", "context": "c"}
    assert pairs.PAIRS["question_answer"].parse(row)[0] == Message("user", "q\n\nc")
    row = {"instruction": "i", "input": "x", "response": "a", "context": ""}
    assert pairs.PAIRS["instruction_response"].parse(row)[0] == Message("user", "i\n\nx")


def test_messages_of_the_prompt_are_not_trained_on():
    user, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    row = {"prompt": [user, answer, user], "completion": [answer]}
    assert [turn.weight for turn in pairs.PAIRS["prompt_completion"].parse(row)] == [0, 0, 0, 1]
    row["prompt"][1] = {**answer, "train": True}
    assert [turn.weight for turn in pairs.PAIRS["prompt_completion"].parse(row)] == [0, 1, 0, 1]
    row = {"prompt": [user], "completion": "a"}
    assert pairs.PAIRS["prompt_completion"].parse(row)[1] == Message("assistant", "a", weight=1.0)


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
        pairs.PAIRS["prompt_completion"].parse({"prompt": "q", "completion": "a", **change})
    assert str(caught.value) == expected
