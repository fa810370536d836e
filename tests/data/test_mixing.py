"""Shares of sources: weights, temperature, and what is told of them."""

import numpy as np
import pytest

from sft.config import SourceConfig
from sft.data.batches import Batches
from sft.data.mixing import by_source, source_names, source_weights, tempered
from sft.data.rows.conversation import Origin
from sft.data.tokenize import Example


def examples(*sizes):
    """So many examples of each source, of as many tokens as the number of the source and one."""
    made = []
    for source, size in enumerate(sizes):
        ids = np.zeros(source + 1, dtype=np.int64)
        for i in range(size):
            name = f"{source}:{i}"
            made.append(Example(name, Origin("x", i), source, ids, ids, ids.astype(np.float32), 0))
    return made


def shares_of(weights, sizes):
    mass = np.array(weights) * np.array(sizes)
    return mass / mass.sum()


def test_at_temperature_one_nothing_changes():
    weights = [0.1 + 0.2, 1 / 3, 2.0]
    assert tempered(weights, [10, 1000, 7], 1.0) == weights


def test_the_share_of_a_source_is_its_size_to_the_power_of_one_over_temperature():
    sizes = [100, 10_000]
    found = tempered([1, 1], sizes, 2.0)
    assert shares_of(found, sizes) == pytest.approx([10 / 110, 100 / 110])
    assert np.dot(found, sizes) == pytest.approx(10_100)  # an epoch is as long as it was
    assert shares_of(tempered([3, 1], sizes, 2.0), sizes) == pytest.approx([30 / 130, 100 / 130])
    assert shares_of(tempered([1, 1], sizes, 100.0), sizes) == pytest.approx([0.5, 0.5], abs=0.02)


def test_a_source_without_examples_has_no_share():
    assert tempered([1, 1], [0, 8], 2.0) == [1, pytest.approx(1.0)]


def test_what_is_told_is_what_is_seen():
    rows = examples(20, 60)
    sources = [SourceConfig(path="a/few.jsonl"), SourceConfig(path="org/many")]
    batches = Batches(rows, 10, source_weights(sources, rows, 2.0), seed=0)
    visits = 3 * batches.epoch_size
    told = batches.shares(sources, visits)
    seen = [e.source for _ in range(visits // 10) for e in batches.next()]
    assert [share.name for share in told] == ["few.jsonl", "many"]
    assert [(share.examples, share.tokens) for share in told] == [(20, 20), (60, 120)]
    for source, share in enumerate(told):
        assert seen.count(source) / visits == pytest.approx(share.share, abs=0.01)
        assert seen.count(source) / share.examples == pytest.approx(share.epochs, rel=0.02)
    assert told[0].epochs == pytest.approx(3 * 80 * (20**0.5 / (20**0.5 + 60**0.5)) / 20)
    assert told[1].line().startswith("source many: 60 examples, 120 tokens, 63.4% of what is seen")
    assert batches.shares(sources[:1], visits) == []


def test_replay_is_told_as_a_source():
    batches = Batches(examples(6, 2, 2), 1, [1, 1, 1], seed=0)
    told = batches.shares([SourceConfig(path="a"), SourceConfig(path="b")], 10)
    assert [(share.name, share.share) for share in told] == [
        ("a", 0.6),
        ("b", 0.2),
        ("replay", 0.2),
    ]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.jsonl", "b/y.csv"], ["x.jsonl", "y.csv"]),
        (["a/x.jsonl", "b/x.jsonl"], ["a/x.jsonl", "b/x.jsonl"]),
        (["org/set", "org/set", "z"], ["org/set#1", "org/set#2", "z"]),
    ],
)
def test_names_tell_sources_apart(paths, names):
    assert source_names([SourceConfig(path=path) for path in paths]) == names


def test_losses_by_source():
    assert by_source(["a", "b"], {2: (3.0, 2.0), 0: (4.0, 8.0), 1: (0.0, 0.0)}) == {
        "a": 0.5,
        "replay": 1.5,
    }
