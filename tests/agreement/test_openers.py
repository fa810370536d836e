"""Every teller of openers is asked the same about the same answers."""

from __future__ import annotations

import pytest

from curating import pair, run, write
from sft.config import SourceConfig, load_config
from sft.curate.checks.diversity import diversity
from sft.curate.checks.openings import FIX_SHARE, openers
from sft.curate.corpus import Corpus
from sft.curate.remedies import cap_openers, choose_rows, strip_openers
from sft.data.repeats import answer_text
from sft.data.rows.read import read_conversations
from sft.guards.base import GuardSettings
from sft.guards.completions import sampled_openers
from sft.guards.history import History
from sft.texts.openers import surface

NOUNS = ["stone", "river", "cloud", "garden", "winter", "market", "letter", "window"]
VERBS = ["sees", "likes", "draws", "finds", "breaks"]
BODIES = [f"the {NOUNS[i % 8]} {VERBS[i // 8]} number {i * 7919}." for i in range(40)]
ZH = [f"{chr(0x4E00 + 37 * i)}{chr(0x5E00 + 53 * i)}\u662f\u7b54\u6848" for i in range(40)]

# Name -> the answers, the opener that 40 of them share, and whether strip can take it off.
CASES = {
    "zh": ([f"\u597d\u7684\uff0c{body}" for body in ZH], "\u597d\u7684", True),
    "sorry": ([f"I'm sorry, but {body}" for body in BODIES], "i'm sorry but", True),
    "apostrophe": ([f"I\u2019m sorry, but {body}" for body in BODIES], "i'm sorry but", True),
    "sure thing": ([f"Sure thing! {body}" for body in BODIES], "sure thing", True),
    "lead-in": ([f"Here is a {body[4:]}" for body in BODIES], "", True),
    "json": ([f'{{"answer": "{body}"}}' for body in BODIES], '{"answer', False),
    "no mark": ([f"I think that {body}" for body in BODIES], "i think that", False),
}


def conversations(path):
    return read_conversations([SourceConfig(path=str(path))], "error").conversations


@pytest.fixture(params=[name for name in CASES if CASES[name][1]])
def case(request, tmp_path):
    answers, phrase, can_strip = CASES[request.param]
    values = [pair(f"{NOUNS[i % 7]} {i}?", answer) for i, answer in enumerate(answers)]
    return values, conversations(write(tmp_path / "rows.jsonl", values)), phrase, can_strip


def guard(answers):
    def samples(step, texts):
        return [
            {"step": step, "probe": "val", "id": str(i), "answer": text, "stop_reason": "stop"}
            for i, text in enumerate(texts)
        ]

    history = History(GuardSettings(), samples=samples(0, BODIES) + samples(8, answers))
    return sampled_openers(history).message


def test_how_many_begin_alike(case, tmp_path):
    values, rows, phrase, _ = case
    answers = [answer_text(row) for row in rows]
    described = surface(answers)
    assert (described["opener"], described["opener_count"]) == (phrase, 40)
    assert guard(answers).startswith(f'40 of 40 sampled answers open with "{phrase}"')
    assert diversity(Corpus(rows))[0]["answers begin with"] == f'"{phrase}" 100 %'
    _, dropped = cap_openers(rows, 0.1)
    assert len(dropped) == 39
    assert dropped[0][1] == f'40 answers begin with "{phrase}"; 1 are kept'
    ledger = run(values, tmp_path, cap_openers=0.1, name="out").ledger
    assert len(ledger) == 39 and ledger[0]["reason"] == dropped[0][1]


def test_what_is_stripped(case, tmp_path):
    values, rows, phrase, can_strip = case
    kept, changed = strip_openers(rows, 0.1)
    done = run(values, tmp_path, cap_openers=0.1, openers="strip", name="out")
    assert [row["output"] for row in done.rows] == [answer_text(row) for row in kept]
    assert len(done.ledger) == len(changed) == (36 if can_strip else 0)
    notes = []
    config = load_config({"data": {"train": ["x"], "openers": "strip"}}).data
    choose_rows(rows, [], config=config, seed=0, note=notes.append)
    (note,) = notes
    assert ("36 of 40" in note) if can_strip else ("changed none of the 40" in note)
    findings = openers(Corpus(rows))
    if can_strip:
        assert [finding.count for finding in findings] == [40]
        assert f'"{phrase}"' in findings[0].message
        assert "data.openers: strip" in findings[0].fix
        assert all(answer_text(row)[0].isupper() or not row for row in kept if row not in rows) or (
            phrase == "\u597d\u7684"
        )
    else:  # a fix that would change nothing, or take most rows, is not named
        assert [finding.fix for finding in findings] in ([], [""])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][2]])
def test_the_named_fix_removes_the_finding(name, tmp_path):
    answers, *_ = CASES[name]
    values = [pair(f"{NOUNS[i % 7]} {i}?", answer) for i, answer in enumerate(answers)]
    rows = conversations(write(tmp_path / "rows.jsonl", values))
    (finding,) = openers(Corpus(rows))
    assert f"data.opener_share: {FIX_SHARE}" in finding.fix and "strip" in finding.fix
    assert openers(Corpus(strip_openers(rows, FIX_SHARE)[0])) == []
    done = run(values, tmp_path, cap_openers=FIX_SHARE, openers="strip", name="out")
    assert len(done.rows) == 40
    assert openers(Corpus(conversations(write(tmp_path / "again.jsonl", done.rows)))) == []


def test_no_answer_is_left_as_a_fragment(tmp_path):
    """ "Sure" and "Sure thing" are two openers, and each goes as a whole."""
    begins = ["Sure thing! ", "Sure! ", ""]
    answers = [f"{begins[i % 3]}The case of {body}" for i, body in enumerate(BODIES)]
    values = [pair(f"{NOUNS[i % 7]} {i}?", answer) for i, answer in enumerate(answers)]
    rows = conversations(write(tmp_path / "rows.jsonl", values))
    kept, changed = strip_openers(rows, 0.005)
    assert len(changed) == 27
    assert {" ".join(answer_text(row).split()[:2]) for row in kept} == {"The case"}
