"""One prompt and several answers."""

import pytest

from sft.curate.checks.conflicts import conflicts
from sft.curate.corpus import Corpus
from sft.data.rows.conversation import Conversation, Message, Origin

TREE = "A tree is a tall plant with a trunk of wood and many branches that carry its leaves."


def judged(rows, *answers, prompts=None):
    return [
        (one.severity, one.count)
        for one in conflicts(Corpus(rows(prompts or ["What is it?"] * len(answers), list(answers))))
    ]


@pytest.mark.parametrize(
    "answers",
    [
        ("Yes, it is.", "No, it is not."),
        ("Positive", "negative"),
        ("She has 5 apples.\n#### 5", "First she buys 3 and then 3.\n#### 6"),
        ("The book has 350 pages in all.", "The book has 354 pages in all."),
        (TREE, "Nobody knows why the old king had left his castle at night without a light."),
        ("Yes.", "Yes.", "No."),
    ],
)
def test_contradictions_are_warnings(rows, answers):
    assert judged(rows, *answers) == [("warning", len(answers))]


@pytest.mark.parametrize(
    "answers",
    [
        (TREE, TREE.replace("many", "some")),
        ("3 and 3 are 6.\n#### 6", "Twice three apples make that.\n#### 6"),
    ],
)
def test_small_differences_are_mentioned_only(rows, answers):
    assert judged(rows, *answers) == [("info", len(answers))]


def test_copies_and_other_prompts_are_no_conflicts(rows):
    assert judged(rows, "Yes.", "yes") == []
    assert judged(rows, "Yes.", "No.", prompts=["Is it 3?", "Is it 4?"]) == []
    assert judged(rows, "Yes.", "No.", prompts=["Is 3+1 even?", "Is 3-1 even?"]) == []
    assert conflicts(Corpus([])) == []


def test_what_comes_before_is_part_of_the_prompt(row):
    both = [row("Hi", "Hello!", 1, system="Be kind."), row("Hi", "Go away.", 2, system="Be rude.")]
    assert conflicts(Corpus(both)) == []
    tools = [
        Conversation(one.messages, one.origin, tools=({"name": name},))
        for one, name in zip([row("Buy it", "No.", 1), row("Buy it", "Yes.", 2)], "ab", strict=True)
    ]
    assert conflicts(Corpus(tools)) == []


def test_a_later_turn_conflicts_after_equal_turns_only():
    def talk(line, first, last):
        said = [("user", "Hi"), ("assistant", first), ("user", "Is it late?"), ("assistant", last)]
        messages = tuple(
            Message(role, text, weight=float(role == "assistant")) for role, text in said
        )
        return Conversation(messages, Origin("talk.jsonl", line))

    assert [
        one.count for one in conflicts(Corpus([talk(1, "Hey", "Yes"), talk(2, "Hey", "No")]))
    ] == [2]
    found = conflicts(Corpus([talk(1, "Hello there", "Yes"), talk(2, "Good day", "No")]))
    assert len(found) == 1  # the first answers differ; the second follow another talk
