"""Preferences: the chosen answer is trained on, in every shape they come in; nothing else is."""

import json

import pytest

from sft.config import SourceConfig
from sft.data.rows.conversation import Message
from sft.data.rows.formats import FORMATS, preference
from sft.data.rows.problems import RowError
from sft.data.rows.read import read_conversations

USER, MORE = {"role": "user", "content": "q"}, {"role": "user", "content": "r"}
GOOD, BAD = {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}
ASKED = [Message("user", "q"), Message("assistant", "a", weight=1.0)]
SHOWN = [Message("user", "q"), Message("assistant", "a")]
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}


def parse(**values):
    assert FORMATS["preference"].matches(values)
    return preference.parse(values)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"question": "q", "chosen": "a", "rejected": None},
        {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "q", "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "q", "chosen": GOOD, "rejected": BAD},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [HUMAN, GPT], "rejected": []},
        {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    ],
)
def test_every_shape(row):
    assert parse(**row) == ASKED


def test_an_answer_may_begin_like_a_list():
    assert parse(prompt="q", chosen="[1](x)", rejected="[{")[1].content == "[1](x)"


def test_the_turns_before_the_chosen_answer_are_shown_only():
    explicit = parse(prompt=[USER, GOOD, MORE], chosen=[GOOD], rejected=[BAD])
    implicit = parse(chosen=[USER, GOOD, MORE, GOOD], rejected=[USER, GOOD, MORE, BAD])
    one_text = parse(
        chosen="Human: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: a", rejected="Human: q"
    )
    assert explicit == implicit == one_text == [*SHOWN, Message("user", "r"), ASKED[1]]


def test_turns_that_differ_are_all_of_the_answer():
    got = parse(chosen=[USER, GOOD, MORE, GOOD], rejected=[USER, BAD, MORE, BAD])
    assert [turn.weight for turn in got] == [0, 1, 0, 1]


def test_equal_sides_and_weights_in_the_file():
    got = parse(chosen=[USER, GOOD, MORE, GOOD], rejected=[USER, GOOD, MORE, GOOD])
    assert [turn.weight for turn in got] == [0, 0, 0, 1]
    kept = {**GOOD, "weight": 0.5}
    got = parse(chosen=[USER, kept, MORE, GOOD], rejected=[USER, kept, MORE, BAD])
    assert [turn.weight for turn in got] == [0, 0.5, 0, 1]


def test_input_is_added_to_an_instruction():
    assert parse(instruction="q", input="r", chosen="a", rejected="b")[0].content == "q\n\nr"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": "a"}, "prompt: missing, and chosen is one text; found chosen, rejected"),
        ({"chosen": [GOOD]}, "prompt: missing, and chosen has no user message; found chosen, rej"),
        ({"prompt": "q", "chosen": None}, "chosen: expected a list of messages, found null"),
        ({"prompt": "q", "chosen": " "}, "chosen: empty"),
        ({"prompt": "", "chosen": "a"}, "prompt: empty"),
        ({"prompt": 1, "chosen": "a"}, "prompt: expected text or messages, found a number"),
    ],
)
def test_reasons(row, expected):
    with pytest.raises(RowError) as caught:
        parse(**row, rejected="b")
    assert str(caught.value).startswith(expected)


def test_the_account_says_what_is_not_used(tmp_path):
    path = tmp_path / "pairs.jsonl"
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    path.write_text((json.dumps(row) + "\n") * 3)
    loaded = read_conversations([SourceConfig.model_validate(str(path))], "error")
    assert loaded.notes == ["3 rows are preferences: the chosen answers are used, no rejected ones"]
    path.write_text(json.dumps({"prompt": "q", "completion": "a"}) + "\n")
    assert read_conversations([SourceConfig.model_validate(str(path))], "error").notes == []
