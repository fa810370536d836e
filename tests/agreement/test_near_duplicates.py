"""Every teller of near-duplicates and repeats is asked the same about the same rows."""

from __future__ import annotations

import json
import random

import pytest

from curating import pair, run, similar_rows, text, write
from sft.config import SourceConfig
from sft.curate.checks.copies import duplicates, near_duplicates
from sft.curate.checks.leaks import leaks as leaks_finding
from sft.curate.corpus import Corpus
from sft.curate.preflight import preflight
from sft.curate.remedies import dedupe, without_leaks
from sft.data.repeats import HeldOut
from sft.data.rows.read import read_conversations
from sft.data.splits import split_off
from sft.texts.near_duplicates import first_of_each

ANSWER = "Water boils at a lower temperature up there because the air presses less on it."
ASKED = "Why does water boil sooner on a mountain?"
SIX = [
    pair(ASKED, ANSWER),
    pair(ASKED, ANSWER.replace("lower", "smaller")),
    pair(ASKED, f"{ANSWER} I hope this helps."),
    pair(ASKED.replace("sooner", "faster"), ANSWER),
    pair("What is a verb?", "A word for what is done."),
    pair("Name the capital of Norway.", "It is Oslo."),
]


def augmented_rows():
    """A row, a copy and a near-duplicate of it, and the same two made by augmentation."""
    rng = random.Random(0)
    answer = text(rng, 40)
    rows = [pair("Tell me", answer), pair("Tell me", answer), pair("Tell me", f"{answer} again")]
    children = [pair("Tell me", f"{answer} child"), pair("Tell me", f"{answer} child")]
    return [*rows, *({**child, "parent": "a" * 64} for child in children)]


CASES = {"six": SIX, "similar": similar_rows(300), "augmented": augmented_rows()}


def conversations(path):
    return read_conversations([SourceConfig(path=str(path))], "error").conversations


def lines(origins):
    return sorted(int(str(origin).rpartition(":")[2]) for origin in origins)


@pytest.mark.parametrize("name", CASES)
def test_which_rows_repeat_an_earlier_one(name, tmp_path):
    rows = conversations(write(tmp_path / "rows.jsonl", CASES[name]))
    corpus = Corpus(rows)
    findings = [*duplicates(corpus), *near_duplicates(corpus)]
    answers = {
        "check": lines(place for finding in findings for place in finding.rows),
        "data.deduplicate": lines(origin for origin, _ in dedupe(rows)[1]),
        "sft curate": run(CASES[name], tmp_path, dedupe="near", name="out").dropped(),
    }
    assert answers["check"], "the case has repeats"
    assert len({json.dumps(answer) for answer in answers.values()}) == 1, answers


def test_six_rows_are_three_everywhere(tmp_path):
    rows = conversations(write(tmp_path / "rows.jsonl", SIX))
    assert [finding.count for finding in near_duplicates(Corpus(rows))] == [3]
    assert len(dedupe(rows)[0]) == len(first_of_each(Corpus(rows).labels)) == 3
    assert preflight(rows, [], None, visits=6)["rows"]["clusters"] == 3
    left, _ = dedupe(rows)
    assert near_duplicates(Corpus(left)) == []


@pytest.mark.parametrize("name", ["six", "similar"])
@pytest.mark.parametrize("seed", range(3))
def test_the_split_is_never_refused_by_the_check(name, seed, tmp_path):
    rows = conversations(write(tmp_path / "rows.jsonl", CASES[name]))
    split = split_off(rows, 0.2, seed)
    assert split.val and not split.notes
    assert leaks_finding(Corpus(split.train, val=split.val)) == []
    assert preflight(split.train, split.val, None, visits=9)["rows"]["num_leaks"] == 0
    assert without_leaks(split.train, split.val)[1] == []
    assert not any(HeldOut(split.val).like(row) for row in split.train)


def test_a_leak_is_a_leak_to_all(tmp_path):
    """Rows of validation and near-copies of them, in training."""
    rows = conversations(write(tmp_path / "rows.jsonl", CASES["similar"]))
    train, val = rows[100:], rows[:100]
    held_out = write(tmp_path / "val.jsonl", CASES["similar"][:100])
    answers = {
        "check": lines(p for f in leaks_finding(Corpus(train, val=val)) for p in f.rows),
        "data.deduplicate": lines(origin for origin, _ in without_leaks(train, val)[1]),
        "stream": lines(row.origin for row in train if HeldOut(val).like(row)),
        "sft curate": [
            line + 100
            for line in run(
                CASES["similar"][100:], tmp_path, decontaminate=[str(held_out)], name="out"
            ).dropped("decontaminate")
        ],
    }
    assert answers["check"]
    assert len({json.dumps(answer) for answer in answers.values()}) == 1, answers
    report = preflight(train, val, None, visits=9)["rows"]
    assert report["num_leaks"] == len({i for row in train for i in HeldOut(val).like(row)})
