"""Copies of rows: exact ones, and rows that say almost the same."""

from dataclasses import replace

import pytest

from sft.curate.checks.copies import duplicates, near_duplicates
from sft.curate.corpus import Corpus
from sft.data.rows.conversation import Conversation, Message, Origin

LONG = "Water boils at a lower temperature on a mountain because the air presses less on it there."


def lines(findings):
    return [int(place.split(":")[1]) for one in findings for place in one.rows]


def test_exact_copies_are_the_later_rows_whatever_their_case_and_spaces(rows):
    corpus = Corpus(
        rows(["Why so?", "Who?", "why  SO?", "Why so?"], [LONG, "I.", LONG, LONG + "\n"])
    )
    assert lines(duplicates(corpus)) == [3, 4]
    assert near_duplicates(corpus) == []
    assert "rows.jsonl:3 repeats rows.jsonl:1" in duplicates(corpus)[0].message


def test_rows_under_another_system_message_are_no_exact_copies(row):
    both = [row("Why so?", LONG, 1, system="Be kind."), row("Why so?", LONG, 2, system="Be brief.")]
    assert duplicates(Corpus(both)) == []


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Why does water boil sooner on a mountain", LONG.replace("lower", "smaller")),
        ("WHY DOES WATER BOIL SOONER ON A MOUNTAIN", LONG.replace(".", "!")),
        ("Why does water boil sooner on a mountain?", f"{LONG} I hope this helps."),
        ("Why does water boil sooner on a mountain?", LONG.replace("on it there", "there on it")),
        ("Why does water boil faster on a mountain?", LONG),
    ],
)
def test_near_duplicates(rows, prompt, answer):
    first = ("Why does water boil sooner on a mountain?", LONG)
    corpus = Corpus(rows([first[0], "What is a verb?", prompt], [first[1], "A word.", answer]))
    assert lines(near_duplicates(corpus)) == [3]


@pytest.mark.parametrize(
    ("prompts", "answers"),
    [
        (["Capital of France?", "Capital of Spain?"], ["Paris.", "Madrid."]),
        (["Is this nice: a rose", "Is this nice: a wasp"], ["Positive", "Positive"]),
        (["Name a colour you like very much", "Name a fruit you like"], ["Red, I like it", "Pear"]),
        (
            ["Why?", "Why?"],
            [LONG, "Because nobody asked for it, they left the old road as it was."],
        ),
        (["Same?", "Same?"], ["Yes.", "Yes."]),  # exact copies are not counted again
    ],
)
def test_no_near_duplicates(rows, prompts, answers):
    assert near_duplicates(Corpus(rows(prompts, answers))) == []


def test_augmented_rows_may_be_like_their_parents(rows):
    first, second = rows(["Why does water boil sooner there?"] * 2, [LONG, f"{LONG} Yes."])
    assert lines(near_duplicates(Corpus([first, second]))) == [2]
    assert near_duplicates(Corpus([first, replace(second, parent="f" * 64)])) == []


def test_rows_of_several_turns_are_compared_as_a_whole():
    def talk(line, *last):
        said = ("user", "Why so early?"), ("assistant", LONG), *last
        messages = tuple(
            Message(role, text, weight=float(role == "assistant")) for role, text in said
        )
        return Conversation(messages, Origin("talk.jsonl", line))

    long = (
        ("user", "And in a valley?"),
        ("assistant", "There the air presses more: it boils later."),
    )
    assert lines(near_duplicates(Corpus([talk(1), talk(2, *long)]))) == []
    assert lines(duplicates(Corpus([talk(1, *long), talk(2, *long)]))) == [2]


def test_nothing_to_compare():
    assert duplicates(Corpus([])) == near_duplicates(Corpus([])) == []
