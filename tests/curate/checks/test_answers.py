"""Empty prompts and answers, echoes, refusals."""

import pytest

from sft.curate.checks.answers import echo, empty, loops, refusals, refuses, repetition
from sft.curate.corpus import Corpus
from sft.data.rows.conversation import Conversation, Message, Origin


def severities(findings):
    return [one.severity for one in findings]


@pytest.mark.parametrize("blank", ["", "  \n", "\t"])
def test_blank_text_is_an_error(rows, blank):
    assert severities(empty(Corpus(rows(["Why?"], [blank])))) == ["error"] * 1
    assert severities(empty(Corpus(rows([blank], ["Because."])))) == ["error"]


@pytest.mark.parametrize("text", ["N/A", "nan", "null", "TODO", "...", "<noinput>", "[no output]"])
def test_what_stands_for_nothing(rows, text):
    assert severities(empty(Corpus(rows(["Why?"], [text])))) == ["warning"]


@pytest.mark.parametrize(
    "text", ["No.", "None", "0", "Nan is bread.", "+", "}", "Blank verse", "A"]
)
def test_short_answers_are_not_nothing(rows, text):
    assert empty(Corpus(rows(["Why?"], [text]))) == []


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("Name a fruit.\n\n< noinput >", 1),
        ("Write to {{ customer }} now", 1),
        ("Answer: {question}", 1),
        ("Greet [insert name] kindly", 1),
        ("Sort {blue, green}", 0),
        ("What does `{{ x }}` do?\n```jinja\n{{ name }}\n```", 0),
        ("Is f[i] an array?", 0),
    ],
)
def test_places_that_were_never_filled(rows, prompt, found):
    assert len(empty(Corpus(rows([prompt], ["Well."])))) == found


def test_a_tool_call_needs_no_text():
    call = Message("assistant", "", ({"name": "f"},), 1.0)
    row = Conversation((Message("user", "Do it"), call), Origin("tools.jsonl", 1))
    assert empty(Corpus([row])) == []


@pytest.mark.parametrize(
    ("prompt", "answer", "found"),
    [
        ("What is the tallest tree of all?", "What is the tallest tree of all? A sequoia.", 1),
        ("What is the tallest tree of all?", "what is the tallest tree of all", 1),
        ("What is the tallest tree of all?", "The tallest tree of all is a sequoia.", 0),
        ("Correct: he go to a school", "He goes to a school", 0),
        ("Hello there", "Hello there", 0),  # a greeting
    ],
)
def test_echo(rows, prompt, answer, found):
    assert len(echo(Corpus(rows([prompt], [answer])))) == found


@pytest.mark.parametrize(
    "answer",
    [
        "A key: " + "0" * 300,
        "It is known that " + "and so on " * 8,
        "Go on. " + "We went home and we slept until the next day came. " * 5,
        "no " * 40,
    ],
)
def test_loops(rows, answer):
    assert loops(answer.strip())
    assert len(repetition(Corpus(rows(["Why?"], [answer])))) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "bla bla bla",
        "-" * 300,
        "0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1",
        "La la la la, la la la, sing the old song of the sea and of the land with me",
        "I like tea. I like milk. I like rain. I like snow. I like sleep. I like work.",
        "",
    ],
)
def test_no_loops(rows, answer):
    assert repetition(Corpus(rows(["Why?"], [answer]))) == []


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't assist with that.",
        "I\u2019m sorry, but as an AI, I don\u2019t have the capability to book flights.",
        "I cannot provide this information.",
        "As an AI language model, I do not have personal preferences, but many like Rome.",
        "I am unable to generate images.",
        "I'm sorry, I cannot retrieve that information without a connection.",
        "Unfortunately, I cannot determine the angle given only two sides.",
    ],
)
def test_refusals(answer):
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I'm unable to come into work today because of a migraine.",
        "Dear Ann, I am sorry that I missed your party.",
        "You cannot access the attic without a ladder.",
        "The model cannot answer all questions.",
        "I can help you with that. " * 20 + "I cannot provide this.",  # not where answers refuse
    ],
)
def test_no_refusals(answer):
    assert not refuses(answer)


def test_few_refusals_are_mentioned_and_many_warned_of(rows):
    fine = [f"It is number {i}." for i in range(300)]
    refusal = "I'm sorry, but I cannot help with that request."
    prompts = [f"Which is {i}?" for i in range(300)]
    assert severities(refusals(Corpus(rows(prompts, [*fine[:-1], refusal])))) == ["info"]
    found = refusals(Corpus(rows(prompts, [*fine[:-9], *[refusal] * 9])))
    assert [(one.severity, one.count) for one in found] == [("warning", 9)]


def test_speaking_as_an_ai_is_told_apart_from_refusing(rows):
    answers = ["As an AI assistant, I would greet them first.", "I cannot answer this question."]
    found = refusals(Corpus(rows(["How would you do it?", "Why?"], answers)))
    assert [one.rows for one in found] == [("rows.jsonl:2",), ("rows.jsonl:1",)]
