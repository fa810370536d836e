"""Answers that stop in mid-sentence, and answers that only look like it."""

import pytest

from sft.curate.checks.cut_answers import cut_answers, is_cut
from sft.curate.corpus import Corpus

CUT = [
    "Water boils sooner on a mountain. There the air presses less on",
    "Its memory serves as a reminder of the importance of",
    "The main reasons are cost, speed,",
    "Then we reverse the links. We begin at the end and go on until all of them point back",
    "1. Rest: sleep for eight hours each night.\n2. Food: eat greens.\n3. Sport: walk each",
    "First paragraph of the answer ends here.\n\nIn summary, plants give us",
    "It does this in a loop:\n```python\nfor i in range(3):\n    print(i)",
    "<!DOCTYPE html>\n<html>\n<p>A book",
    "The area is (base x height) / 2 and so we get (8 x 11) /",
    "They live in Canada, Belgium and Haiti (specifically in the",
    "| name | city |\n|---|---|\n| Ann | Rome |\n| Bo | Oslo |\n| John",
    "Das Wasser kocht auf dem Berg früher, weil die Luft dort weniger auf das",
]
WHOLE = [
    "Positive",
    "The sum is 10",
    "First 48/2=24.\nThen 48+24=72\n#### 72",
    "1. Apple\n2. Banana\n3. Cherry and other red fruit",
    "- The Cat in the Hat\n- My Struggle\n- The Wind in the Willows",
    "```python\nprint(3)\n```",
    "Roses are red\nViolets are blue\nSugar is sweet\nAnd so are you",
    "Thank you for your time and for your patience.\n\nBest regards,\nJohn Smith",
    '"The best way to predict the future is to make it." - Alan Kay',
    "Adopt a puppy and make your days brighter. It is worth it! #PuppyLove",
    "See https://example.com/what-is-the-future-of-work",
    "SELECT name FROM users WHERE id",
    "x = 3",
    "def f(x): return x",
    "The Wind in the Willows and Other Stories of the River Bank",
    "水在山上更快沸腾。",
    "Invitation to be a guest of our workshop on modern painting",
    "He asked: is this all there is?",
    "",
]


@pytest.mark.parametrize("answer", CUT)
def test_cut(answer):
    assert is_cut(answer)


@pytest.mark.parametrize("answer", WHOLE)
def test_whole(answer):
    assert not is_cut(answer)


def test_prose_without_marks_is_cut_only_where_others_have_them(rows):
    bare = "we walked along the river until it was dark and nobody was there any longer"
    marked = [f"{bare} on day {i} of that week, as far as we know." for i in range(20)]
    prompts = [f"Tell {i}" for i in range(21)]
    assert [one.rows for one in cut_answers(Corpus(rows(prompts, [*marked, bare])))] == [
        ("rows.jsonl:21",)
    ]
    assert cut_answers(Corpus(rows(prompts, [text.rstrip(".") for text in [*marked, bare]]))) == []


def test_message_shows_the_end(rows):
    (found,) = cut_answers(Corpus(rows(["Why?"], [CUT[0]])))
    assert 'presses less on"' in found.message
    assert "--drop cut_answers" in found.fix
