"""Data remedies: what is planted goes, what is clean stays, and every row is accounted for."""

import random
from collections import Counter

import pytest

from sft.curate.remedies import cap_openers, dedupe, strip_openers
from sft.errors import ConfigError
from sft.texts.openers import opener, surface

BODIES = [
    f"{word} makes number {i} true."
    for i, word in enumerate(["it", "he", "rice", "law", "art"] * 8)
]


def answers_of(rows):
    return [row.messages[-1].content for row in rows]


def accounted(before, kept, reported):
    """Rows that are not as they were, by line."""
    after = {row.origin.line: row for row in kept}
    assert [row.origin.line for row in kept] == sorted(after)
    changed = [row.origin for row in before if after.get(row.origin.line) != row]
    assert [origin for origin, _ in reported] == changed
    return [origin.line for origin in changed]


@pytest.fixture
def answered(rows):
    return lambda answers: rows([f"prompt {i}" for i in range(len(answers))], answers)


@pytest.mark.parametrize("prefix", ["Sure! ", "Of course, ", "Sure, here is ", "Great point!\n\n"])
def test_a_planted_opener_is_stripped_down_to_its_share(answered, prefix):
    before = answered([prefix + body for body in BODIES])
    kept, changed = strip_openers(before, 0.1)
    assert len(accounted(before, kept, changed)) == 36
    start = prefix.split()[0]
    left = [text for text in answers_of(kept) if not text.startswith(start)]
    assert len(left) == 36
    assert all(text[0].isupper() for text in left)
    whole = {body[0].upper() + body[1:] for body in BODIES}
    assert sum(text in whole for text in left) >= 32  # four may keep a later part: "here is"
    assert all(text.startswith(start) == (text.split()[0] == start) for text in answers_of(kept))
    assert f'opener "{prefix.strip(" !,").split("!")[0].lower()}'[:12] in changed[0][1]


def test_stripping_does_not_depend_on_the_order_of_the_rows(answered):
    before = answered([f"Sure! {body}" for body in BODIES])
    kept = {row.origin: row for row in strip_openers(before, 0.2)[0]}
    again = {row.origin: row for row in strip_openers(before[::-1], 0.2)[0]}
    assert kept == again and sum("Sure" in row.messages[-1].content for row in kept.values()) == 8


@pytest.mark.parametrize(
    "answers",
    [
        [f"The {body}" for body in BODIES],  # a word of the sentence
        [f"Yes, {body}" for body in BODIES],  # the answer itself
        ["Sure!"] * 40,  # nothing else
        [f"{'Positive' if i % 2 else 'Negative'}. {b}" for i, b in enumerate(BODIES)],  # labels
        [f"1. {body}" for body in BODIES],
        [f"```python\n{body}" for body in BODIES],
        [f'{{"name": "{body}"}}' for body in BODIES],
        [f"Sure! {b}" if i < 4 else b for i, b in enumerate(BODIES)],  # within its share
    ],
)
def test_what_is_not_an_opener_beyond_its_share_stays(answered, answers):
    before = answered(answers)
    assert strip_openers(before, 0.1) == (before, [])


def test_only_the_first_answer_is_stripped_and_the_rest_of_the_row_stays(row):
    from dataclasses import replace

    from sft.data.rows.conversation import Message

    before = []
    for line in range(1, 21):
        one = row("Hi", f"Sure! x = {line}", line)
        more = (Message("user", "More"), Message("assistant", "Sure! Fine.", weight=0.5))
        before.append(replace(one, messages=one.messages + more))
    kept, _ = strip_openers(before, 0.05)
    texts = Counter(r.messages[1].content == f"x = {r.origin.line}" for r in kept)
    assert texts == {True: 19, False: 1}  # and a formula gets no capital
    for new, old in zip(kept, before, strict=True):
        assert new.messages[2:] == old.messages[2:] and new.messages[1].weight == 1


def test_clean_data_are_left_alone(real, rows):
    """A remedy for an ill that is not there must cost nothing."""
    for name in ("alpaca", "gsm8k"):
        prompts, answers = zip(*real(name)[:900], strict=True)
        before = rows(prompts, answers)
        assert strip_openers(before, 0.1) == (before, [])
        assert cap_openers(before, 0.1) == (before, [])


def test_openers_are_capped(answered):
    before = answered(
        [f"Sure, here is {body}" if i < 30 else body for i, body in enumerate(BODIES)]
    )
    kept, dropped = cap_openers(before, 0.25)
    accounted(before, kept, dropped)
    counts = Counter(opener(text) for text in answers_of(kept))
    # Ten others are in five kinds of two: 3 of 13 are at most a quarter, 4 of 14 would be more.
    assert counts["sure"] == 3 and counts.total() == 13
    assert dropped[0][1] == '30 answers begin with "sure"; 3 are kept'
    again, _ = cap_openers(before[::-1], 0.25)
    assert {row.origin for row in again} == {row.origin for row in kept}


def test_capping_never_drops_everything(answered):
    before = answered([f"Sure, here is {body}" for body in BODIES])
    assert len(cap_openers(before, 0.1)[0]) == 1
    assert cap_openers(before, 1.0) == (before, [])
    assert cap_openers([], 0.1) == ([], [])


def test_dedupe_keeps_the_first_of_each_cluster(rows):
    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(900)}" for _ in range(40)) for _ in range(5)]
    before = rows([*texts, texts[1].upper(), f"{texts[2]} indeed"], ["An answer."] * 7)
    kept, dropped = dedupe(before)
    assert accounted(before, kept, dropped) == [6, 7]
    assert [reason for _, reason in dropped] == [
        "near-duplicate of rows.jsonl:2",
        "near-duplicate of rows.jsonl:3",
    ]
    assert dedupe(kept) == (kept, [])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda rows: strip_openers(rows, 0),
        lambda rows: cap_openers(rows, 1.5),
    ],
)
def test_wrong_settings_are_refused(rows, wrong):
    with pytest.raises(ConfigError, match="must be"):
        wrong(rows(["a", "b"]))


def test_the_clean_baselines(real):
    """2.3 of the study: no opener beyond 4 % in clean sets; compression 2.19 and 2.47."""
    for name, ratio in (("alpaca", 2.19), ("gsm8k", 2.47)):
        found = surface([answer for _, answer in real(name)])
        assert found["opener_count"] / found["n"] < 0.05
        assert found["compression_ratio"] == pytest.approx(ratio, abs=0.15)
