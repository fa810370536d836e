"""What the rows ask for, and how alike they are."""

import pytest

from sft.curate.checks.diversity import diversity, first_word
from sft.curate.corpus import Corpus


def test_topics_have_the_words_that_mark_them(rows, topic):
    cooking, sailing = topic("cook", 1), topic("sail", 2)
    found = rows(cooking.prompts(90) + sailing.prompts(60))
    facts, topics, findings = diversity(Corpus(found))
    assert sum(one["rows"] for one in topics) == 150
    assert sum(one["share"] for one in topics) == pytest.approx(1)
    assert [one["rows"] for one in topics] == sorted((one["rows"] for one in topics), reverse=True)
    for one in topics:
        if one["name"] != "mixed":
            lines = [int(place.split(":")[1]) for place in one["examples"]]
            assert len({line <= 90 for line in lines}) == 1
    assert facts["different rows"].startswith("150 of 150")
    assert findings == ()


def test_the_same_rows_give_the_same(rows, topic):
    made = rows(topic("cook", 1).prompts(60))
    assert diversity(Corpus(made)) == diversity(Corpus(made))


def test_copies_are_warned_of(rows, topic):
    prompts = topic("cook", 1).prompts(12)
    facts, _, findings = diversity(Corpus(rows(prompts * 5)))
    assert facts["different rows"].startswith("12 of 60")
    assert [(one.severity, one.count) for one in findings] == [("warning", 48)]


def test_first_words_without_politeness():
    assert first_word("Could you please describe a tree?") == "describe"
    assert first_word("Write a poem") == "write"
    assert first_word("12 + 4") == ""
    assert first_word("") == ""


def test_few_rows_have_no_topics(rows):
    facts, topics, findings = diversity(Corpus(rows(["Describe a tree", "Name a fruit"])))
    assert topics == findings == ()
    assert facts["prompts begin with"] == "describe 50 %, name 50 %"
    assert diversity(Corpus([])) == ({}, (), ())


def test_prompts_without_words(rows):
    assert diversity(Corpus(rows(["???"] * 30)))[1] == ()
