"""Examples in pieces a person can read: which tokens are trained, which are only shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sft.data.tokenize import IGNORE_INDEX, Example

# A character of four bytes can be four tokens; what is not whole after so many never will be.
_MAX_PER_CHARACTER = 4
_BROKEN = "\ufffd"

# How a token is shown: written by the model and trained on (`partly`: with another weight than
# 1), or only shown to it.
Kind = Literal["trained", "partly", "masked"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens of one kind; `special` when they are special tokens, such as `<|im_end|>`."""

    text: str
    kind: Kind
    special: bool = False


def pieces(example: Example, tokenizer: Any) -> Iterator[Piece]:
    """`example` in runs of tokens of one kind; every special token is a piece of its own.

    A piece has the kind of its own prediction: `trained` when the model learns to write it.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = example.input_ids.tolist()
    kinds = _kinds(example)
    start = 0
    while start < len(ids):
        if ids[start] in special:
            yield Piece(decode(tokenizer, ids[start : start + 1]), kinds[start], special=True)
            start += 1
            continue
        end = start
        while end < len(ids) and ids[end] not in special and kinds[end] == kinds[start]:
            end += 1
        text, end = _whole(tokenizer, ids, start, end, special)
        yield Piece(text, kinds[start])
        start = end


def _kinds(example: Example) -> list[Kind]:
    """Of each token, `[seq_len]`; nothing predicts the first."""
    weights = np.append(np.float32(0), example.weights[:-1]).tolist()
    targets = np.append(IGNORE_INDEX, example.labels[:-1]).tolist()
    return [
        "masked" if target == IGNORE_INDEX else "trained" if weight == 1 else "partly"
        for weight, target in zip(weights, targets, strict=True)
    ]


def _whole(
    tokenizer: Any, ids: Sequence[int], start: int, end: int, special: set[int]
) -> tuple[str, int]:
    """The text of `ids[start:end]`, with the tokens after it that end its last character."""
    before = ids[start - 1 : start] if start and ids[start - 1] not in special else []
    text = _after(tokenizer, before, ids[start:end])
    for more in range(end + 1, min(end + _MAX_PER_CHARACTER, len(ids) + 1)):
        if not text.endswith(_BROKEN) or ids[more - 1] in special:
            break
        longer = _after(tokenizer, before, ids[start:more])
        if not longer.endswith(_BROKEN):
            return longer, more
    return text, end


def _after(tokenizer: Any, before: Sequence[int], ids: Sequence[int]) -> str:
    """The text of `ids`. Some decoders drop the space that a text begins with, unless it has
    a token before it.
    """
    head, whole = decode(tokenizer, before), decode(tokenizer, [*before, *ids])
    return whole[len(head) :] if whole.startswith(head) else decode(tokenizer, ids)


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of `ids`, as it is; empty for none."""
    text: str = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False) if ids else ""
    return text
