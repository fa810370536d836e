"""Broken characters and template markers."""

import pytest

from sft.curate.checks.encoding import encoding, special_text
from sft.curate.corpus import Corpus


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
