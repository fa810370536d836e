"""All sources together: what is used, what is not, and one error that tells it all."""

import json
from pathlib import Path

import pytest

from sft.config import SourceConfig
from sft.data.rows.conversation import Origin
from sft.data.rows.problems import MAX_KEPT, BadRows
from sft.data.rows.read import read_conversations
from sft.errors import ConfigError, DataError

# Real data sets beside the project, where there are some.
SHARED = Path(__file__).parents[4] / "shared" / "data"
PAIR = {"prompt": "q", "completion": "a"}
TURNS = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def write(path, *rows):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return SourceConfig(path=str(path))


def error_of(*sources, policy="error"):
    with pytest.raises(DataError) as caught:
        read_conversations(sources, policy)
    return str(caught.value)


def test_sources_keep_their_order_and_number(tmp_path):
    loaded = read_conversations(
        [write(tmp_path / "b.jsonl", PAIR, PAIR), write(tmp_path / "a.jsonl", TURNS)], "error"
    )
    assert [(row.source, row.origin.line) for row in loaded.conversations] == [
        (0, 1),
        (0, 2),
        (1, 1),
    ]
    assert (loaded.bad_rows, loaded.num_bad) == ([], 0)
    assert list(loaded.files) == [str(tmp_path / "b.jsonl"), str(tmp_path / "a.jsonl")]


def test_one_error_for_all_bad_rows(tmp_path):
    wrong = {"messages": [*TURNS["messages"], {"role": "user", "content": "q"}]}
    misspelt = {"messages": [{"role": "usr", "content": "q"}]}
    a = write(tmp_path / "a.jsonl", TURNS, wrong, "{", misspelt, misspelt, TURNS)
    b = write(tmp_path / "b.jsonl", misspelt, misspelt, TURNS)
    assert error_of(a, b) == (
        "6 of 9 rows cannot be used:\n"
        "       4  messages[*].role: unknown role 'usr'. Did you mean 'user'? "
        f"[{tmp_path}/a.jsonl:4, {tmp_path}/a.jsonl:5, {tmp_path}/b.jsonl:1, ...]\n"
        "       1  messages: ends with a user message; the last message must be the assistant's "
        f"answer [{tmp_path}/a.jsonl:2]\n"
        "       1  column 2: not valid JSON (Expecting property name enclosed in double quotes) "
        f"[{tmp_path}/a.jsonl:3]\n"
        "Correct them, or leave them out with --set data.on_bad_row=skip"
    )


def test_skip_leaves_them_out_and_lists_them(tmp_path):
    source = write(tmp_path / "a.jsonl", PAIR, "{", {"prompt": "q", "completion": ""}, PAIR)
    loaded = read_conversations([source], "skip")
    assert [row.origin.line for row in loaded.conversations] == [1, 4]
    assert [(bad.origin.line, bad.reason) for bad in loaded.bad_rows][1:] == [
        (3, "completion: empty")
    ]
    assert loaded.num_bad == 2


def test_nothing_usable_is_an_error_even_with_skip(tmp_path):
    source = write(tmp_path / "a.jsonl", {"prompt": "q", "completion": ""}, "{")
    message = error_of(source, policy="skip")
    assert message.startswith(f"{tmp_path}/a.jsonl: no usable row in 2:\n")
    assert "1  completion: empty" in message


def test_no_sources():
    with pytest.raises(ConfigError, match="--data FILE"):
        read_conversations([], "error")


def test_the_first_known_shape_is_that_of_the_source(tmp_path):
    source = write(tmp_path / "a.jsonl", {"made_by": "me"}, PAIR, TURNS, {**PAIR, **TURNS})
    loaded = read_conversations([source], "skip")
    assert [row.origin.line for row in loaded.conversations] == [2, 4]
    assert [bad.reason for bad in loaded.bad_rows] == [
        "no known shape; columns found: made_by",
        "not of the format prompt_completion, which has prompt, completion; found messages",
    ]


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_source_of_no_known_shape(tmp_path, policy):
    source = write(tmp_path / "a.jsonl", *[{"text": "x"}] * 300)
    good = write(tmp_path / "b.jsonl", PAIR)
    message = error_of(good, source, policy=policy)
    assert message.startswith(f"{tmp_path}/a.jsonl:1: the rows have no known shape.")


def test_an_explicit_format_is_used(tmp_path):
    write(tmp_path / "a.jsonl", {**PAIR, "instruction": "i", "output": "o"})
    source = SourceConfig(path=str(tmp_path / "a.jsonl"), format="prompt_completion")
    assert read_conversations([source], "error").conversations[0].messages[0].content == "q"
    with pytest.raises(ConfigError, match="Did you mean 'sharegpt'"):
        read_conversations([source.model_copy(update={"format": "sharegtp"})], "error")


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_mapped_column_must_be_somewhere(tmp_path, policy):
    path = tmp_path / "a.jsonl"
    write(path, {"frage": "q", "antwort": "a"}, {"frage": "q", "antwort": "a", "regel": "s"})
    columns = {"prompt": "frage", "completion": "antwort", "system": "regel"}
    source = SourceConfig(path=str(path), columns=columns)
    assert len(read_conversations([source], policy).conversations[1].messages) == 3
    wrong = source.model_copy(update={"columns": {**columns, "prompt": "farge"}})
    assert error_of(wrong, policy=policy) == (
        f"{path}: columns: no row has a column 'farge'. Did you mean 'frage'? "
        "Columns found: frage, antwort, regel."
    )


def test_memory_is_bounded_and_the_count_complete():
    report = BadRows("error")
    for number in range(20_000):
        report.add(Origin("a", number), f"reason {number}")
    assert (report.count, len(report.rows)) == (20_000, MAX_KEPT)
    with pytest.raises(DataError) as caught:
        report.raise_if_any(20_001)
    message = str(caught.value)
    assert message.startswith("20,000 of 20,001 rows")
    assert "19,000  other reasons [a:1000, a:1001, a:1002, ...]" in message
    assert "and 981 more reasons" in message


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data sets")
@pytest.mark.parametrize(
    ("name", "num_rows", "last_line"),
    [
        ("alpaca_en_demo.json", 999, 4992),
        ("gsm8k_train.jsonl", 7473, 7473),
        ("glaive_toolcall_en_demo.json", 300, 9137),
    ],
)
def test_real_data_sets(name, num_rows, last_line):
    loaded = read_conversations([SourceConfig(path=str(SHARED / name))], "error")
    assert len(loaded.conversations) == num_rows
    assert loaded.conversations[-1].origin.line == last_line
