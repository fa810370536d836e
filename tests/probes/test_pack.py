"""Which rows are measured: as many as the budget allows, the same ones whatever their order."""

import random

import pytest

from sft.data.rows.conversation import Origin
from sft.data.tokenize import continuation
from sft.probes.pack import (
    FEWEST,
    FEWEST_TRAIN,
    FEWEST_VAL,
    MOST,
    MOST_USAGE,
    SCORING_COST,
    Probe,
    boilerplate,
    choose,
    choose_sizes,
    surface_mask,
    val_probe,
)
from sft.probes.retention import SAMPLE_TOKENS

LENGTH = 40
EVALS = 6


def rows(num, length=LENGTH, name="rows"):
    return [
        continuation(f"{name}:{i}", Origin(name, i), [1] * (length - 4), [2, 3, 4, i], 0)
        for i in range(num)
    ]


def sizes(num_trained, *, train=500, val=100, usage=200, drift=0, budget=0.1):
    return choose_sizes(
        rows(train),
        rows(val),
        rows(usage),
        [LENGTH] * drift,
        trained_tokens=num_trained,
        budget=budget,
        num_evals=EVALS,
    )


def cost(chosen, num_trained):
    """What all evaluations take, as a share of training."""
    scored = chosen.val + chosen.train_probe + chosen.usage + chosen.drift
    tokens = LENGTH * scored + SAMPLE_TOKENS * chosen.retain
    return (EVALS + 1) * tokens / (SCORING_COST * num_trained)


@pytest.mark.parametrize("num_trained", [120_000, 200_000, 400_000, 5_000_000])
@pytest.mark.parametrize("drift", [0, 50, 300])
def test_evals_fit_into_the_budget_where_it_is_large_enough(num_trained, drift):
    chosen = sizes(num_trained, drift=drift, usage=200 if drift < 300 else 0)
    assert cost(chosen, num_trained) <= 0.1 + (FEWEST * LENGTH * (EVALS + 1)) / (3 * num_trained)
    assert chosen.val >= FEWEST_VAL and chosen.train_probe >= FEWEST_TRAIN
    assert FEWEST <= chosen.retain <= MOST and chosen.train_probe <= MOST
    assert chosen.usage <= MOST_USAGE and chosen.drift <= MOST_USAGE


def test_a_long_run_measures_all_it_may():
    chosen = sizes(1e9, drift=500)
    assert (chosen.val, chosen.train_probe) == (100, MOST)
    assert (chosen.usage, chosen.drift, chosen.retain) == (MOST_USAGE, MOST_USAGE, MOST)


def test_a_very_short_run_measures_the_least_that_can_be_judged():
    chosen = sizes(100.0, drift=500)
    assert (chosen.val, chosen.train_probe) == (FEWEST_VAL, FEWEST_TRAIN)
    assert (chosen.usage, chosen.drift, chosen.retain) == (FEWEST, FEWEST, FEWEST)


def test_no_more_than_there_are():
    chosen = sizes(1e9, train=5, val=7, usage=3, drift=2)
    assert (chosen.val, chosen.train_probe, chosen.usage, chosen.drift) == (7, 5, 3, 2)
    assert sizes(1e9, val=0, usage=0).val == sizes(1e9, val=0, usage=0).usage == 0


def test_prompts_without_answers_need_no_others_beside_them():
    """Few rows with answers, or none at all, do not make the probe without answers small."""
    assert sizes(1e9, usage=1, drift=40).drift == 40
    assert sizes(1e9, val=0, usage=0, drift=40).drift == 40


def test_a_larger_budget_measures_no_less():
    chosen = [sizes(150_000, budget=budget, drift=90) for budget in (0.01, 0.05, 0.1, 0.3)]
    for name in ("val", "train_probe", "usage", "drift", "retain"):
        found = [getattr(each, name) for each in chosen]
        assert found == sorted(found), name
    assert cost(chosen[0], 150_000) < cost(chosen[-1], 150_000)


def test_which_rows_are_chosen_does_not_depend_on_their_order():
    all_rows = rows(50)
    mixed = random.Random(0).sample(all_rows, 50)
    chosen = choose(all_rows, 12, "val")
    assert [e.id for e in chosen] == [e.id for e in all_rows if e in chosen]  # in their order
    assert {e.id for e in choose(mixed, 12, "val")} == {e.id for e in chosen}
    # More of them are the same ones and others, so a probe that grows stays comparable.
    assert {e.id for e in chosen} < {e.id for e in choose(all_rows, 20, "val")}
    assert {e.id for e in choose(all_rows, 12, "samples")} != {e.id for e in chosen}


def test_rows_of_one_name_are_counted_once_each():
    assert len(choose([*rows(3), *rows(3)], 4, "val")) == 4
    assert len(choose(rows(3), 9, "val")) == 3 and choose([], 3, "val") == []


def test_the_probe_of_validation_marks_the_boilerplate_of_training():
    train = [
        continuation(f"t:{i}", Origin("t", i), [1, 2], [5, 6, 7, 100 + i], 0) for i in range(9)
    ]
    val = [continuation(f"v:{i}", Origin("v", i), [1], [5, 6, 7, 50 + i], 0) for i in range(4)]
    probe = val_probe(train, val, 3)
    assert (probe.name, len(probe.examples), probe.openings) == ("val", 3, True)
    assert set(probe.surface) == {example.id for example in probe.examples}
    for mask in probe.surface.values():
        assert mask.tolist() == [True, True, True, False]


def test_tokens_of_a_probe_are_those_a_eval_reads():
    assert Probe("val", rows(3)).num_tokens == 3 * LENGTH
    assert Probe("val", []).num_tokens == 0


# --- boilerplate: runs of three tokens that three answers in ten share ---

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
