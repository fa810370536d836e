"""How long the examples are, in counts of bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sft.data.tokenize import Example

NUM_BINS = 24
QUANTILES = (0, 0.5, 0.95, 1)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the training examples: sorted lengths would be too many, so counts of bins.

    `edges` has one more entry than `all_counts` and `trained_counts`. Quantiles are of the shares
    0, 0.5, 0.95 and 1.
    """

    edges: tuple[float, ...]
    all_counts: tuple[int, ...]
    trained_counts: tuple[int, ...]
    all_quantiles: tuple[int, int, int, int]
    trained_quantiles: tuple[int, int, int, int]
    num_tokens: int
    num_trained: int
    max_seq_len: int


def lengths(examples: Sequence[Example], max_seq_len: int) -> Lengths:
    """The distribution of the lengths of `examples`, of which there is one at least."""
    every = np.array([example.num_tokens for example in examples])
    trained = np.array([example.num_trained for example in examples])
    edges = np.histogram_bin_edges(every, NUM_BINS, (0, max(int(every.max()), 1)))

    def quantiles(values: np.ndarray) -> tuple[int, int, int, int]:
        low, median, high, most = (int(np.quantile(values, share)) for share in QUANTILES)
        return low, median, high, most

    return Lengths(
        edges=tuple(edges.tolist()),
        all_counts=tuple(np.histogram(every, edges)[0].tolist()),
        trained_counts=tuple(np.histogram(trained, edges)[0].tolist()),
        all_quantiles=quantiles(every),
        trained_quantiles=quantiles(trained),
        num_tokens=int(every.sum()),
        num_trained=int(trained.sum()),
        max_seq_len=max_seq_len,
    )
