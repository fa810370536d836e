"""Examples end to end, and into micro-batches."""

import random

import numpy as np
import pytest
import torch

from sft.data.packing import micro_batches, pack, pad, trained_positions
from sft.data.rows.conversation import Origin
from sft.data.tokenize import IGNORE_INDEX, Example

NO = IGNORE_INDEX


def example(ids, labels=None, weights=None, name="a"):
    labels = [NO] * len(ids) if labels is None else labels
    weights = [float(label != NO) for label in labels] if weights is None else weights
    return Example(
        id=name,
        origin=Origin("rows.jsonl", 1),
        source=0,
        input_ids=np.array(ids, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        weights=np.array(weights, dtype=np.float32),
        num_bytes=0,
    )


@pytest.fixture
def batch():
    """The drawing of the module."""
    return pack(
        [
            example([11, 12, 13], [NO, 13, NO], name="A"),
            example([21, 22, 23, 24], [22, 23, 24, NO], [1, 0.5, 1, 0], name="B"),
            example([31, 32], [32, NO], name="C"),
        ]
    )


def test_the_drawing(batch):
    assert batch.input_ids.tolist() == [11, 12, 13, 21, 22, 23, 24, 31, 32]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1]
    assert batch.cu_seq_lens.tolist() == [0, 3, 7, 9]
    assert batch.labels.tolist() == [NO, 13, NO, 22, 23, 24, NO, 32, NO]
    assert batch.weights.tolist() == [0, 1, 0, 1, 0.5, 1, 0, 1, 0]
    assert (batch.lengths, batch.ids, batch.num_tokens) == ((3, 4, 2), ("A", "B", "C"), 9)
    assert trained_positions(batch).tolist() == [1, 3, 4, 5, 7]


def test_dtypes(batch):
    for tensor in (batch.input_ids, batch.labels, batch.position_ids):
        assert tensor.dtype == torch.int64
    assert (batch.weights.dtype, batch.cu_seq_lens.dtype) == (torch.float32, torch.int32)


def test_pad(batch):
    input_ids, mask = pad(batch)
    assert input_ids.tolist() == [[11, 12, 13, 0], [21, 22, 23, 24], [31, 32, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert input_ids[mask.bool()].tolist() == batch.input_ids.tolist()


def test_to(batch):
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    names = ("input_ids", "labels", "weights", "position_ids", "cu_seq_lens")
    for name in names:
        before, after = getattr(batch, name), getattr(moved, name)
        assert (after.device.type, after.shape, after.dtype) == ("meta", before.shape, before.dtype)
    assert (moved.lengths, moved.ids) == (batch.lengths, batch.ids)


def test_packing_does_not_share_memory_with_the_examples():
    one = example([1, 2])
    pack([one]).input_ids[0] = 9
    assert one.input_ids.tolist() == [1, 2]


def sizes(lengths, max_tokens):
    examples = [example(range(n), name=str(i)) for i, n in enumerate(lengths)]
    return [batch.lengths for batch in micro_batches(examples, max_tokens)]


def test_longest_first_into_the_first_that_has_room():
    assert sizes([2, 5, 3, 6, 4, 1], 8) == [(6, 2), (5, 3), (4, 1)]
    assert sizes([4, 4, 4, 4], 8) == [(4, 4), (4, 4)]
    assert sizes([4, 4, 4, 4], 7) == [(4,), (4,), (4,), (4,)]
    assert sizes([8], 8) == [(8,)]


def test_an_example_that_is_too_long_is_alone():
    assert sizes([3, 9, 1, 12], 8) == [(12,), (9,), (3, 1)]
    assert sizes([2, 3], 1) == [(3,), (2,)]


def test_no_examples():
    assert micro_batches([], 8) == []


@pytest.mark.parametrize("seed", range(30))
def test_every_example_is_in_exactly_one_micro_batch(seed):
    rng = random.Random(seed)
    max_tokens = rng.randint(5, 40)
    examples = [
        example([100 * i + t for t in range(rng.randint(1, 50))], name=str(i)) for i in range(40)
    ]
    batches = micro_batches(examples, max_tokens)
    assert sorted(name for batch in batches for name in batch.ids) == sorted(map(str, range(40)))
    for batch in batches:
        assert batch.num_tokens <= max_tokens or len(batch.lengths) == 1
        parts = batch.input_ids.split(batch.lengths)
        for name, part in zip(batch.ids, parts, strict=True):
            assert part.tolist() == examples[int(name)].input_ids.tolist()
    # First fit leaves at most one batch half empty.
    assert sum(2 * batch.num_tokens < max_tokens for batch in batches) <= 1
