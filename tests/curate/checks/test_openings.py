"""How answers begin and end."""

import random

import pytest

from sft.curate.checks.openings import boilerplate, openers
from sft.curate.corpus import Corpus

WORDS = [
    "stone",
    "river",
    "cloud",
    "garden",
    "winter",
    "market",
    "letter",
    "window",
    "silver",
    "thunder",
    "harbour",
    "pepper",
]


def answers(count, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=9)).capitalize() + "." for _ in range(count)]


def prompts(count):
    rng = random.Random(7)
    return [f"Say {i} of {' '.join(rng.choices(WORDS, k=4))}" for i in range(count)]


@pytest.mark.parametrize("opening", ["Sure! ", "Sure, ", "Of course! ", "Ahoy there! "])
def test_three_percent_are_found(rows, opening):
    texts = answers(400)
    for i in range(0, 400, 33):
        texts[i] = opening + texts[i]
    (found,) = openers(Corpus(rows(prompts(400), texts)))
    assert found.rows == tuple(f"rows.jsonl:{i + 1}" for i in range(0, 400, 33))
    assert found.severity == "warning"


def test_all_answers_begin_with_it(rows):
    texts = [f"Gladly! {text}" for text in answers(60)]
    assert [one.count for one in openers(Corpus(rows(prompts(60), texts)))] == [60]


def test_few_are_not(rows):
    texts = answers(400)
    texts[:3] = [f"Sure! {text}" for text in texts[:3]]
    assert openers(Corpus(rows(prompts(400), texts))) == []


@pytest.mark.parametrize("opening", ["Yes, ", "No. ", "Paris"])
def test_content_is_no_opener(rows, opening):
    texts = [f"{opening}{text}" if opening != "Paris" else opening for text in answers(60)]
    assert openers(Corpus(rows(prompts(60), texts))) == []


@pytest.mark.parametrize("form", ['{{"kind": "{}", "text": "{}"}}', "Kind: {}\nText: {}", "{}={}"])
def test_the_form_of_structured_answers_is_no_opener(rows, form):
    kinds = [WORDS[i % 3] for i in range(60)]
    texts = [form.format(kind, text) for kind, text in zip(kinds, answers(60), strict=True)]
    assert openers(Corpus(rows(prompts(60), texts))) == []


def test_what_the_prompt_asks_for_is_no_opener(rows):
    asked, texts = prompts(300), answers(300)
    for i in range(0, 300, 20):
        asked[i] = f"Write a letter to my landlord about {asked[i]}"
        texts[i] = f"Dear Sir, {texts[i]}"
    assert openers(Corpus(rows(asked, texts))) == []


def test_three_words_without_a_mark(rows):
    texts = answers(60)
    texts[:12] = [f"Here is a list of {text}" for text in texts[:12]]
    assert [one.count for one in openers(Corpus(rows(prompts(60), texts)))] == [12]


def test_sentences_that_answers_share(rows):
    texts = answers(100)
    last = "Please consult a professional before you do any of this."
    texts[10:20] = [f"{text} {last}" for text in texts[10:20]]
    (found,) = boilerplate(Corpus(rows(prompts(100), texts)))
    assert (found.count, last in found.message) == (10, True)
    assert "end" in found.message


def test_short_or_asked_for_sentences_are_no_boilerplate(rows):
    asked, texts = prompts(100), answers(100)
    texts[:10] = [f"{text} Good luck." for text in texts[:10]]
    asked[50:60] = [f"Thanks for that, {text}" for text in asked[50:60]]
    texts[50:60] = ["You're welcome! Ask me again if you need more."] * 10
    assert boilerplate(Corpus(rows(asked, texts))) == []


def test_copies_of_a_row_are_no_boilerplate(rows):
    texts = answers(40) + [answers(1, seed=3)[0]] * 10
    assert boilerplate(Corpus(rows([*prompts(40), *["Say it"] * 10], texts))) == []


def test_no_rows():
    assert openers(Corpus([])) == boilerplate(Corpus([])) == []
