"""What is accepted as the same request or the same answer, and why the rest is not."""

import json

import pytest

from sft.augment.ask import (
    Reply,
    ask_own_answer,
    ask_paraphrase,
    take_own_answer,
    take_paraphrase,
)
from sft.augment.faithful import answer_problem, paraphrase_problem, rouge_l

ASKED = 'How many of the 12 "blue whales" live near {place}, on average, in cold water?'


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ('On average, what number of the 12 "blue whales" lives near {place} in cold water?', ""),
        ("", "empty"),
        (ASKED.upper(), "the same words"),
        (f"Here is the message: {ASKED}", "talks about the rewriting"),
        ('How many "blue whales" live near {place} in cold water?', "loses a number (12)"),
        (
            'How many of the 12 "blue whales" live near {place} in 2024, in cold water?',
            "adds a number (2024)",
        ),
        ("How many of the 12 blue whales live near {place} in cold water?", "loses a quoted"),
        ('How many of the 12 "blue whales" live near Oslo in cold water?', "loses a quoted"),
        (
            'Tell me the average of the 12 "blue whales" near {place} in the cold water.',
            "no question any more",
        ),
        (f"{ASKED} " + "Tell me more about the seas. " * 9, "more than 3 times as long"),
        ('12 "blue whales" {place}?', "less than 0.4 times as long"),
        (
            'Do the 12 "blue whales" near {place} number roughly seventeen thousand individuals?',
            "answers instead of asking",
        ),
    ],
)
def test_paraphrases(new, reason):
    answer = "Roughly seventeen thousand individuals."
    assert paraphrase_problem(ASKED, new, answer).startswith(reason) or not reason
    assert bool(paraphrase_problem(ASKED, new, answer)) == bool(reason)


def test_a_request_may_be_worded_without_its_answer():
    asked, answer = "Name the capital city of France.", "Paris"
    assert paraphrase_problem(asked, "Which French city is the capital?", answer) == ""
    assert paraphrase_problem(asked, "The capital city is Paris.", answer) == (
        "no request any more"
    )
    long = "The capital city of France is Paris, on the river Seine."
    said = paraphrase_problem("Which is the capital of France?", "Is the capital Paris?", long)
    assert said == "answers instead of asking"
    assert "no longer word" in paraphrase_problem(
        asked, "Tell me something about it please", answer
    )


@pytest.mark.parametrize(
    ("reference", "new", "reason"),
    [
        ("billing", "Billing.", ""),
        ("billing", "The team is billing", ""),
        ("billing", "delivery", "another label"),
        ("bill", "billing", "another label"),
        ("no", "No, because " + "many words follow here " * 5, "another label"),
        ("billing", "billing", "the same answer"),
        ("It is 42 apples.", "There are 42 apples in it.", "another label"),
        ("It costs 42.", "It costs 43.", "other numbers than the reference"),
        ("The sun is a star in the middle of our solar system.",
         "A star in the middle of our solar system is the sun.", ""),
        ("The sun is a star in the middle of our solar system.",
         "Bread needs flour, water and time to rise well.", "ROUGE-L"),
        ("x", " ", "empty"),
    ],
)  # fmt: skip
def test_answers(reference, new, reason):
    found = answer_problem(reference, new)
    assert found.startswith(reason) and bool(found) == bool(reason)


def test_json_answers():
    reference = {"team": "billing", "urgent": True, "text": "Asks about a refund for the kettle"}
    text = json.dumps(reference)

    def problem(**changes):
        return answer_problem(text, json.dumps(reference | changes))

    assert problem(text="Asks for a refund for the kettle") == ""
    assert problem(text="Something else entirely, with other words") == (
        "another value in the JSON object"
    )
    assert problem(team="delivery") == problem(urgent=1) == "another value in the JSON object"
    assert problem(more=1) == "other JSON keys"
    assert answer_problem(text, "billing, urgent") == "no JSON object"


def test_rouge_l():
    """Of the paper's examples (Lin 2004, section 3.1): 3 of 4 words in order."""
    assert rouge_l("police kill the gunman", "police killed the gunman") == 0.75
    assert rouge_l("the gunman kill police", "police killed the gunman") == 0.5
    assert rouge_l("", "a") == 0.0 and rouge_l("a b c", "a b c") == 1.0
    assert rouge_l("a b", "a x b y") == pytest.approx(2 * 2 / 6)


@pytest.mark.parametrize(
    ("new", "kept"),
    [
        ("Describe winter seas in one sentence.", True),
        ("I would like a sentence about the winter sea.", True),
        ("Can you write something about the sea in winter?", True),
        ("The winter sea is a mysterious place of treasures.", False),
    ],
)
def test_an_order_is_not_carried_out(new, kept):
    """The last is what a small model wrote when it was asked for other words."""
    found = paraphrase_problem("Write a sentence about the sea in winter.", new, "It was cold.")
    assert found == ("" if kept else "no request any more")


def test_paraphrases_are_unwrapped(row):
    talk = row("Name a bird that can swim well.", "A penguin")
    asked = ask_paraphrase(talk, 1)
    assert "Name a bird that can swim well." in asked.messages[0][1]
    assert asked.max_tokens == 64 + round(2 * 31 / 4)
    assert ask_paraphrase(talk, 0) != asked
    for text in (
        "Give a bird that swims well.",
        '"Give a bird that swims well."',
        "<message>\nGive a bird that swims well.\n</message>",
        "<think>The user wants it rewritten.</think>\n\nGive a bird that swims well.",
    ):
        change = take_paraphrase(talk, Reply(text))
        assert change.messages[0].content == "Give a bird that swims well."
    assert take_paraphrase(talk, Reply(problem="cut off")).reason == "cut off"


def test_own_answers(row):
    talk = row("How far is it?", "It is 5 miles from here to the old harbour.", system="Be kind.")
    asked = ask_own_answer(talk)
    assert [role for role, _ in asked.messages] == ["system", "user"]
    assert "How far is it?" in asked.messages[1][1] and "5 miles" in asked.messages[1][1]
    reply = Reply("From here it is 5 miles to the old harbour.")
    change = take_own_answer(talk, reply)
    assert [m.content for m in change.messages] == ["Be kind.", "How far is it?", reply.text]
    assert change.messages[-1].weight == 1.0
    assert take_own_answer(talk, Reply("6 miles")).reason.startswith("other numbers")


def test_several_turns_are_not_reworded(row):
    from dataclasses import replace

    talk = row("one")
    talk = replace(talk, messages=talk.messages * 2)
    assert ask_paraphrase(talk, 0) == "more than one user turn"
    assert ask_own_answer(talk) == "not one user turn and one answer"
