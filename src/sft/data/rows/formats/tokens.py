"""Rows that are token ids already: `input_ids`, and which of them are trained.

`labels` are as Transformers has them: equal to `input_ids`, not shifted, and -100 where nothing
is trained. `completion_mask` and `assistant_masks` are TRL's: 1 where a token is trained. With
several of them, a token is trained where all say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sft.data.rows.conversation import Message
from sft.data.rows.formats.content import decoded_list
from sft.data.rows.problems import RowError, describe, expect

COLUMNS = ("input_ids",)
MASKS = ("completion_mask", "assistant_masks")
OPTIONAL = ("labels", *MASKS, "attention_mask", "position_ids", "seq_lengths")
IGNORED = -100


def parse(values: Mapping[str, Any]) -> list[Message]:
    """Runs of trained ids as messages of the assistant, all other ids as those of the user.

    An id is a word of the content; `plain_rows.token_ids` reads them. No vocabulary is known here.
    """
    ids = _integers(values, "input_ids")
    _refuse_padded_or_packed(values, len(ids))
    given = [name for name in ("labels", *MASKS) if values.get(name) is not None]
    if not given:
        raise RowError(
            "labels: missing; rows with input_ids need labels (-100 where nothing is trained), "
            "completion_mask or assistant_masks"
        )
    trained = [True] * len(ids)
    for name in given:
        says = _labels(values, ids) if name == "labels" else _mask(values, name, len(ids))
        trained = [a and b for a, b in zip(trained, says, strict=True)]
    if not any(trained[1:]):
        raise RowError(f"{' and '.join(given)}: no token is trained (the first has none before it)")
    return [
        Message("assistant", text, weight=1.0) if is_trained else Message("user", text)
        for is_trained, text in _runs(ids, trained)
    ]


def _runs(ids: Sequence[int], trained: Sequence[bool]) -> Iterator[tuple[bool, str]]:
    for is_trained, run in groupby(zip(trained, ids, strict=True), lambda pair: pair[0]):
        yield is_trained, " ".join(str(token) for _, token in run)


def _integers(values: Mapping[str, Any], name: str, length: int | None = None) -> list[int]:
    """The list of whole numbers in column `name`, which has `length` of them."""
    numbers: list[int] = decoded_list(values[name], name)
    expect(numbers, list, name, "a list of token ids")
    for index, value in enumerate(numbers):
        if not isinstance(value, int) or (isinstance(value, bool) and length is None):
            raise RowError(f"{name}[{index}]: expected a whole number, found {describe(value)}")
    if length is not None and len(numbers) != length:
        raise RowError(f"{name}: {len(numbers):,} values for {length:,} input_ids")
    return numbers


def _labels(values: Mapping[str, Any], ids: Sequence[int]) -> list[bool]:
    labels = _integers(values, "labels", len(ids))
    for index, (label, token) in enumerate(zip(labels, ids, strict=True)):
        if label not in (token, IGNORED):
            shifted = labels[:-1] == list(ids[1:])
            why = "; they are shifted by one" if shifted else ""
            raise RowError(
                f"labels[{index}]: [{label}] where input_ids has [{token}]; a label is "
                f"{IGNORED} or the id at its own place{why}"
            )
    return [label != IGNORED for label in labels]


def _mask(values: Mapping[str, Any], name: str, length: int) -> list[bool]:
    mask = _integers(values, name, length)
    for index, value in enumerate(mask):
        if value not in (0, 1):
            raise RowError(f"{name}[{index}]: expected 0 or 1, found {value}")
    return [bool(value) for value in mask]


def _refuse_padded_or_packed(values: Mapping[str, Any], length: int) -> None:
    """Padding would be read as text, and packed examples would read each other."""
    given = {name for name in OPTIONAL if values.get(name) is not None}
    if "attention_mask" in given and not all(_mask(values, "attention_mask", length)):
        raise RowError("attention_mask: has zeros; take the padding off, sft needs none")
    counted = list(range(length))
    if "position_ids" in given and _integers(values, "position_ids", length) != counted:
        raise RowError("position_ids: do not count from 0; several examples in one row?")
    if "seq_lengths" in given and decoded_list(values["seq_lengths"], "seq_lengths") != [length]:
        raise RowError("seq_lengths: several examples are packed into this row; give one a row")
