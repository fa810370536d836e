"""Boilerplate: runs of three tokens that three answers in ten share."""

import pytest

from sft.data.rows.conversation import Origin
from sft.data.tokenize import continuation
from sft.probes.surface import boilerplate, surface_mask

OPENER = [5, 6, 7, 8]


def answers(*rows):
    return [
        continuation(f"rows:{i}", Origin("rows", i), [1, 2], row, 0) for i, row in enumerate(rows)
    ]


def own(i, length=6):
    """An answer that shares no run with any other."""
    return [100 * (i + 1) + j for j in range(length)]


def shared_by(count, total=10):
    return answers(*[(OPENER if i < count else []) + own(i) for i in range(total)])


@pytest.mark.parametrize(("count", "known"), [(2, False), (3, True), (10, True)])
def test_three_answers_in_ten_are_enough(count, known):
    train = shared_by(count)
    mask = surface_mask(train[0], boilerplate(train))
    assert mask.tolist() == [known] * 4 + [False] * 6


def test_two_answers_at_least():
    assert boilerplate(answers(own(0))) == frozenset()
    assert surface_mask(*answers(own(0)), boilerplate(answers(own(0)))).tolist() == [False] * 6
    assert boilerplate([]) == frozenset()


def test_the_start_of_the_answer_counts():
    """The opener within an answer is known from its third token on: what precedes it is other."""
    known = boilerplate(shared_by(5))
    (inside,) = answers([91, 92, *OPENER, 93])
    assert surface_mask(inside, known).tolist() == [False] * 4 + [True] * 2 + [False]


def test_saying_it_often_in_one_answer_is_not_sharing_it():
    train = answers(OPENER * 9, *[own(i) for i in range(9)])
    assert not surface_mask(train[0], boilerplate(train)).any()


def test_prompts_are_no_boilerplate():
    train = answers(*[own(i) for i in range(10)])  # all of them after the prompt 1 2
    assert boilerplate(train) == frozenset()


def test_a_held_out_answer_is_marked_by_what_training_says():
    known = boilerplate(shared_by(4))
    (held,) = answers([*OPENER, 900, 901])
    mask = surface_mask(held, known)
    assert mask.tolist() == [True] * 4 + [False] * 2
    assert len(mask) == held.num_trained
