"""Real prompts: with an answer, without one, in every format, and rows that are neither."""

import json

import pytest

from sft.config import SourceConfig
from sft.data.rows.formats import FORMATS
from sft.data.rows.prompts import read_prompts
from sft.errors import ConfigError, DataError

USER = {"role": "user", "content": "hi"}
BOT = {"role": "assistant", "content": "yes"}
HUMAN, GPT = {"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}

# Format, a row with its answer, and the same row without.
SHAPES = [
    ("messages", {"messages": [USER, BOT]}, {"messages": [USER]}),
    ("sharegpt", {"conversations": [HUMAN, GPT]}, {"conversations": [HUMAN]}),
    ("sharegpt", {"conversation": [HUMAN, GPT]}, {"conversation": [HUMAN]}),
    ("sharegpt", {"conversations": [USER, BOT]}, {"conversations": [USER]}),
    *(
        (name, {shape.columns[0]: "hi", shape.columns[1]: "yes"}, {shape.columns[0]: "hi"})
        for name, shape in FORMATS.items()
        if shape.pair
    ),
    ("prompt_completion", {"prompt": [USER], "completion": [BOT]}, {"prompt": [USER]}),
]


@pytest.fixture
def source(tmp_path):
    """A source of rows, one per line; text is written as it is."""

    def make(*rows, **options):
        path = tmp_path / "usage.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines))
        return SourceConfig(path=str(path), **options)

    return make


def read(source, **options):
    return read_prompts([source], **options).conversations


def texts(prompt):
    return [(message.role, message.content) for message in prompt.messages]


@pytest.mark.parametrize("fixed", [False, True], ids=["recognised", "named"])
@pytest.mark.parametrize(("name", "whole", "bare"), SHAPES)
def test_every_format_with_and_without_its_answer(source, name, whole, bare, fixed):
    answered, asked = read(source(whole, bare, **({"format": name} if fixed else {})))
    assert (answered.has_answer, asked.has_answer) == (True, False)
    assert texts(answered) == [("user", "hi"), ("assistant", "yes")]
    assert texts(asked) == [("user", "hi")]
    assert [prompt.origin.line for prompt in (answered, asked)] == [1, 2]


def test_all_formats_are_covered():
    others = {"preference", "tokens", "text"}  # with an answer, or without a prompt
    assert {name for name, *_ in SHAPES} == set(FORMATS) - others


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        ({"text": "hi"}, {"format": "text"}, "is of the format text, which has no prompt"),
        ({"input_ids": [1, 2], "labels": [-100, 2]}, {}, "is of the format tokens, which has no"),
        ({"chosen": "hi", "rejected": None}, {}, "prompt: missing"),
    ],
)
def test_rows_without_a_prompt_are_none(source, row, options, reason):
    with pytest.raises(DataError, match=reason):
        read(source(row, **options))


def test_the_chosen_answer_is_the_answer(source):
    (prompt,) = read(source({"prompt": "hi", "chosen": "yes", "rejected": "no"}))
    assert prompt.has_answer and texts(prompt) == [("user", "hi"), ("assistant", "yes")]


@pytest.mark.parametrize("blank", ["", "  \n", None])
@pytest.mark.parametrize("name", ["alpaca", "prompt_response", "question_answer"])
def test_a_blank_answer_is_none(source, name, blank):
    prompt, answer = FORMATS[name].columns
    (found,) = read(source({prompt: "hi", answer: blank}))
    assert not found.has_answer and texts(found) == [("user", "hi")]


def test_what_stands_beside_the_prompt_is_kept(source):
    tool = {"name": "evaluation", "parameters": {}}
    found = read(
        source(
            {"instruction": "sum up", "input": "a text", "history": [["first?", "yes"]]},
            {"messages": [{"role": "system", "content": "be kind"}, USER, BOT, USER]},
            {"prompt": "hi", "system": "be kind", "tools": [tool]},
        )
    )
    assert not any(prompt.has_answer for prompt in found)
    assert [role for role, _ in texts(found[0])] == ["user", "assistant", "user"]
    assert texts(found[0])[-1] == ("user", "sum up\n\na text")
    assert [role for role, _ in texts(found[1])] == ["system", "user", "assistant", "user"]
    assert texts(found[2]) == [("system", "be kind"), ("user", "hi")]
    assert found[2].tools[0]["function"] == tool


def test_after_a_tool_has_answered_the_model_is_asked(source):
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]}
    row = {"messages": [USER, call, {"role": "tool", "content": "3"}]}
    (found,) = read(source(row))
    assert not found.has_answer
    assert [role for role, _ in texts(found)] == ["user", "assistant", "tool"]


def test_columns_under_other_names(source):
    rows = source({"q": "hi", "a": "yes"}, {"q": "hi"}, columns={"prompt": "q", "completion": "a"})
    answered, asked = read(rows)
    assert (answered.has_answer, asked.has_answer) == (True, False)
    assert texts(asked) == [("user", "hi")]


def test_mixed_rows_of_several_files_keep_their_order_and_places(tmp_path):
    sources = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text('{"prompt": "1"}\n\n{"question": "2", "answer": "x"}\n')
        sources.append(SourceConfig(path=str(path)))
    found = read_prompts(sources)
    places = [(p.origin.line, p.source) for p in found.conversations]
    assert places == [(1, 0), (3, 0), (1, 1), (3, 1)]
    assert [prompt.has_answer for prompt in found.conversations] == [False, True, False, True]
    assert set(found.files) == {source.path for source in sources}
    assert all(len(digest) == 64 for digest in found.files.values())
    assert found.num_bad == 0


def test_no_sources_are_no_prompts():
    assert read_prompts([]).conversations == []


BAD = [
    ("{", "torn|not valid JSON"),
    ({"prompt": 5}, "prompt: expected text, found a number"),
    ({"prompt": " "}, "prompt: empty"),
    ({"prompt": "hi", "completion": 5}, "completion: expected text, found a number"),
    ({"instruction": "", "input": ""}, "instruction: empty"),
    ({"words": "hi"}, "no known shape"),
    ({"messages": "hi"}, "messages: expected a list"),
    ({"messages": []}, "messages: "),
    ({"messages": [USER, USER]}, "two user messages in a row"),
    ({"messages": [USER, {"role": "assistant", "content": ""}]}, "assistant message is empty"),
    ({"messages": [{"role": "usr", "content": "hi"}]}, "unknown role 'usr'"),
    ({"conversations": [{"from": "human"}]}, "value: missing"),
]


@pytest.mark.parametrize(("row", "problem"), BAD)
def test_a_row_that_is_neither_is_named_with_its_line(source, row, problem):
    rows = source({"prompt": "fine"}, row, {"prompt": "fine"})
    with pytest.raises(DataError, match=problem) as caught:
        read(rows)
    assert f"{rows.path}:2" in str(caught.value)
    assert "1 of 3 rows cannot be used" in str(caught.value)
    found = read_prompts([rows], "skip")
    assert (len(found.conversations), found.num_bad) == (2, 1)


def test_a_format_that_is_not_known(source):
    with pytest.raises(ConfigError, match="'mesages' is not one of"):
        read(source({"prompt": "hi"}, format="mesages"))
