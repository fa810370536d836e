"""Alpaca's format: literal rows in, literal messages out; one reason per fault."""

import pytest

from sft.data.rows.conversation import Message
from sft.data.rows.formats import FORMATS, alpaca
from sft.data.rows.problems import RowError


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"instruction": "do"}, "do"),
        ({"instruction": "do", "input": ""}, "do"),
        ({"instruction": "do", "input": None}, "do"),
        ({"instruction": "do", "input": " x\n"}, "do\n\n x\n"),
        ({"instruction": "", "input": "x"}, "x"),
    ],
)
def test_instruction_and_input(row, prompt):
    row["output"] = " done"
    assert FORMATS["alpaca"].matches(row)
    assert alpaca.parse(row) == [
        Message("user", prompt),
        Message("assistant", " done", weight=1.0),
    ]


def test_history_comes_first():
    row = {"instruction": "q2", "output": "a2", "history": [["q1", "a1"]]}
    assert [(turn.content, turn.weight) for turn in alpaca.parse(row)] == [
        ("q1", 0.0),
        ("a1", 1.0),
        ("q2", 0.0),
        ("a2", 1.0),
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"output": " "}, "output: empty"),
        ({"output": None}, "output: empty"),
        ({"output": 4}, "output: expected text, found a number"),
        ({"instruction": "\n"}, "instruction: empty, and so is input"),
        ({"input": ["x"]}, "input: expected text, found a list"),
        ({"history": "x"}, "history: expected a list of pairs, found text"),
        ({"history": [["q"]]}, "history[0]: expected a pair of texts that are not empty"),
        ({"history": [["q", ""]]}, "history[0]: expected a pair of texts that are not empty"),
    ],
)
def test_reasons(change, expected):
    with pytest.raises(RowError) as caught:
        alpaca.parse({"instruction": "do", "output": "done", **change})
    assert str(caught.value) == expected
