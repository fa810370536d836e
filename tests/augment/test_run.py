"""`sft augment` from the command line: rows, ledger, summary, and what is refused."""

import json
import random

import pytest

from sft.augment.make import WAYS, AugmentSettings, parse_ways, wanted_rows
from sft.config import SourceConfig
from sft.data.repeats import prompt_key
from sft.data.rows.conversation import Conversation, Message, Origin
from sft.data.rows.read import read_conversations
from sft.errors import ConfigError
from trained import WORDS, Outcome

LOCAL = "template,system_prompt,case,whitespace,typos"


@pytest.fixture
def world(tmp_path):
    """A folder with thirty rows of several shapes of content."""
    rng = random.Random(0)
    lines = []
    for i in range(30):
        text = f"What does the {rng.choice(WORDS)} fox number {i} of Paris really want, please?"
        lines.append({"prompt": text, "completion": f"It wants {i} dogs."})
    lines[3]["prompt"] = "Correct the spelling of fox number 3."
    write(tmp_path / "rows.jsonl", lines)
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(world, *args, data="rows.jsonl", out="new.jsonl"):
    return Outcome("augment", str(world / data), "--out", str(world / out), *args)


def test_new_rows_say_where_they_come_from(world):
    outcome = run(world, "--way", LOCAL, "--per-row", "2")
    assert outcome.code == 0 and outcome.out.strip() == str(world / "new.jsonl")
    source = [SourceConfig.model_validate(str(world / name)) for name in ("rows.jsonl",)]
    parents = {str(c.origin): c for c in read_conversations(source, "error").conversations}
    rows = read(world / "new.jsonl")
    assert 40 < len(rows) <= 60
    for row in rows:
        parent = parents[row["parent_row"]]
        assert row["parent"] == prompt_key(parent)
        assert row["messages"][-1] == {"role": "assistant", "content": parent.messages[-1].content}
        assert row["augmentation"].partition(":")[0] in LOCAL.split(",")
        texts = [m["content"] for m in row["messages"]]
        assert texts != [m.content for m in parent.messages]
    back = [SourceConfig.model_validate(str(world / "new.jsonl"))]
    assert [c.parent for c in read_conversations(back, "error").conversations] == [
        row["parent"] for row in rows
    ]


def test_every_wanted_row_is_in_the_ledger(world):
    run(world, "--way", LOCAL, "--per-row", "5")
    rows, ledger = read(world / "new.jsonl"), read(world / "new.ledger.jsonl")
    summary = json.loads((world / "new.summary.json").read_text())
    assert len(ledger) == 150 and summary["num_rows"] == 30 and summary["num_new"] == len(rows)
    made = [line for line in ledger if line["status"] == "made"]
    assert [line["line"] for line in made] == list(range(1, len(rows) + 1))
    for line in made:
        row = rows[line["line"] - 1]
        assert (row["parent_row"], row["augmentation"]) == (
            line["row"], f"{line['way']}: {line['detail']}"
        )  # fmt: skip
    dropped = [line for line in ledger if line["status"] == "dropped"]
    assert len(dropped) + len(rows) == 150 and all(line["reason"] for line in dropped)
    about_form = [line for line in dropped if line["row"].endswith(":4")]
    assert {line["way"] for line in about_form} >= {"case", "whitespace", "typos"}
    for way, counts in summary["ways"].items():
        assert counts["wanted"] == 30 == counts["made"] + sum(counts["dropped"].values()), way
    assert summary["accepted"] is None and str(world / "rows.jsonl") in summary["files"]


def test_the_same_command_writes_the_same_bytes(world):
    args = ("--way", LOCAL, "--share", "0.5", "--seed", "3")
    first = [run(world, *args), (world / "new.jsonl").read_bytes()][1]
    assert run(world, *args).code == 0 and (world / "new.jsonl").read_bytes() == first
    (world / "rows.jsonl").rename(world / "other.jsonl")
    run(world, *args, data="other.jsonl")
    renamed = [r | {"parent_row": ""} for r in read(world / "new.jsonl")]
    assert renamed == [json.loads(x) | {"parent_row": ""} for x in first.splitlines()]
    run(world, "--way", LOCAL, "--share", "0.5", "--seed", "4", data="other.jsonl")
    assert (world / "new.jsonl").read_bytes() != first


def test_shares_and_turns():
    rows = [
        Conversation(
            (Message("user", f"say {i}"), Message("assistant", "a", weight=1.0)), Origin("f", i)
        )
        for i in range(200)
    ]
    settings = AugmentSettings(("case", "typos", "template"), per_row=4, share=0.25)
    wanted = wanted_rows(rows, settings)
    assert len(wanted) == 200 and len({w.row.origin.line for w in wanted}) == 50
    ways = [w.way for w in wanted]
    assert all(55 <= ways.count(way) <= 80 for way in settings.ways)
    assert [w.variant for w in wanted[:4]] == [0, 0, 0, 1] and wanted[0].way == wanted[3].way
    more = {w.row.origin.line for w in wanted_rows(rows, AugmentSettings(("case",), share=0.5))}
    assert {w.row.origin.line for w in wanted} < more
    again = [Conversation(r.messages, r.origin, parent="0" * 64) for r in rows[:150]]
    left = wanted_rows([*again, *rows[150:]], AugmentSettings(("case",)))
    assert len(left) == 50  # augmented rows are not augmented again


def test_rows_that_are_there_already_are_not_made(world):
    rows = read(world / "rows.jsonl")
    write(world / "rows.jsonl", [rows[5], rows[5] | {"prompt": rows[5]["prompt"][:-1]}])
    outcome = run(world, "--way", "case", "--per-row", "12")
    reasons = {line.get("reason") for line in read(world / "new.ledger.jsonl")}
    assert outcome.code == 0 and "already there, word for word" in reasons
    texts = [row["messages"][0]["content"] for row in read(world / "new.jsonl")]
    assert len(set(texts)) == len(texts) and not {r["prompt"] for r in rows} & set(texts)


def test_tools_and_weights_are_kept(world):
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    messages = [
        {"role": "user", "content": "Tell me what the weather is like."},
        {"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "Sun"},
        {"role": "assistant", "content": "Sunny.", "weight": 0.5},
    ]  # fmt: skip
    write(world / "rows.jsonl", [{"messages": messages, "tools": [tool]}])
    assert run(world, "--way", "template").code == 0
    (new,) = read(world / "new.jsonl")
    assert new["tools"] == [tool] and new["messages"][1:] == messages[1:]
    assert messages[0]["content"] in new["messages"][0]["content"]


def test_paraphrases_by_an_endpoint(world, server):
    """Asked once: the same command again costs nothing and writes the same."""
    server.reply = lambda asked: (
        "Please say: "
        + asked.partition("<message>\n")[2].partition("\n</message>")[0].replace("really", "truly")
    )
    args = (
        *("--way", "paraphrase", "--endpoint", server.url, "--endpoint-model", "fake"),
        *("--price-per-million", "1,2", "--per-row", "2", "--parallel", "2"),
    )
    dry = run(world, *args, "--dry-run")
    assert dry.code == 0 and not server.seen and sorted(p.name for p in world.iterdir()) == [
        "rows.jsonl"
    ]  # fmt: skip
    assert "estimate: 60 requests, about" in dry.err and ", about $0.0" in dry.err
    outcome = run(world, *args)
    assert outcome.code == 0 and len(server.seen) == 60
    assert "asked: 60 requests, 6,000 tokens sent and 600 received, $0.0072" in outcome.err
    first = (world / "new.jsonl").read_bytes()
    rows = read(world / "new.jsonl")
    assert 25 <= len(rows) <= 31 and all("truly" in r["messages"][0]["content"] for r in rows[:3])
    summary = json.loads((world / "new.summary.json").read_text())
    assert summary["paid"]["dollars"] == pytest.approx(0.0072)
    assert summary["estimate"]["num_requests"] == 60
    again = run(world, *args, "--budget", "0")
    assert again.code == 0 and len(server.seen) == 60
    assert "0 requests (60 more are answered already)" in again.err
    assert (world / "new.jsonl").read_bytes() == first
    assert json.loads((world / "new.summary.json").read_text())["paid"]["dollars"] == 0


def test_bad_paraphrases_are_dropped_with_the_reason(world, server):
    server.reply = lambda _asked: "Sure! Here is what the fox wants."
    args = ("--endpoint", server.url, "--endpoint-model", "m", "--way", "paraphrase")
    outcome = run(world, *args)
    assert outcome.code == 3 and "no new row could be made" in outcome.err
    assert not (world / "new.jsonl").exists()
    ledger = read(world / "new.ledger.jsonl")
    assert {line["reason"] for line in ledger} == {"talks about the rewriting"}


def test_the_budget_leaves_rows_out(world, server):
    server.reply = lambda asked: (
        asked.partition("<message>\n")[2].partition("\n</message>")[0].replace("really", "truly")
    )
    server.usage = {"prompt_tokens": 300, "completion_tokens": 30}
    outcome = run(
        world, "--endpoint", server.url, "--endpoint-model", "m", "--way", "paraphrase",
        "--price-per-million", "10,10", "--budget", "0.03", "--parallel", "1",
    )  # fmt: skip
    summary = json.loads((world / "new.summary.json").read_text())
    assert outcome.code == 0 and summary["paid"]["dollars"] <= 0.03
    assert summary["ways"]["paraphrase"]["dropped"]["the budget was reached"] > 10
    assert "the budget of $0.03 ends it before that" in outcome.err


def test_an_endpoint_that_is_not_there(world):
    outcome = run(
        world, "--endpoint", "http://127.0.0.1:9/v1", "--endpoint-model", "m",
        "--way", "paraphrase", "--timeout", "1",
    )  # fmt: skip
    assert outcome.code == 2 and "nothing answers at http://127.0.0.1:9/v1/chat" in outcome.err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--way", "paraphase"], 2, "no way 'paraphase'. Did you mean 'paraphrase'?"),
        (["--way", ","], 2, "expected one or more of template"),
        (["--way", "paraphrase"], 2, "give --endpoint URL or --own-model"),
        (["--way", "self_answer"], 2, "give --own-model"),
        (["--way", "case", "--endpoint", "http://x/v1", "--endpoint-model", "m"], 2, "add --way p"),
        (["--way", "paraphrase", "--endpoint", "http://x/v1"], 2, "needs --endpoint-model NAME"),
        (["--way", "case", "--budget", "1"], 2, "--budget: needs --endpoint URL"),
        (
            ["--way", "paraphrase", "--endpoint", "http://x/v1", "--endpoint-model", "m",
             "--budget", "1"], 2, "needs --price-per-million IN,OUT",
        ),
        (
            ["--way", "paraphrase", "--endpoint", "http://x/v1", "--endpoint-model", "m",
             "--price-per-million", "1"], 2, "expected IN,OUT in US dollars",
        ),
        (
            ["--way", "paraphrase", "--endpoint", "http://x/v1", "--endpoint-model", "m",
             "--endpoint-options", "[1]"], 2, "expected a JSON object",
        ),
        (["--way", "case", "--templates", "t.txt"], 2, "is read by --way template only"),
        (["--way", "case", "--out", "new.csv"], 2, "must end in .jsonl"),
        (["--way", "case", "--out", "nowhere/new.jsonl"], 2, "there is no folder nowhere"),
    ],
)  # fmt: skip
def test_wrong_flags(world, monkeypatch, args, code, message):
    monkeypatch.chdir(world)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    outcome = run(world, *args)
    assert outcome.code == code and message in outcome.error()
    assert sorted(path.name for path in world.iterdir()) == ["rows.jsonl"]


def test_what_is_there_is_not_overwritten(world):
    write(world / "new.jsonl", [{"mine": 1}])
    outcome = run(world, "--way", "case")
    assert outcome.code == 2 and "was not written by sft augment" in outcome.error()
    outcome = run(world, "--way", "case", out="rows.jsonl")
    assert outcome.code == 2 and "is the file that rows are read from" in outcome.error()
    outcome = run(world, "--way", "case", data="", out="other.jsonl")
    assert outcome.code == 2 and "whose files are all read as rows" in outcome.error()
    assert read(world / "new.jsonl") == [{"mine": 1}]


def test_the_rows_of_a_config(world):
    (world / "run.yaml").write_text(f"data:\n  train: {world / 'rows.jsonl'}\n")
    assert run(world, "--way", "case", data="run.yaml").code == 0
    assert read(world / "new.jsonl")


def test_bad_rows_and_rows_of_other_kinds(world):
    with (world / "rows.jsonl").open("a") as file:
        file.write('{"prompt": "torn\n')
    outcome = run(world, "--way", "case")
    assert outcome.code == 3 and "leave them out with --on-bad-row skip" in outcome.err
    assert not (world / "new.jsonl").exists()
    outcome = run(world, "--way", "case", "--on-bad-row", "skip")
    assert outcome.code == 0 and "1 rows cannot be used and are left out" in outcome.err
    again = run(world, "--way", "case", data="new.jsonl", out="again.jsonl")
    assert again.code == 3 and "or augmented already" in again.err


def test_ways():
    assert parse_ways(" case, typos,case ") == ("case", "typos")
    assert parse_ways(",".join(WAYS)) == WAYS
    with pytest.raises(ConfigError):
        parse_ways("")
