"""The order of examples: permutations, weights of sources, and resuming."""

from collections import Counter

import numpy as np
import pytest

from sft.data.batches import Batches
from sft.data.rows.conversation import Origin
from sft.data.tokenize import Example
from sft.errors import ConfigError


def examples(*sources):
    """One example for each source number, with its index as name."""
    none = np.zeros(1, dtype=np.int64)
    return [
        Example(str(i), Origin("rows.jsonl", i), source, none, none, none.astype(np.float32), 0)
        for i, source in enumerate(sources)
    ]


def make(sources, per_step=1, weights=(1.0,), seed=0):
    return Batches(examples(*sources), per_step, weights, seed)


def epoch(batches):
    """The indices of one epoch, taken one by one."""
    return [int(batches.next()[0].id) for _ in range(batches.epoch_size)]


def test_each_epoch_is_another_permutation():
    batches = make([0] * 50)
    epochs = [epoch(batches) for _ in range(4)]
    assert [sorted(e) for e in epochs] == [list(range(50))] * 4
    assert len({tuple(e) for e in epochs}) == 4
    assert batches.epoch == 4.0


def test_the_order_is_a_function_of_the_seed():
    orders = [tuple(epoch(make([0] * 50, seed=seed))) for seed in (0, 1, 2, 0)]
    assert len(set(orders)) == 3 and orders[0] == orders[3]


def test_the_order_does_not_depend_on_the_size_of_a_step():
    one, seven = make([0] * 10), make([0] * 10, per_step=7)
    singles = [one.next()[0].id for _ in range(70)]
    assert [example.id for _ in range(10) for example in seven.next()] == singles


def test_steps_cross_the_end_of_an_epoch():
    batches = make([0] * 10, per_step=4)
    steps = [batches.next() for _ in range(5)]
    assert [len(step) for step in steps] == [4] * 5
    taken = [int(example.id) for step in steps for example in step]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert batches.epoch == 2.0


def test_a_step_larger_than_an_epoch():
    batches = make([0] * 3, per_step=8)
    assert sorted(Counter(example.id for example in batches.next()).values()) == [2, 3, 3]
    assert batches.epoch == pytest.approx(8 / 3)


def test_weights_2_and_a_half():
    batches = make([0] * 10 + [1] * 20, weights=(2.0, 0.5))
    assert batches.epoch_size == 30
    halves = []
    for _ in range(12):
        counts = Counter(epoch(batches))
        assert all(counts[i] == 2 for i in range(10))
        halves.append({i for i in range(10, 30) if counts[i]})
        assert len(halves[-1]) == 10 and all(counts[i] == 1 for i in halves[-1])
    assert len({frozenset(half) for half in halves}) > 1
    assert set.union(*halves) == set(range(10, 30))


def test_a_weight_of_one_and_a_half():
    batches = make([0] * 20, weights=(1.5,))
    counts = Counter(epoch(batches))
    assert sorted(counts.values()) == [1] * 10 + [2] * 10


def test_fractional_weights_side_by_side_are_both_kept():
    """`0.5 is every other` holds next to a source of 0.9, in every epoch."""
    sources = [0] * 100 + [1] * 100 + [2] * 10
    batches = make(sources, weights=(0.5, 0.9, 1.3))
    assert batches.epoch_size == 50 + 90 + 13
    seen = Counter()
    for _ in range(40):
        indices = epoch(batches)
        per_source = Counter(sources[i] for i in indices)
        assert per_source == {0: 50, 1: 90, 2: 13}
        seen.update(indices)
    assert all(5 < seen[i] < 35 for i in range(100))


def test_small_sources_of_fractional_weight_all_get_their_turn():
    batches = make([0, 1, 2], weights=(0.5, 0.25, 0.25))
    assert batches.epoch_size == 1
    seen = Counter(i for _ in range(400) for i in epoch(batches))
    assert 140 < seen[0] < 260 and 60 < seen[1] < 140 and 60 < seen[2] < 140


@pytest.mark.parametrize("weights", [(0.3,), (0.01,), (0.7,), (1.999,), (3.0,), (0.001,)])
@pytest.mark.parametrize("num", [1, 2, 7, 30])
def test_copies_differ_from_the_weight_by_less_than_one(weights, num):
    batches = make([0] * num, weights=weights)
    assert batches.epoch_size == max(1, round(weights[0] * num))
    for _ in range(5):
        counts = Counter(epoch(batches))
        assert all(abs(counts[i] - weights[0]) < 1 for i in range(num))


def test_resuming_gives_the_same_next_steps():
    def fresh():
        return make([0] * 13 + [1] * 10, per_step=5, weights=(1.0, 0.5), seed=3)

    batches = fresh()
    for _ in range(7):
        batches.next()
    state = batches.state_dict()
    expected = [[example.id for example in batches.next()] for _ in range(20)]
    resumed = fresh()
    resumed.load_state_dict(state)
    assert [[example.id for example in resumed.next()] for _ in range(20)] == expected
    assert (resumed.epoch, resumed.state_dict()) == (batches.epoch, batches.state_dict())
    assert state == {"taken": 35, "epoch_size": 18}


def test_resuming_on_other_data():
    with pytest.raises(ConfigError, match="number of training examples changed"):
        make([0] * 9).load_state_dict(make([0] * 10).state_dict())


@pytest.mark.parametrize(
    ("epochs", "per_step", "max_steps", "expected"),
    [
        *((1.0, 4, None, 3), (2.0, 4, None, 5), (0.5, 5, None, 1), (0.1, 8, None, 1)),
        *((3.0, 10, None, 3), (1.0, 4, 7, 7), (5.0, 1, 2, 2)),
    ],
)
def test_num_steps(epochs, per_step, max_steps, expected):
    assert make([0] * 10, per_step=per_step).num_steps(epochs, max_steps) == expected
