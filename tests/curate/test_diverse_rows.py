"""The most different rows: of all topics, and the same whatever the order of the rows."""

import random

import numpy as np
import pytest

from sft.curate import diverse_rows
from sft.curate.diverse_rows import most_different
from sft.curate.remedies import select_diverse
from sft.curate.vectors import hashed_terms


def test_diverse_rows_are_of_all_topics(rows, topic):
    common = topic("food", 0).prompts(90)
    rare = [prompt for i in range(5) for prompt in topic(f"rare{i}x", i + 1).prompts(2)]
    before = rows([*common, *rare])
    kept, dropped = select_diverse(before, 15, seed=0)
    assert sorted([*(r.origin for r in kept), *(o for o, _ in dropped)], key=str) == sorted(
        (row.origin for row in before), key=str
    )
    found = " ".join(row.messages[0].content for row in kept)
    assert len(kept) == 15 and all(f"rare{i}x" in found for i in range(5))
    assert select_diverse(before, 15, seed=0)[0] == kept
    assert {r.origin for r in select_diverse(before[::-1], 15, 0)[0]} == {r.origin for r in kept}
    assert select_diverse(before, 15, seed=1)[0] != kept
    assert select_diverse(before, 100, seed=0) == (before, [])


def test_copies_are_not_diverse(rows, topic):
    prompts = topic("food", 0).prompts(10)
    kept, _ = select_diverse(rows(prompts * 5), 10, seed=0)
    assert len({row.messages[0].content for row in kept}) == 10


def test_many_rows_are_chosen_from_blocks_on_the_projection(topic, monkeypatch):
    """Each rare topic is still found, and the choice is nearly as far apart."""
    prompts = topic("food", 0).prompts(90)
    prompts += [prompt for i in range(5) for prompt in topic(f"rare{i}x", i + 1).prompts(2)]
    random.Random(0).shuffle(prompts)
    terms, rows = hashed_terms(prompts), np.arange(100)
    monkeypatch.setattr(diverse_rows, "EXACT_ROWS", 10)
    monkeypatch.setattr(diverse_rows, "BLOCK_ROWS", 40)
    chosen = most_different(terms, rows, rows, 15, seed=0)
    found = " ".join(prompts[i] for i in chosen)
    assert len(set(chosen.tolist())) == 15
    assert sum(f"rare{i}x" in found for i in range(5)) >= 4


@pytest.mark.parametrize("texts", [["", "!!", "?"], ["one", "", "two words"]])
def test_prompts_without_words(texts):
    assert len(most_different(hashed_terms(texts), np.arange(3), np.arange(3), 2, seed=0)) == 2
