"""Broken characters, template markers, languages, lengths."""

import pytest

from sft.curate.checks.written import encoding, languages, lengths_text, special_text
from sft.curate.corpus import Corpus

ENGLISH = (
    "What is the best way to cook rice for two of my friends, and how long should I wait for it?"
)
GERMAN = (
    "Der Reis ist nach zwölf Minuten gar, und die Pfanne muss nicht mit einem Deckel zu sein, "
    "das ist es."
)


def warned(check, rows, text):
    return [(one.check, one.severity) for one in check(Corpus(rows(["Why so?"], [text])))]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("The caf\u00c3\u00a9 is open", "decoded"),
        ("It\u00e2\u20ac\u2122s fine", "decoded"),
        ("Smile \u00f0\u0178\u02dc\u20ac", "decoded"),
        ("A lost \ufffd letter", "FFFD"),
        ("A bell \x07 rings", "control"),
        ("Tom &amp; Ann", "entities"),
        ("Turned \u202e around", "direction"),
        ("One\\n\\nTwo\\nThree", "backslash"),
    ],
)
def test_broken_text_is_warned_of(rows, text, what):
    (found,) = encoding(Corpus(rows(["Why so?"], [text])))
    assert (found.severity, what in found.message) == ("warning", True)
    assert found.message.isprintable()


@pytest.mark.parametrize(
    "text", ["Hidden \u200b space", "Ame\u0301lie sings", "\ufeffHello", "\u0410 dog"]
)
def test_invisible_and_decomposed_characters_are_mentioned(rows, text):
    assert warned(encoding, rows, text) == [("encoding", "info")]


@pytest.mark.parametrize(
    "text",
    [
        "Café, naïve, Ångström, “quotes” — and … emoji 😀 👩‍👧",
        "NÃO, CAFÉ” and SÃO PAULO",
        "Das ist schön. Привет, мир. Я ем. 日本語です。 שלום",
        "Use &amp; in HTML for <b>and</b>",
        'print("a\\n\\nb\\n")',
        "Tab\tand\r\nline",
        "می‌خواهم",  # a joiner that the script needs
    ],
)
def test_sound_text(rows, text):
    assert encoding(Corpus(rows(["Why so?"], [text]))) == []


@pytest.mark.parametrize(
    "text",
    ["Fine.<|im_end|>", "[INST] Why? [/INST]", "Done.</s>", "<start_of_turn>user", "<s> Hello"],
)
def test_template_markers(rows, text):
    assert warned(special_text, rows, text) == [("special_text", "warning")]


@pytest.mark.parametrize(
    "text", ["a <b> c | d", "<s>old</s> new", "x <| f |> y", "a[INSTANCE]", "<p>"]
)
def test_no_template_markers(rows, text):
    assert special_text(Corpus(rows(["Why so?"], [text]))) == []


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


def test_lengths_far_from_the_others(rows):
    texts = ["word " * (20 + i % 7) for i in range(100)]
    assert lengths_text(Corpus(rows(texts, texts))) == []
    texts[40] = "word " * 4000
    (found,) = lengths_text(Corpus(rows(["Say it please"] * 100, texts)))
    assert (found.severity, found.rows) == ("info", ("rows.jsonl:41",))
    assert lengths_text(Corpus(rows(["a"], ["b"]))) == []
