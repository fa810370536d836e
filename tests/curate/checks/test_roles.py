"""Text in the wrong role."""

import random

import numpy as np
import pytest

from sft.curate.checks.roles import swap_odds, wrong_roles
from sft.curate.corpus import Corpus

VERBS = ("Describe", "Explain", "List the parts of", "Write a note about", "What is")
NOUNS = [
    "harbour",
    "kettle",
    "garden",
    "market",
    "river",
    "letter",
    "bridge",
    "engine",
    "museum",
    "castle",
]


def pairs(count, seed=0):
    rng = random.Random(seed)
    for i in range(count):
        noun = rng.choice(NOUNS)
        asked = f"{rng.choice(VERBS)} a {noun} of kind {i}"
        said = (
            f"The {noun} is known for its {rng.choice(NOUNS)} and was built in {1500 + i}. "
            f"It has a {rng.choice(NOUNS)}, which is why many people visit it."
        )
        yield asked, said


def test_swapped_rows_are_found_and_no_others(rows):
    asked, said = (list(side) for side in zip(*pairs(120), strict=True))
    for i in (3, 50, 99):
        asked[i], said[i] = said[i], asked[i]
    found = wrong_roles(Corpus(rows(asked, said)))
    assert {place for one in found for place in one.rows} == {
        f"rows.jsonl:{i + 1}" for i in (3, 50, 99)
    }
    assert found[0].severity == "error"


def test_nothing_is_said_without_swapped_rows_or_with_few_rows(rows):
    asked, said = zip(*pairs(120), strict=True)
    assert wrong_roles(Corpus(rows(asked, said))) == []
    assert wrong_roles(Corpus(rows(said[:20], asked[:20]))) == []
    assert wrong_roles(Corpus([])) == []


def test_small_talk_cannot_be_told_apart(rows):
    rng = random.Random(1)
    asked, said = ([" ".join(rng.choices(NOUNS, k=6)) for _ in range(100)] for _ in range(2))
    assert not np.any(swap_odds(asked, said))


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Why is it so?", "Assistant: Because it is."),
        ("### Instruction:\nWhy?", "Because it is."),
        ("Why is it so?", "Because it is.\n\nUser: And why that?\nAssistant: Well."),
        ("Why is it so?", "Because.\n### Instruction:\nName a fruit."),
    ],
)
def test_speaker_names(rows, prompt, answer):
    assert [one.severity for one in wrong_roles(Corpus(rows([prompt], [answer])))] == ["warning"]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Write a dialogue of a user and a bot", "User: Hi\nBot: Hello"),
        ("Name three jobs", "1. Human resources: hiring\n2. Sales"),
        ("Show an example", "Input: 3\nOutput: 9"),
        ("Name a headline", "## Response of the market\nIt fell."),
    ],
)
def test_no_speaker_names(rows, prompt, answer):
    assert wrong_roles(Corpus(rows([prompt], [answer]))) == []


def test_system_text_said_by_the_user(rows, row):
    text = "You are a helpful assistant. What is a verb?"
    assert [one.severity for one in wrong_roles(Corpus(rows([text], ["A word."])))] == ["info"]
    assert wrong_roles(Corpus([row("You are a pirate. Greet me.", "Ahoy!")])) == []
    assert wrong_roles(Corpus([row("What is a verb?", "A word.", system=text)])) == []
