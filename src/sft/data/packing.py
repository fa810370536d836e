"""Examples laid end to end: no padding, positions that restart, attention that stays inside.

examples    A A A   B B B B   C C
input_ids   a b c   d e f g   h i
position    0 1 2   0 1 2 3   0 1
cu_seq_lens 0       3         7   9
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sft.data.tokenize import IGNORE_INDEX, Example


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One micro-batch of whole examples.

    `input_ids`, `labels`, `position_ids`: int64 `[num_tokens]`; `weights`: float32
    `[num_tokens]`. Labels are already shifted; the last position of each example has none.
    `cu_seq_lens`: int32 `[num_examples + 1]`, where example `i` is at
    `cu_seq_lens[i]:cu_seq_lens[i + 1]`, named `ids[i]`, and of the source `sources[i]`.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    position_ids: torch.Tensor
    cu_seq_lens: torch.Tensor
    lengths: tuple[int, ...]
    ids: tuple[str, ...]
    sources: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Real tokens, which are all tokens."""
        return sum(self.lengths)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        if self.input_ids.device == device:
            return self
        tensors = ("input_ids", "labels", "weights", "position_ids", "cu_seq_lens")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in tensors}
        return replace(self, **moved)


def pack(examples: Sequence[Example]) -> Batch:
    """Lay `examples` end to end."""
    lengths = tuple(example.num_tokens for example in examples)
    return Batch(
        input_ids=torch.from_numpy(np.concatenate([e.input_ids for e in examples])),
        labels=torch.from_numpy(np.concatenate([e.labels for e in examples])),
        weights=torch.from_numpy(np.concatenate([e.weights for e in examples])),
        position_ids=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
        cu_seq_lens=torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32),
        lengths=lengths,
        ids=tuple(example.id for example in examples),
        sources=tuple(example.source for example in examples),
    )


def micro_batches(examples: Sequence[Example], max_tokens: int) -> list[Batch]:
    """Fill micro-batches up to `max_tokens`, longest example first.

    The sum over the micro-batches is the same whatever the grouping; longest first fills them
    best. An example longer than `max_tokens` gets a micro-batch of its own.
    """
    bins: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda e: -e.num_tokens):
        for i, free in enumerate(room):
            if example.num_tokens <= free:
                bins[i].append(example)
                room[i] -= example.num_tokens
                break
        else:
            bins.append([example])
            room.append(max_tokens - example.num_tokens)
    return [pack(group) for group in bins]


def pad(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """`input_ids` and `attention_mask` of `batch`, right-padded: `[num_examples, longest]`.

    The padding id is never read by a loss, because labels stay flat and pick real positions.
    """
    rows, width = len(batch.lengths), max(batch.lengths)
    input_ids = batch.input_ids.new_zeros(rows, width)
    mask = batch.input_ids.new_zeros(rows, width)
    for row, part in enumerate(batch.input_ids.split(batch.lengths)):
        input_ids[row, : len(part)] = part
        mask[row, : len(part)] = 1
    return input_ids, mask


def trained_positions(batch: Batch) -> torch.Tensor:
    """Flat indices of the supervised positions, int64 `[num_trained]`."""
    return (batch.labels != IGNORE_INDEX).nonzero().flatten()
