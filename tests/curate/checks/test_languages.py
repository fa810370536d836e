"""Answers in another language than their prompt, and a mix of languages."""

import pytest

from sft.curate.checks.languages import languages
from sft.curate.corpus import Corpus

ENGLISH = (
    "What is the best way to cook rice for two of my friends, and how long should I wait for it?"
)
GERMAN = (
    "Der Reis ist nach zwölf Minuten gar, und die Pfanne muss nicht mit einem Deckel zu sein, "
    "das ist es."
)


def test_an_answer_in_another_language(rows):
    found = languages(Corpus(rows([ENGLISH] * 30, [*[ENGLISH] * 29, GERMAN])))
    assert (found[0].severity, found[0].rows) == ("warning", ("rows.jsonl:30",))
    assert "asked in English and answered in German" in found[0].message


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        (f"Translate this to German: {ENGLISH}", GERMAN),
        (ENGLISH, ENGLISH),
        (GERMAN, GERMAN),
        ("Wie?", ENGLISH),  # too short to tell
        (ENGLISH, "He makes 20*40=$<<20*40=800>>800 per week and 3 per day, so 5 per hour " * 2),
        (ENGLISH, "def f(x):\n    return x"),
    ],
)
def test_no_answer_in_another_language(rows, prompt, answer):
    assert [
        one for one in languages(Corpus(rows([prompt], [answer]))) if one.severity != "info"
    ] == []


def test_a_mix_of_languages_is_mentioned(rows):
    found = languages(Corpus(rows([*[ENGLISH] * 9, GERMAN], [*[ENGLISH] * 9, GERMAN])))
    assert [(one.severity, one.count) for one in found] == [("info", 1)]
    assert "English 9, German 1" in found[0].message
