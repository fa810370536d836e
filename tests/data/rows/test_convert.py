"""`sft convert`: what is written reads back as the same conversations, or is not written."""

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from sft.config import SourceConfig
from sft.data.rows.conversation import Conversation, Message, Origin
from sft.data.rows.convert import column_map, convert
from sft.data.rows.formats.writing import write
from sft.data.rows.problems import RowError
from sft.data.rows.read import read_conversations
from sft.errors import ConfigError, DataError
from trained import Outcome

ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
CHATS = ("messages", "sharegpt", "alpaca", "prompt_completion")
PIECES = [
    "fox",
    "é",
    "中文",
    "🎉",
    " ",
    "\n",
    "\r\n",
    "\r",
    "\t",
    "\u2028",
    '"',
    "'",
    ",",
    "[",
    "[{",
]
PIECES += ["{", "}", "\\n", "<|im_end|>", "null", "1", "=1+1", "\ufeff", "Human:", "\n\n"]
USER, ANSWER = Message("user", "q"), Message("assistant", "a", weight=1.0)
ORIGIN = Origin("rows.jsonl", 1)


def text(rng):
    while not (made := "".join(rng.choices(PIECES, k=rng.randint(1, 6)))).strip():
        pass
    return made


def value(rng, depth=0):
    kinds = [None, True, 1, 1.5, 10**20, text(rng), "", [], {}]
    if depth < 2 and rng.random() < 0.5:
        kinds += [{text(rng): value(rng, depth + 1)}, [value(rng, depth + 1)]]
    return rng.choice(kinds)


def call(rng, number):
    arguments = rng.choice(
        [{"a": value(rng), "b": None}, {}, json.dumps({"a": value(rng)}), text(rng)]
    )
    function = {"name": text(rng), "arguments": arguments}
    made = {"type": "function", "function": function}
    return {"id": f"call_{number}", **made} if rng.random() < 0.5 else made


def turn(rng, number):
    """A question, perhaps calls and their results, and an answer."""
    messages = [Message("user", text(rng), extra={"name": "n"} if rng.random() < 0.1 else {})]
    if rng.random() < 0.3:
        calls = tuple(call(rng, f"{number}{i}") for i in range(rng.randint(1, 3)))
        said = "" if rng.random() < 0.7 else text(rng)
        messages.append(Message("assistant", said, calls, rng.choice([0.0, 1.0])))
        for made in calls:
            extra = {"tool_call_id": made["id"]} if "id" in made else {}
            messages.append(Message("tool", rng.choice(["", text(rng)]), extra=extra))
    extra = {"reasoning_content": text(rng)} if rng.random() < 0.1 else {}
    weight = rng.choice([1.0, 1.0, 1.0, 0.0, 0.25, 2.0])
    return [*messages, Message("assistant", text(rng), (), weight, extra)]


def chat(rng, line):
    system = [Message("system", rng.choice(["", text(rng)]))] if rng.random() < 0.3 else []
    turns = [m for number in range(rng.choice([1, 1, 1, 2, 3])) for m in turn(rng, number)]
    turns[-1] = replace(turns[-1], weight=turns[-1].weight or 1.0)
    tool = {"type": "function", "function": {"name": text(rng), "parameters": {"d": value(rng)}}}
    return Conversation(
        (*system, *turns),
        Origin("rows.jsonl", line),
        (tool,) if rng.random() < 0.3 else (),
        parent=hashlib.sha256(b"x").hexdigest() if rng.random() < 0.2 else "",
    )


@pytest.fixture(scope="module")
def chats():
    rng = random.Random(1)
    return [chat(rng, line) for line in range(1, 301)]


def save(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SourceConfig.model_validate(str(path))


def read(path, **options):
    source = SourceConfig.model_validate({"path": str(path), **options})
    return [replace(c, origin=ORIGIN) for c in read_conversations([source], "error").conversations]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", CHATS)
def test_what_is_written_reads_back_as_the_same(shape, ending, chats, tmp_path):
    source = save(tmp_path / "rows.jsonl", [write(row, "messages") for row in chats])
    writable = []
    for row in chats:
        try:
            write(row, shape)
            writable.append(replace(row, origin=ORIGIN))
        except RowError:
            assert shape != "messages"
    out = tmp_path / f"out{ending}"
    done = convert(source, shape, out, on_bad_row="skip")
    assert (done.num_written, done.num_skipped) == (len(writable), 300 - len(writable))
    assert len(writable) > 20 and (shape == "messages") == (len(writable) == 300)
    assert read(out) == writable  # and the shape is recognised
    first = out.read_bytes()
    convert(source, shape, out, on_bad_row="skip", force=True)
    assert out.read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, "rows.jsonl"])


@pytest.mark.parametrize("ending", ENDINGS)
def test_plain_texts_read_back_as_the_same(ending, tmp_path):
    rng = random.Random(2)
    texts = [text(rng) for _ in range(100)]
    source = save(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    out = tmp_path / f"out{ending}"
    convert(source.model_copy(update={"format": "text"}), "text", out)
    assert [row.messages[0].content for row in read(out, format="text")] == texts


def conversation(*messages, **options):
    return Conversation(messages, ORIGIN, **options)


CALLING = Message("assistant", "", ({"type": "function", "function": {"name": "f"}},), 1.0)


def test_rows_as_other_programs_expect_them():
    row = conversation(Message("system", "s"), USER, ANSWER)
    said = [("system", "s"), ("user", "q"), ("assistant", "a")]
    assert write(row, "messages") == {
        "messages": [{"role": role, "content": content} for role, content in said]
    }
    assert write(row, "sharegpt") == {
        "conversations": [
            {"from": "system", "value": "s"},
            {"from": "human", "value": "q"},
            {"from": "gpt", "value": "a"},
        ]
    }
    assert write(row, "alpaca") == {"instruction": "q", "input": "", "output": "a", "system": "s"}
    assert write(row, "prompt_completion") == {"prompt": "q", "completion": "a", "system": "s"}
    shown = replace(ANSWER, weight=0.0)
    assert write(conversation(USER, shown, USER, ANSWER), "messages")["messages"][1] == {
        "role": "assistant",
        "content": "a",
        "weight": 0,
    }


def test_calls_as_other_programs_expect_them():
    given = ({"id": "1", "type": "function", "function": {"name": "g"}},)
    both = replace(CALLING, tool_calls=(*CALLING.tool_calls, *given))
    tools = ({"type": "function", "function": {"name": "f"}},)
    row = write(conversation(USER, CALLING, both, ANSWER, tools=tools), "sharegpt")
    assert row["tools"] == '[{"type": "function", "function": {"name": "f"}}]'
    assert row["conversations"][1] == {"from": "function_call", "value": '{"name": "f"}'}
    assert row["conversations"][2] == {
        "from": "function_call",
        "value": '[{"name": "f"}, {"name": "g"}]',
        "tool_calls": list(both.tool_calls),
    }


@pytest.mark.parametrize(
    ("shape", "row", "reason"),
    [
        ("alpaca", conversation(USER, ANSWER, USER, ANSWER), "messages: several turns; alpaca has"),
        (
            "alpaca",
            conversation(USER, ANSWER, tools=({"name": "f"},)),
            "tools: alpaca has no place",
        ),
        (
            "prompt_completion",
            conversation(USER, CALLING),
            "messages[1]: a tool call or result; pr",
        ),
        (
            "alpaca",
            conversation(USER, replace(ANSWER, extra={"reasoning_content": "r"})),
            "messages[1].reasoning_content: alpaca has no place for it",
        ),
        (
            "alpaca",
            conversation(USER, replace(ANSWER, weight=0.5)),
            "messages[1]: weight 0.5; alpaca has only 1",
        ),
        (
            "prompt_completion",
            conversation(Message("system", " "), USER, ANSWER),
            "messages[0]: an empty system message",
        ),
        (
            "sharegpt",
            conversation(USER, replace(CALLING, content="x")),
            "messages[1]: text and tool calls in one message; sharegpt has one a turn",
        ),
        ("text", conversation(USER, ANSWER), "a conversation, which only a chat template could"),
        ("messages", conversation(ANSWER, kind="text"), "a plain text, which has no prompt and"),
        (
            "text",
            conversation(ANSWER, kind="tokens"),
            "a row of token ids, whose text is not known",
        ),
    ],
)
def test_what_a_shape_has_no_place_for(shape, row, reason):
    with pytest.raises(RowError) as caught:
        write(row, shape)
    assert str(caught.value).startswith(reason)


PAIR = {"prompt": "q", "completion": "a"}
TWO_TURNS = {"messages": [{"role": r, "content": "x"} for r in ("user", "assistant") * 2]}


def test_rows_that_cannot_be_written_stop_it_and_leave_nothing(tmp_path):
    one = {"messages": TWO_TURNS["messages"][:2]}
    source = save(tmp_path / "rows.jsonl", [one, TWO_TURNS, {"messages": 1}])
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError) as caught:
        convert(source, "alpaca", out)
    message = str(caught.value)
    assert message.startswith("2 of 3 rows cannot be used:")
    assert "messages: several turns; alpaca has one prompt and one answer" in message
    assert f"{source.path}:2]" in message and f"{source.path}:3]" in message
    assert message.endswith("Correct them, or leave them out with --on-bad-row skip")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    done = convert(source, "alpaca", out, on_bad_row="skip")
    assert read(out) == [conversation(Message("user", "x"), replace(ANSWER, content="x"))]
    first, second, *reasons = done.account().splitlines()
    assert first == f"3 rows read, 1 written as alpaca: {out}"
    assert (second, len(reasons)) == ("2 skipped:", 2)


def test_nothing_that_could_be_written(tmp_path):
    source = save(tmp_path / "rows.jsonl", [PAIR])
    with pytest.raises(DataError, match="no row could be written as text"):
        convert(source, "text", tmp_path / "out.csv", on_bad_row="skip")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_notes_tell_what_is_left_out(tmp_path):
    pair = {"prompt": "q", "chosen": "a", "rejected": "b", "score": 0, "id": None}
    source = save(tmp_path / "rows.jsonl", [pair, {**pair, "id": 7, "label": "x"}])
    done = convert(source, "prompt_completion", tmp_path / "out.jsonl")
    assert done.notes[0].startswith("2 rows are preferences: the chosen answers are used")
    assert done.notes[1:] == [
        "columns that are not part of a conversation are left out: "
        "score (2 rows), id (1 rows), label (1 rows)"
    ]
    plain = convert(save(tmp_path / "b.jsonl", [PAIR]), "alpaca", tmp_path / "b.csv")
    assert plain.notes == []


def test_columns_of_other_names(tmp_path):
    source = save(tmp_path / "rows.jsonl", [{"frage": "q", "antwort": "a"}])
    columns = column_map(["prompt=frage", "completion=antwort"])
    mapped = source.model_copy(update={"columns": columns})
    assert convert(mapped, "messages", tmp_path / "out.json").notes == []
    assert read(tmp_path / "out.json") == [conversation(USER, ANSWER)]


def test_a_file_that_is_there_is_kept_unless_told_otherwise(tmp_path):
    source = save(tmp_path / "rows.jsonl", [PAIR])
    before = (tmp_path / "rows.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"rows.jsonl: is there already; .* --force"):
        convert(source, "messages", source.path)
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    convert(source, "messages", source.path, force=True)
    assert read(source.path) == [conversation(USER, ANSWER)]


@pytest.mark.parametrize(
    ("shape", "name", "expected"),
    [
        ("mesages", "out.jsonl", "--to: no shape 'mesages'. Did you mean 'messages'?"),
        ("messages", "out.xlsx", "the name must end in one of .jsonl, .json, .csv, .parquet"),
        ("messages", "none/out.csv", "there is no folder"),
    ],
)
def test_wrong_wishes(shape, name, expected, tmp_path):
    with pytest.raises(ConfigError) as caught:
        convert(save(tmp_path / "rows.jsonl", [PAIR]), shape, tmp_path / name)
    assert expected in str(caught.value)


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "rows.jsonl", [{"q": "\x1b[31mhi", "completion": "a"}, {"q": "b"}])
    command = ["convert", "rows.jsonl", "--to", "sharegpt", "--out", "out.csv"]
    mapped = [*command, "--columns", "prompt=q"]
    failed = Outcome(*mapped)
    assert failed.code == 3 and failed.error().startswith("1 of 2 rows cannot be used:")
    done = Outcome(*mapped, "--on-bad-row", "skip")
    assert (done.code, done.out.splitlines()[0]) == (
        0,
        "2 rows read, 1 written as sharegpt: out.csv",
    )
    assert Outcome(*mapped).code == 2
    wrong = Outcome(*command, "--columns", "prompt")
    assert (wrong.code, wrong.error()) == (
        2,
        "--columns: expected OURS=THEIRS, such as prompt=q; found 'prompt'\n",
    )


def test_no_heavy_library_is_loaded(tmp_path):
    save(tmp_path / "rows.jsonl", [PAIR])
    code = (
        "import sys; from sft.cli import cli; "
        "cli(['convert', 'rows.jsonl', '--to', 'messages', '--out', 'out.jsonl'], "
        "standalone_mode=False); "
        "sys.exit(bool({'torch', 'transformers', 'peft', 'pyarrow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
