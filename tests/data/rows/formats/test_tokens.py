"""Rows of token ids: which are trained, and one reason for each thing that cannot be right."""

import pytest

from sft.data.rows.conversation import Message
from sft.data.rows.formats.tokens import parse
from sft.data.rows.problems import RowError
from sft.data.template.plain_rows import token_ids

IDS = [5, 6, 7, 8]
NO = -100


@pytest.mark.parametrize(
    ("columns", "weights"),
    [
        ({"labels": [NO, NO, 7, 8]}, [0, 0, 1, 1]),
        ({"labels": IDS}, [1, 1, 1, 1]),
        ({"labels": [NO, 6, NO, 8]}, [0, 1, 0, 1]),
        ({"completion_mask": [0, 0, 1, 1]}, [0, 0, 1, 1]),
        ({"assistant_masks": [False, True, False, False]}, [0, 1, 0, 0]),
        ({"completion_mask": [0, 1, 1, 1], "assistant_masks": [1, 1, 0, 1]}, [0, 1, 0, 1]),
        ({"labels": IDS, "completion_mask": [0, 0, 0, 1], "assistant_masks": None}, [0, 0, 0, 1]),
        ({"labels": "[-100, 6, 7, 8]"}, [0, 1, 1, 1]),
        ({"labels": IDS, "attention_mask": [1] * 4, "position_ids": [0, 1, 2, 3]}, [1] * 4),
        ({"labels": IDS, "seq_lengths": [4]}, [1] * 4),
    ],
)
def test_what_is_trained(columns, weights):
    assert token_ids(parse({"input_ids": IDS, **columns})) == (IDS, weights)


def test_runs_are_messages():
    assert parse({"input_ids": IDS, "labels": [NO, 6, 7, NO]}) == [
        Message("user", "5"),
        Message("assistant", "6 7", weight=1.0),
        Message("user", "8"),
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, "labels: missing; rows with input_ids need labels (-100 where nothing is trained), "),
        ({"input_ids": 3}, "input_ids: expected a list of token ids, found a number"),
        ({"input_ids": [5, "6"]}, "input_ids[1]: expected a whole number, found text"),
        ({"input_ids": [5, 1.5]}, "input_ids[1]: expected a whole number, found a number"),
        ({"input_ids": [True, 6]}, "input_ids[0]: expected a whole number, found true"),
        ({"labels": [NO, 6, 7]}, "labels: 3 values for 4 input_ids"),
        ({"completion_mask": [1] * 5}, "completion_mask: 5 values for 4 input_ids"),
        ({"completion_mask": [0, 2, 0, 0]}, "completion_mask[1]: expected 0 or 1, found 2"),
        ({"labels": [NO] * 4}, "labels: no token is trained"),
        ({"labels": [5, NO, NO, NO]}, "labels: no token is trained (the first has none before it)"),
        (
            {"labels": [NO, 6, 7, 8], "completion_mask": [1, 0, 0, 0]},
            "labels and completion_mask: no token is trained",
        ),
        (
            {"labels": [NO, 6, 9, 8]},
            "labels[2]: [9] where input_ids has [7]; a label is -100 or the id at its own place",
        ),
        ({"labels": [6, 7, 8, NO]}, "labels[0]: [6] where input_ids has [5]; a label is -100 "),
        (
            {"labels": IDS, "attention_mask": [1, 1, 0, 0]},
            "attention_mask: has zeros; take the padding off",
        ),
        ({"labels": IDS, "attention_mask": [1]}, "attention_mask: 1 values for 4 input_ids"),
        ({"labels": IDS, "position_ids": [0, 1, 0, 1]}, "position_ids: do not count from 0"),
        ({"labels": IDS, "seq_lengths": [2, 2]}, "seq_lengths: several examples are packed"),
    ],
)
def test_reasons(row, expected):
    with pytest.raises(RowError) as caught:
        parse({"input_ids": IDS, **row})
    assert str(caught.value).startswith(expected)


def test_labels_that_are_shifted_are_told_so():
    with pytest.raises(RowError, match="they are shifted by one"):
        parse({"input_ids": IDS, "labels": [6, 7, 8, NO]})
