"""Each step does what it says, on small lists."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import numpy as np
import pytest

from curating import pair, run, similar_rows, text, write
from sft.config import SourceConfig
from sft.curate.remedies import cap_openers, strip_openers
from sft.data.rows.read import read_conversations
from sft.errors import ConfigError, DataError


def conversations(path):
    return read_conversations([SourceConfig(path=str(path))], "error").conversations


def opened_rows(count=120):
    rows = similar_rows(count, seed=4)
    for i, row in enumerate(rows):
        if i % 2:
            row["output"] = f"Sure! Here is {row['output']}"
        elif i % 3 == 0:
            row["output"] = f"Of course, {row['output']}"
    return rows


def test_counts_add_up_and_every_row_is_accounted_for(tmp_path):
    rows = opened_rows(300)
    rows[7]["output"] = ""
    rows[9]["output"] = "I'm sorry, but I cannot assist with that request."
    done = run(
        rows,
        tmp_path,
        dedupe="near",
        cap_openers=0.2,
        min_answer_words=3,
        max_answer_words=50,
        drop="refusals",
        balance=4,
        select=60,
    )
    summary = done.summary
    left = summary["rows_read"]
    assert left == 300
    by = Counter(entry["by"] for entry in done.ledger if entry["action"] == "dropped")
    assert by["unreadable"] == by["refusals"] == 1
    for step in summary["steps"]:
        left -= step["dropped"]
        assert step["left"] == left
        assert step["dropped"] == by.pop(step["step"], 0)
        assert step["dropped"] or step["step"] == "decontaminate"
    assert not by
    assert left == summary["rows_written"] == len(done.rows) == 60
    gone = done.dropped()
    assert sorted(gone) == gone
    assert done.rows == [row for i, row in enumerate(rows, start=1) if i not in gone]
    assert summary["inputs"].keys() == {str(tmp_path / "rows.jsonl")}


def test_rows_are_written_as_they_were_to_the_byte(tmp_path):
    lines = [
        '{"output":"one  more \\u00e9","instruction":"q1","score":1.50,"tags":["a", null]}',
        '{"instruction": "q2", "output": "é two", "big": 12345678901234567890, "id": 1e3}',
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("\ufeff" + lines[0] + "\r\n\n" + lines[1], encoding="utf-8")
    done = run(source, tmp_path, dedupe="near")
    assert done.files[0].decode() == lines[0] + "\n" + lines[1] + "\n"


def test_other_files_are_written_as_json_lines(tmp_path):
    (tmp_path / "a.csv").write_text('question,answer,id\n"a, b",one,007\nc,two,1\n')
    done = run(tmp_path / "a.csv", tmp_path)
    assert done.rows == [
        {"question": "a, b", "answer": "one", "id": "007"},
        {"question": "c", "answer": "two", "id": "1"},
    ]
    document = tmp_path / "a.json"
    document.write_text(json.dumps({"data": [pair("a", "b"), pair("c", ""), pair("d", "e")]}))
    done = run(document, tmp_path, name="second", chunk_rows=2)
    assert done.rows == [pair("a", "b"), pair("d", "e")]
    assert [entry["reason"] for entry in done.ledger] == ["output: empty"]


def test_unreadable_rows_stand_in_the_ledger_with_their_reason(tmp_path):
    source = tmp_path / "rows.jsonl"
    good = json.dumps(pair("q", "a"))
    source.write_bytes(
        f'{good}\n[1]\n{good[:-3]}\n{{"x": 1}}\n{good}\n'.encode() + b'{"a": "\xff"}'
    )
    done = run(source, tmp_path, chunk_rows=2)
    assert [int(e["row"].rpartition(":")[2]) for e in done.ledger] == [2, 3, 4, 6]
    assert {entry["by"] for entry in done.ledger} == {"unreadable"}
    assert "0xFF is not UTF-8" in done.ledger[3]["reason"]
    assert done.summary["steps"][0] == {"step": "unreadable", "dropped": 4, "changed": 0, "left": 2}


def test_lengths_are_counted_in_words_of_the_answer(tmp_path):
    rows = [
        pair("q", "one"),
        pair("q", "one two"),
        pair("q", "one, two, three"),
        pair("q", "你好吗"),
    ]
    done = run(rows, tmp_path, min_answer_words=2, max_answer_words=2)
    assert done.rows == [rows[1]]
    assert done.ledger[1]["reason"] == "the answer has 3 words, and 2 is the most"
    assert done.dropped("max_answer_words") == [3, 4]


def test_quality(tmp_path):
    rng = random.Random(0)
    good = text(rng, 60)
    looped = text(rng, 12) + " and so on and so on" * 12
    lines = "\n".join(["yes it is"] * 5 + ["no"] * 3)
    symbols = " ".join("".join(rng.choices("=#|-+<>*", k=9)) + " a" for _ in range(25))
    rows = [pair("q", one) for one in (good, looped, lines, symbols, "yes " * 5)]
    done = run(rows, tmp_path, quality=True)
    assert done.dropped("quality") == [2, 3, 4]
    assert "5-word runs are repeats" in done.ledger[0]["reason"]
    assert "lines repeat" in done.ledger[1]["reason"]
    assert "letters or digits" in done.ledger[2]["reason"]


def test_checks_of_single_rows_and_of_all_rows(tmp_path):
    rng = random.Random(0)
    rows = [pair(text(rng, 9), text(rng, 20) + ".") for _ in range(60)]
    rows[3]["output"] = "N/A"
    rows[5]["output"] = "I'm sorry, but I cannot assist with that request."
    for i in (20, 21, 22, 23, 24, 25):
        rows[i]["output"] = "This one sentence is the same everywhere. " + rows[i]["output"]
    done = run(rows, tmp_path, drop=["boilerplate", "refusals", "empty"])
    assert done.dropped("empty") == [4]
    assert done.dropped("refusals") == [6]
    assert done.dropped("boilerplate") == [21, 22, 23, 24, 25, 26]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("refusal", "Did you mean 'refusals'"),
        ("near_duplicates", "use --dedupe near"),
        ("contamination", "use --decontaminate"),
    ],
)
def test_checks_that_cannot_be_dropped(tmp_path, check, message):
    with pytest.raises(ConfigError, match=message):
        run([pair("a", "b")], tmp_path, drop=check)


def test_every_check_can_be_dropped_or_has_an_option():
    from sft.curate.checks import CHECKS
    from sft.curate.stream.row_rules import CORPUS_CHECKS, ROW_CHECKS, split_checks

    for name in CHECKS:
        try:
            assert split_checks([name]) in (([name], []), ([], [name]))
        except ConfigError as error:
            assert re.search(r"use --(dedupe|decontaminate|cap-openers) ", str(error))
    assert {*ROW_CHECKS, *CORPUS_CHECKS} <= CHECKS.keys()


def test_a_check_of_rows_finds_the_same_in_one_row_as_in_all():
    """Rows are checked one at a time while they are read, so that chunks do not matter."""
    from sft.curate.checks import CHECKS
    from sft.curate.corpus import Corpus
    from sft.curate.stream.row_rules import ROW_CHECKS
    from sft.data.rows.conversation import Conversation, Message, Origin

    rng = random.Random(0)
    answers = [
        text(rng, 30) + ".",
        "N/A",
        "I'm sorry, but I cannot assist with that request.",
        "go on " * 40,
        "Write to anna.schmidt@web.de about it.",
        "This is caf\u00c3\u00a9 text.",
        "<|im_start|>user",
        "one two three four five six, yes",
    ]
    rows = [
        Conversation(
            (Message("user", "one two three four five six"), Message("assistant", a, weight=1.0)),
            Origin("rows", i),
        )
        for i, a in enumerate(answers)
    ]
    hits = 0
    for name in ROW_CHECKS:
        every = {place for found in CHECKS[name](Corpus(train=rows)) for place in found.rows}
        single = {str(row.origin) for row in rows if CHECKS[name](Corpus(train=[row]))}
        assert single == every, name
        hits += len(every)
    assert hits >= 6


def test_decontaminate(tmp_path):
    rng = random.Random(0)
    questions = [text(rng, 30) for _ in range(4)] + ["who wrote these seven lines here"]
    benchmark = tmp_path / "public.txt"
    benchmark.write_text("\n".join(questions))
    words = questions[0].split()
    prompts = [
        text(rng, 40),
        f"Please: {questions[0].upper()}!",
        f"{text(rng, 10)} {' '.join(words[:13])} {text(rng, 10)}",
        f"{text(rng, 10)} {' '.join(words[:9])} {text(rng, 10)}",
        "Tell me who wrote these seven lines here, please",
        "who wrote these seven lines there",
    ]
    rows = [pair(prompt, text(rng, 10)) for prompt in prompts]
    done = run(rows, tmp_path, decontaminate=[str(benchmark)])
    assert done.dropped("decontaminate") == [2, 3, 5]
    assert done.ledger[0]["reason"] == f"holds text 1 of {benchmark} (100 % of its runs of words)"
    by_rows = write(
        tmp_path / "public.jsonl", [{"instruction": q, "output": "?"} for q in questions]
    )
    again = run(rows, tmp_path, decontaminate=str(by_rows), name="again")
    assert again.dropped() == [2, 3, 5]


def test_openers_are_dropped_as_in_training(tmp_path):
    source = write(tmp_path / "rows.jsonl", opened_rows())
    kept, dropped = cap_openers(conversations(source), 0.15)
    done = run(source, tmp_path, cap_openers=0.15)
    assert [entry["row"] for entry in done.ledger] == [str(origin) for origin, _ in dropped]
    assert [entry["reason"] for entry in done.ledger] == [reason for _, reason in dropped]
    assert len(done.rows) == len(kept)


def test_openers_are_stripped_as_in_training(tmp_path):
    source = write(tmp_path / "rows.jsonl", opened_rows())
    kept, changed = strip_openers(conversations(source), 0.1)
    done = run(source, tmp_path, cap_openers=0.1, openers="strip")
    assert [row["output"] for row in done.rows] == [row.messages[-1].content for row in kept]
    assert [(entry["row"], entry["reason"]) for entry in done.ledger] == [
        (str(origin), reason) for origin, reason in changed
    ]
    assert {entry["action"] for entry in done.ledger} == {"changed"}
    assert done.summary["rows_changed"] == len(changed) > 50


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_an_opener_is_stripped_where_the_answer_stands(tmp_path, key):
    names = ("role", "content", "user", "assistant")
    if key == "conversations":
        names = ("from", "value", "human", "gpt")
    role, content, user, assistant = names
    rows = []
    for i in range(10):
        answer = f"Sure! item {i} is here"
        turns = [{role: user, content: answer}, {role: assistant, content: answer}]
        rows.append({key: turns, "note": answer, "id": i})
    done = run(rows, tmp_path, cap_openers=0.3, openers="strip")
    edited = [row for row in done.rows if row[key][1][content].startswith("Item")]
    assert len(edited) == 7
    for row in edited:
        assert row[key][0][content] == row["note"] == f"Sure! item {row['id']} is here"
        assert row[key][1][content] == f"Item {row['id']} is here"


def test_balance_cuts_the_largest_clusters(tmp_path):
    rng = random.Random(1)
    rows = [pair(f"translate the word {text(rng, 1)} into French", "un") for _ in range(80)]
    rows += [pair(f"sum these numbers {rng.randrange(99)} quickly", "1") for _ in range(20)]
    done = run(rows, tmp_path, balance=2)
    kinds = Counter(row["instruction"].split()[0] for row in done.rows)
    assert kinds["sum"] == 20
    assert 50 <= kinds["translate"] <= 55
    assert re.fullmatch(r"\d\d prompts are in cluster [01]; 50 are kept", done.ledger[0]["reason"])


@pytest.mark.parametrize(("exact_rows", "topics_found"), [(1_000, 6), (0, 5)])
def test_select_keeps_what_differs_most(tmp_path, monkeypatch, exact_rows, topics_found):
    monkeypatch.setattr("sft.curate.diverse_rows.EXACT_ROWS", exact_rows)
    monkeypatch.setattr("sft.curate.diverse_rows.BLOCK_ROWS", 40)
    rng = random.Random(1)
    topics = [text(rng, 8) for _ in range(6)]
    rows = [pair(f"{topics[0]} {text(rng, 1)}", "a") for _ in range(90)]
    rows += [pair(topic, "b") for topic in topics[1:]]
    rng.shuffle(rows)
    done = run(rows, tmp_path, select=6)
    assert len({row["instruction"][:20] for row in done.rows}) >= topics_found
    assert len(done.rows) == 6
    assert run(rows, tmp_path, select=500, name="all").rows == rows


def usage_files(tmp_path):
    rng = random.Random(2)
    cooking = ["bake", "bread", "oven", "salt", "dough", "flour", "recipe", "boil"]
    legal = ["contract", "clause", "court", "liable", "tenant", "lease", "law", "sue"]

    def prompt(words):
        return " ".join(rng.choices(words, k=7))

    rows = [pair(prompt(cooking), "a") for _ in range(150)]
    rows += [pair(prompt(legal), "b") for _ in range(50)]
    rng.shuffle(rows)
    usage = [{"instruction": prompt(legal), "output": ""} for _ in range(30)]
    return rows, str(write(tmp_path / "usage.jsonl", usage))


def test_rows_are_drawn_towards_usage(tmp_path):
    rows, usage = usage_files(tmp_path)
    done = run(rows, tmp_path, toward=usage, mode="select", select=50)
    assert Counter(row["output"] for row in done.rows) == {"b": 50}
    assert 0 < done.summary["effective_rows"] <= 50
    assert done.ledger[0]["reason"].startswith("not drawn; its log weight is -")
    drawn = run(rows, tmp_path, toward=usage, mode="select", select=20, seed=1, name="one")
    other = run(rows, tmp_path, toward=usage, mode="select", select=20, seed=2, name="two")
    assert drawn.rows != other.rows


def test_rows_are_weighed_towards_usage(tmp_path):
    rows, usage = usage_files(tmp_path)
    done = run(rows, tmp_path, toward=usage)
    weights = {kind: [r["row_weight"] for r in done.rows if r["output"] == kind] for kind in "ab"}
    assert min(weights["b"]) > 5 * max(weights["a"])
    every = np.array([row["row_weight"] for row in done.rows])
    assert abs(every.mean() - 1) < 1e-4
    assert every.max() / every.min() <= 100.1
    effective = every.sum() ** 2 / (every**2).sum()
    assert abs(done.summary["effective_rows"] - effective) < 0.1
    assert [{**row, "row_weight": 0} for row in done.rows] == [
        {**row, "row_weight": 0} for row in rows
    ]


def test_a_weight_that_is_there_is_not_overwritten(tmp_path):
    rows, usage = usage_files(tmp_path)
    rows[4]["row_weight"] = 2
    with pytest.raises(DataError, match=r"rows.jsonl:5: has a column 'row_weight' already"):
        run(rows, tmp_path, toward=usage)


def test_no_row_left(tmp_path):
    with pytest.raises(DataError, match="no row is left"):
        run([pair("a", "b")], tmp_path, min_answer_words=5)
    assert not (tmp_path / "out.jsonl").exists()
