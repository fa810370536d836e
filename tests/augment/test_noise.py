"""Noise changes what it says it does, and nothing that carries meaning."""

import random
import re

import pytest

from sft.augment.noise import TYPO_RATE, case, typos, whitespace
from sft.augment.spans import free_spans, kept_texts, numbers

PROMPT = (
    "Could you look at order R-9914, Marta? The kettle, bought on 3.5.2024 for $1,299.50, says "
    '"Error Four" and NASA would laugh. Write to Help@Shop.example or see https://X.example/Kettle '
    "and run `Kettle.reset(5)`. Thank You very much for everything, we are waiting here."
)
KEPT = (
    *("R-9914", "3.5.2024", "$1,299.50", '"Error Four"', "NASA", "Help@Shop.example"),
    *("https://X.example/Kettle", "`Kettle.reset(5)`"),
)
WAYS = {"case": case, "whitespace": whitespace, "typos": typos}


def changed(way, row, seed=0):
    change = WAYS[way](row, random.Random(seed))
    return change.messages[-2].content if change.messages else None


@pytest.mark.parametrize("way", WAYS)
def test_what_carries_meaning_stays(row, way):
    texts = {changed(way, row(PROMPT), seed) for seed in range(60)}
    assert len(texts) > 2 and PROMPT not in texts
    for text in texts:
        assert all(kept in text for kept in KEPT), text
        assert numbers(text) == numbers(PROMPT) and kept_texts(text) == kept_texts(PROMPT)


def test_case(row):
    texts = {changed("case", row("Who Wrote the NASA report, Anna?"), s) for s in range(40)}
    assert texts == {
        "who wrote the NASA report, anna?",
        "who wrote the NASA report, anna",
        "Who Wrote the NASA report, Anna",
    }


def test_doubled_spaces_are_all_that_changes(row):
    for seed in range(40):
        text = changed("whitespace", row(PROMPT), seed)
        assert text.split() == PROMPT.split() and 1 <= text.count("  ") <= 5


def test_typos_are_few_and_near(row):
    prompt = " ".join(["nothing elegant should survive untouched"] * 20) + "."
    for seed in range(40):
        text = changed("typos", row(prompt), seed)
        wrong = [(a, b) for a, b in zip(prompt.split(), text.split(), strict=True) if a != b]
        assert len(wrong) <= TYPO_RATE * 100 and wrong
        for before, after in wrong:
            assert len(before) == len(after) and before[0] == after[0]
            assert sum(x != y for x, y in zip(before, after, strict=True)) in (1, 2)


def test_words_of_the_answer_and_number_words_have_no_typos(row):
    asked = row("Where does Florence travel with twelve hundred penguins?", "Florence: penguins")
    for seed in range(60):
        words = changed("typos", asked, seed).split()
        assert {"Florence", "twelve", "hundred", "penguins?"} <= set(words)
        assert words != asked.messages[0].content.split()


@pytest.mark.parametrize(
    "prompt",
    [
        "Correct the spelling: I recieved it.",
        "How many letters has Mississippi?",
        "Rewrite this in uppercase.",
        "Fix the grammar of my note.",
        "Find a word that rhymes with moon.",
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_tasks_about_form_are_left_alone(row, way, prompt):
    change = WAYS[way](row(prompt), random.Random(0))
    assert not change.messages and change.reason == "the task is about the form of its text"


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_changed_says_so(row, way):
    code = "```\nDef Some(Thing):\n  Return  More\n```"
    for prompt in (code, "x = Foo(Bar)", "2+2"):
        assert WAYS[way](row(prompt), random.Random(0)).reason.startswith("nothing in it")


def test_code_beside_text(row):
    prompt = "Please Explain this:\n```\nFor X in Y:\n    Print(X)\n```\nWhat Does it print?"
    for seed in range(20):
        text = changed("case", row(prompt), seed)
        assert "```\nFor X in Y:\n    Print(X)\n```" in text


def test_all_user_turns_are_typed_by_the_same_person(row):
    from dataclasses import replace

    talk = row("First Question here?", "One.")
    talk = replace(talk, messages=(*talk.messages, *row("Second Question here?").messages))
    change = case(talk, random.Random(3))
    assert change.messages[0].content.islower() == change.messages[2].content.islower()
    assert [m.content for m in change.messages[1::2]] == ["One.", "An answer."]


def test_free_spans_leave_out_quotes_but_not_apostrophes():
    text = "It's 'Quoted Text' and don't, they're \u201cThese Too\u201d."
    free = " ".join(text[a:b] for a, b in free_spans(text))
    assert "Quoted" not in free and "These" not in free
    assert re.search("It's", free) and "don't" in free and "they're" in free


def test_numbers_count_thousands_alike():
    assert numbers("1,299.50 and 3/4 of 12") == numbers("12, 3/4 and 1299.50")
    assert numbers("12 12") != numbers("12")
