"""Recognising formats, column maps, and what all formats share: system and tools."""

import pytest

from sft.config import SourceConfig
from sft.data.rows.conversation import Message, Origin
from sft.data.rows.formats import FORMATS, check_config, detect, map_columns, parse
from sft.data.rows.problems import RowError
from sft.data.rows.sources import Row
from sft.errors import ConfigError, DataError

ORIGIN = Origin("a.jsonl", 7)
PAIR = {"prompt": "q", "completion": "a"}


def convert(values, name=None, **options):
    source = SourceConfig(path="a.jsonl", **options)
    return parse(Row(values, ORIGIN), source, name or detect(values, source.columns), 2)


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ("messages prompt completion", "messages"),
        ("conversations id", "sharegpt"),
        ("conversation", "sharegpt"),
        ("instruction input output", "alpaca"),
        ("prompt completion", "prompt_completion"),
        ("prompt response", "prompt_response"),
        ("instruction context response category", "instruction_response"),
        ("question answer", "question_answer"),
        ("query response", "query_response"),
        ("input output", "input_output"),
        ("system_prompt question response", "question_response"),
        ("problem solution", "problem_solution"),
        ("inputs targets", "inputs_targets"),
        ("prompt chosen rejected", "preference"),
        ("conversations chosen rejected", "sharegpt"),
        ("prompt completion chosen rejected", "prompt_completion"),
        ("messages prompt chosen rejected", "messages"),
        ("input_ids labels", "tokens"),
        ("text question answer", "question_answer"),
    ],
)
def test_each_format_is_recognised(columns, name):
    assert detect(dict.fromkeys(columns.split()), {}) == name
    assert name in FORMATS


def test_turns_beside_preferences_are_their_prompt():
    turn = {"from": "human", "value": "q"}
    assert detect({"conversations": [turn], "chosen": turn, "rejected": turn}, {}) == "preference"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("text", "To train on all of each text, without a chat template, say `format: text`."),
        ("prompt chosen", "map them from ours to yours"),
        ("dialogue summary", "map them from ours to yours"),
        (
            "promt compleation",
            "Did you mean prompt, completion? "
            "Then map: `columns: {prompt: promt, completion: compleation}`.",
        ),
        ("Question answer", "Did you mean question? Then map: `columns: {question: Question}`."),
        ("prompt instruction_id_list", "map them from ours to yours: `columns: {prompt: my_prompt"),
    ],
)
def test_unknown_columns_are_explained(columns, expected):
    with pytest.raises(DataError) as caught:
        detect(dict.fromkeys(columns.split()), {})
    message = str(caught.value)
    assert expected in message
    assert f"Columns found: {', '.join(columns.split())}." in message
    assert "question_answer: question, answer" in message


def test_a_column_map_goes_from_ours_to_the_files():
    columns = {"prompt": "completion", "completion": "prompt"}
    assert map_columns(PAIR, columns) == {"prompt": "a", "completion": "q"}
    assert map_columns({"q": 1, "prompt": 2}, {"prompt": "q"}) == {"prompt": 1}
    assert map_columns({"prompt": 2}, {"prompt": "q"}) == {}
    got = convert(
        {"frage": "q", "antwort": "a"},
        columns={"prompt": "frage", "answer": "x"} | {"completion": "antwort"},
    )
    assert [turn.content for turn in got.messages] == ["q", "a"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"format": "alpacca"}, "Did you mean 'alpaca'?"),
        ({"columns": {"promt": "q"}}, "'promt' is not a column of ours. Did you mean 'prompt'?"),
    ],
)
def test_unknown_names_in_the_configuration(options, expected):
    with pytest.raises(ConfigError) as caught:
        check_config(SourceConfig(path="a.jsonl", **options))
    assert expected in str(caught.value)


def test_a_conversation_knows_its_origin_and_source():
    got = convert(PAIR)
    assert (got.origin, got.source, got.tools) == (ORIGIN, 2, ())


def test_a_row_of_another_shape_is_refused():
    with pytest.raises(RowError) as caught:
        convert({"question": "q"}, "alpaca")
    assert str(caught.value) == (
        "not of the format alpaca, which has instruction, output; found question"
    )


def test_system_column():
    assert convert({**PAIR, "system": "s"}).messages[0] == Message("system", "s")
    assert len(convert({**PAIR, "system": " "}).messages) == 2
    with pytest.raises(RowError, match="system: expected text, found a number"):
        convert({**PAIR, "system": 1})
    turns = [{"from": role, "value": "x"} for role in ("system", "human", "gpt")]
    with pytest.raises(RowError, match="given as a column and as the first message"):
        convert({"conversations": turns, "system": "s"})


@pytest.mark.parametrize("tools", [None, "", "[]", []])
def test_no_tools(tools):
    assert convert({**PAIR, "tools": tools}).tools == ()


def test_tools_as_a_list_or_its_text():
    wrapped = {"type": "function", "function": {"name": "f"}}
    assert convert({**PAIR, "tools": [wrapped]}).tools == (wrapped,)
    assert convert({**PAIR, "tools": '[{"name": "f"}]'}).tools == (wrapped,)


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ("{", "tools: column 2: not valid JSON"),
        ("[1] 2", "tools: column 4: more than one JSON value"),
        ("[NaN]", "tools: NaN is not a JSON number"),
        ({}, "tools: expected a list, found an object"),
        ([1], "tools[0]: expected an object, found a number"),
    ],
)
def test_wrong_tools(tools, expected):
    with pytest.raises(RowError) as caught:
        convert({**PAIR, "tools": tools})
    assert str(caught.value).startswith(expected)


def test_names_that_others_use_for_system_and_tools():
    tool = {"name": "f", "parameters": {}}
    got = convert({**PAIR, "system_prompt": "s", "functions": [tool]})
    assert got.messages[0] == Message("system", "s")
    assert got.tools == ({"type": "function", "function": tool},)
    for extra, column in (
        ({"system": "s", "system_prompt": "s"}, "system_prompt: given beside system"),
        ({"tools": [tool], "functions": [tool]}, "functions: given beside tools"),
        ({"functions": {}, "tools": ["x"]}, "tools[0]: expected an object"),
        ({"functions": "x"}, "functions: column 1: not valid JSON"),
    ):
        with pytest.raises(RowError) as caught:
            convert(PAIR | extra)
        assert str(caught.value).startswith(column)


def test_tools_as_anthropic_has_them():
    tool = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
    assert convert({**PAIR, "tools": [tool]}).tools == (
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
        },
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image", "a.png"),
        ("images", [{"bytes": "x"}]),
        ("videos", ["a.mp4"]),
        ("audio", {"path": "a.wav"}),
    ],
)
def test_pictures_and_sounds_are_refused(column, value):
    with pytest.raises(RowError) as caught:
        convert({**PAIR, column: value})
    assert str(caught.value) == (
        f"{column}: the column is not empty; sft trains on text only; "
        "leave such rows out with on_bad_row: skip"
    )


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_columns_for_pictures_may_be_there_and_empty(value):
    assert len(convert({**PAIR, "images": value, "image": value}).messages) == 2


def test_unwanted_answers_are_refused():
    assert convert({**PAIR, "label": True}).messages[1].content == "a"
    assert convert({**PAIR, "label": "false"}).messages[1].content == "a"
    with pytest.raises(RowError, match="label: false, so the answer is an unwanted one"):
        convert({**PAIR, "label": False})


def test_a_plain_text_is_one_message_of_its_own_kind():
    got = convert({"text": " a\n", "system": 1}, "text")
    assert (got.kind, got.messages) == ("text", (Message("assistant", " a\n", weight=1.0),))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(" \n", "text: empty"), (None, "text: expected text, found null"), (["a"], "text: expected")],
)
def test_texts_that_are_none(value, expected):
    with pytest.raises(RowError) as caught:
        convert({"text": value}, "text")
    assert str(caught.value).startswith(expected)


def test_turns_are_named_as_in_the_file():
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": ""}]
    with pytest.raises(RowError) as caught:
        convert({"conversations": turns, "system": "s"})
    assert str(caught.value) == "conversations[1]: the assistant message is empty"
