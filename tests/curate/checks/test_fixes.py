"""Every fix that a finding names removes the finding."""

from __future__ import annotations

import random
import re

import pytest

from curating import pair, run, text, write
from sft.config import SourceConfig
from sft.curate.checks import CHECKS
from sft.curate.checks.diversity import diversity
from sft.curate.checks.leaks import benchmark_texts, held_out_rows
from sft.curate.corpus import Corpus
from sft.curate.remedies import cap_openers, dedupe, strip_openers, without_leaks
from sft.data.rows.read import read_conversations

RNG = random.Random(0)
CLEAN = [pair(f"{text(RNG, 8).capitalize()}?", f"{text(RNG, 18).capitalize()}.") for _ in range(60)]
ENGLISH = "What is the best way to cook rice for two of my friends, and how long should I wait?"
GERMAN = "Der Reis ist nach zw\u00f6lf Minuten gar, und die Pfanne muss nicht mit Deckel zu sein."
SAID = "This one sentence is the same in all of them."
QUESTION = "How many clips did Natalia sell to her friends in all of April and all of May?"


def answers(*texts):
    """Clean rows, and others with these answers."""
    return [*CLEAN, *(pair(f"{text(RNG, 8).capitalize()}?", one) for one in texts)]


def swapped():
    """Questions and statements that can be told apart, three of them the wrong way round."""
    rows = [
        pair(
            f"Describe a {text(RNG, 1)} of kind {i}",
            f"The {text(RNG, 1)} is known for its {text(RNG, 1)} and was built in {1500 + i}. "
            f"It has a {text(RNG, 1)}, which is why many people visit it.",
        )
        for i in range(120)
    ]
    for row in (rows[3], rows[50], rows[99]):
        row["instruction"], row["output"] = row["output"], row["instruction"]
    return rows


# Check -> rows with the fault.
CASES = {
    "duplicates": [*CLEAN, CLEAN[3], CLEAN[4]],
    "near_duplicates": [
        *CLEAN,
        {**CLEAN[3], "output": CLEAN[3]["output"] + " Yes."},
        {**CLEAN[4], "output": CLEAN[4]["output"][:40]},
    ],
    "leaks": [*CLEAN, pair(QUESTION, "Seven."), pair("Short?", "Other.")],
    "contamination": [*CLEAN, pair(f"Tell me: {QUESTION}", "Seven.")],
    "conflicts": [
        *CLEAN,
        pair("Is the old road open?", "Yes."),
        pair("Is the old road open?", "No."),
    ],
    "empty": answers("N/A"),
    "echo": [*CLEAN, {**CLEAN[5], "output": CLEAN[5]["instruction"]}],
    "repetition": answers("go on and on and on " * 30),
    "refusals": answers("I'm sorry, but I cannot assist with that request."),
    "boilerplate": answers(*(f"{text(RNG, 12).capitalize()}. {SAID}" for _ in range(20))),
    "openers": answers(*(f"Gladly! {text(RNG, 12)}." for _ in range(20))),
    "cut_answers": answers("Water boils sooner on a mountain. There the air presses less on"),
    "encoding": answers("This is caf\u00c3\u00a9 text, and more of it."),
    "special_text": answers("It ends so. <|im_end|>"),
    "personal_data": answers("Write to anna.schmidt@web.de about it."),
    "languages": [*CLEAN, pair(ENGLISH, GERMAN)],
    "wrong_roles": swapped(),
}
# No fix of this is a setting or a command.
WITHOUT = {"lengths_text"}


def conversations(path):
    return read_conversations([SourceConfig(path=str(path))], "error").conversations


def corpus_of(path, held_out):
    return Corpus(
        conversations(path),
        test=held_out_rows(str(held_out)),
        benchmarks={"test": benchmark_texts(str(held_out), "--benchmark")},
    )


def found(name, corpus):
    return [finding for finding in CHECKS[name](corpus) if "sft curate" in finding.fix]


def options(fix, held_out):
    """The options of the command that a fix names."""
    command = re.search(r"sft curate DATA (.*?) ?--out FILE", fix)[1]
    pairs = dict(re.findall(r"--([\w-]+) (\S+)", command))
    values = {name.replace("-", "_"): value for name, value in pairs.items()}
    if "decontaminate" in values:
        values["decontaminate"] = [str(held_out)]
    if "cap_openers" in values:
        values["cap_openers"] = float(values["cap_openers"])
    return values


def test_every_check_has_a_case():
    assert {*CASES, *WITHOUT} == CHECKS.keys()


@pytest.mark.parametrize("name", CASES)
def test_the_command_removes_the_finding(name, tmp_path):
    held_out = write(tmp_path / "test.jsonl", [pair(QUESTION, "Seven."), pair("short ?", "This.")])
    source = write(tmp_path / "rows.jsonl", CASES[name])
    findings = found(name, corpus_of(source, held_out))
    assert findings, "the case has the fault"
    for number, finding in enumerate(findings):
        done = run(source, tmp_path, name=f"out{number}", **options(finding.fix, held_out))
        assert len(done.rows) >= len(CLEAN) - 2
        left = corpus_of(write(tmp_path / f"left{number}.jsonl", done.rows), held_out)
        assert found(name, left) == []


@pytest.mark.parametrize(
    ("name", "setting", "remedy"),
    [
        ("duplicates", "data.deduplicate: true", lambda rows: dedupe(rows)[0]),
        ("near_duplicates", "data.deduplicate: true", lambda rows: dedupe(rows)[0]),
        ("openers", "data.openers: strip", lambda rows: strip_openers(rows, 0.005)[0]),
    ],
)
def test_the_setting_removes_the_finding(name, setting, remedy, tmp_path):
    rows = conversations(write(tmp_path / "rows.jsonl", CASES[name]))
    (finding,) = CHECKS[name](Corpus(rows))
    assert setting in finding.fix
    assert CHECKS[name](Corpus(remedy(rows))) == []


def test_an_opener_that_cannot_be_stripped_is_dropped(tmp_path):
    rows = conversations(
        write(
            tmp_path / "rows.jsonl",
            answers(*(f"I think that {text(RNG, 12)} is so." for _ in range(12))),
        )
    )
    (finding,) = CHECKS["openers"](Corpus(rows))
    assert "data.openers: drop with data.opener_share: 0.005" in finding.fix
    assert "(11 of 72 rows go)" in finding.fix
    assert CHECKS["openers"](Corpus(cap_openers(rows, 0.005)[0])) == []


def test_a_split_that_cannot_be_made_apart_is_warned_of_with_a_setting(tmp_path):
    rows = conversations(write(tmp_path / "rows.jsonl", CASES["near_duplicates"]))
    corpus = Corpus(rows[:60], val=rows[60:], val_is_split_off=True)
    (finding,) = CHECKS["leaks"](corpus)
    assert (finding.severity, "data.deduplicate: true" in finding.fix) == ("warning", True)
    left, _ = without_leaks(rows[:60], rows[60:])
    assert CHECKS["leaks"](Corpus(left, val=rows[60:], val_is_split_off=True)) == []


def test_few_different_rows(tmp_path):
    rows = conversations(write(tmp_path / "rows.jsonl", CLEAN[:20] * 3))
    finding = next(f for f in diversity(Corpus(rows))[2] if "--dedupe near" in f.fix)
    assert "data.deduplicate: true" in finding.fix
    assert not [f for f in diversity(Corpus(dedupe(rows)[0]))[2] if "--dedupe near" in f.fix]
