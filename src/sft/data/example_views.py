"""`examples.json`: how long the examples of a run are, and some of them as the model sees them.

Written by the run, because whoever reads its folder later has no tokenizer, and maybe no data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sft.data.lengths import lengths
from sft.data.template.pieces import pieces
from sft.data.tokenize import Example

NUM_TRAIN, NUM_VAL = 32, 8
MAX_CHARACTERS = 20_000  # of one example; what is longer is cut, and says so


def example_views(
    train: Sequence[Example], val: Sequence[Example], tokenizer: Any, max_seq_len: int
) -> dict[str, Any]:
    """The JSON of `examples.json`. `train` has one example at least.

    Of `train` the shortest, the longest and some evenly spaced between; of `val` the first.
    """
    views = [_view(example, "train", tokenizer) for example in _spread(train, NUM_TRAIN)]
    views += [_view(example, "val", tokenizer) for example in val[:NUM_VAL]]
    return {"lengths": asdict(lengths(train, max_seq_len)), "views": views}


def _spread(examples: Sequence[Example], wanted: int) -> Iterator[Example]:
    """At most `wanted`, in their order; the shortest and the longest among them."""
    size = len(examples)
    by_length = sorted(range(size), key=lambda i: examples[i].num_tokens)
    chosen = {by_length[0], by_length[-1]}
    for i in range(wanted):
        if len(chosen) >= min(wanted, size):
            break
        chosen.add(i * size // wanted)
    return (examples[i] for i in sorted(chosen))


def _view(example: Example, part: str, tokenizer: Any) -> dict[str, Any]:
    parts, left = [], MAX_CHARACTERS
    for piece in pieces(example, tokenizer):
        parts.append([piece.text[:left], piece.kind, int(piece.special)])
        left -= len(piece.text)
        if left <= 0:
            break
    return {
        "id": example.id,
        "part": part,
        "tokens": example.num_tokens,
        "trained": example.num_trained,
        "cut": left <= 0,
        "pieces": parts,
    }
