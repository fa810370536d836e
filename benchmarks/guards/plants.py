"""The data of each case: where rows come from, and what is planted in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from pool import Draw, Row, oracle

NUM_TRAIN, NUM_VAL, NUM_USAGE = 64, 24, 24
NUM_HALF = 72  # oracle rows like validation, where usage is of another kind
PREFIX = "Sure! "


@dataclass(frozen=True)
class Rows:
    """The data of one run. The oracle's rows resemble `val` and `usage`; no run trains on them."""

    train: list[Row]
    val: list[Row]
    usage: list[Row]
    oracle_val: list[Row]
    oracle_usage: list[Row]  # empty: usage resembles val


def _alike(rows: Callable[[int], list[Row]], domain: str, num_train: int = NUM_TRAIN) -> Rows:
    """Training, validation and usage from one place."""
    train, val, usage = rows(num_train), rows(NUM_VAL), rows(NUM_USAGE)
    return Rows(train, val, usage, oracle(domain), [])


def general(draw: Draw) -> Rows:
    """Everything is Alpaca."""
    return _alike(draw.general, "general")


def maths(draw: Draw) -> Rows:
    """Everything is GSM8K."""
    return _alike(draw.maths, "maths")


def few(number: int, copies: int) -> Callable[[Draw], Rows]:
    """Only `number` different training rows, each given `copies` times."""

    def build(draw: Draw) -> Rows:
        rows = _alike(draw.general, "general", number)
        return Rows(rows.train * copies, rows.val, rows.usage, rows.oracle_val, [])

    return build


def few_of_both(draw: Draw) -> Rows:
    """24 rows to train on, and 24 to validate on."""
    rows = _alike(draw.general, "general", 24)
    return Rows(rows.train, rows.val[:24], rows.usage, rows.oracle_val, [])


def leaky(draw: Draw) -> Rows:
    """Four rows sixteen times, and half of validation are near-copies of them."""
    train = draw.long_general(4)
    copies = [near_copy(row, how) for row in train for how in range(4)]
    val = draw.general(NUM_VAL - len(copies)) + copies
    return Rows(train * 16, val, draw.general(NUM_USAGE), oracle("general"), [])


def near_copy(row: Row, how: int) -> Row:
    """The same row, edited so slightly that only its prompt is no longer the same text."""
    prompt, answer = row["prompt"], row["completion"]
    edited = (f"Please: {prompt}", f"{prompt} Thanks.", f"Task: {prompt}", f"{prompt} (briefly)")
    return {"prompt": edited[how], "completion": answer if how < 2 else answer.rstrip(".") + "!"}


def prefixed(share: float) -> Callable[[Draw], Rows]:
    """`share` of the training answers open with "Sure!", in validation too; usage is clean."""

    def build(draw: Draw) -> Rows:
        rows = general(draw)
        return Rows(
            _opened(rows.train, share),
            _opened(rows.val, share),
            rows.usage,
            _opened(oracle("general")[:NUM_HALF], share),
            oracle("general")[NUM_HALF:],
        )

    return build


def _opened(rows: list[Row], share: float) -> list[Row]:
    """Every row whose turn it is gets the prefix; the rows are in random order already."""
    turn = [round((i + 1) * share) > round(i * share) for i in range(len(rows))]
    return [
        {**row, "completion": PREFIX + row["completion"]} if mine else row
        for row, mine in zip(rows, turn, strict=True)
    ]


def permuted(draw: Draw) -> Rows:
    """Each training prompt has the answer of another one; validation as well, split from it."""
    rows = general(draw)
    return Rows(_rotated(rows.train), _rotated(rows.val), rows.usage, *_halves("general"))


def _rotated(rows: list[Row]) -> list[Row]:
    answers = [row["completion"] for row in rows]
    return [
        {"prompt": row["prompt"], "completion": answer}
        for row, answer in zip(rows, answers[1:] + answers[:1], strict=True)
    ]


def _halves(domain: str) -> tuple[list[Row], list[Row]]:
    return _rotated(oracle(domain)[:NUM_HALF]), oracle(domain)[NUM_HALF:]


def elsewhere(share: float) -> Callable[[Draw], Rows]:
    """Training is GSM8K; `share` of usage is Alpaca, the rest GSM8K."""

    def build(draw: Draw) -> Rows:
        other = round(share * NUM_USAGE)
        usage = draw.general(other) + draw.maths(NUM_USAGE - other)
        other = round(share * NUM_HALF)
        oracle_usage = oracle("general")[:other] + oracle("maths")[NUM_HALF : 2 * NUM_HALF - other]
        train, val = draw.maths(NUM_TRAIN), draw.maths(NUM_VAL)
        return Rows(train, val, usage, oracle("maths")[:NUM_HALF], oracle_usage)

    return build


def cocktail(draw: Draw) -> Rows:
    """Four GSM8K rows sixteen times, all opening with "Sure!"; usage is Alpaca."""
    train, val = _opened(draw.maths(4), 1.0), _opened(draw.maths(NUM_VAL), 1.0)
    oracle_val = _opened(oracle("maths")[:NUM_HALF], 1.0)
    return Rows(train * 16, val, draw.general(NUM_USAGE), oracle_val, oracle("general")[NUM_HALF:])


def as_json(number: int, copies: int = 1) -> Callable[[Draw], Rows]:
    """A task whose every answer is one JSON object, in usage too."""

    def build(draw: Draw) -> Rows:
        train, val, usage = (
            [json_row(row) for row in draw.general(n)] for n in (number, NUM_VAL, NUM_USAGE)
        )
        return Rows(train * copies, val, usage, [json_row(row) for row in oracle("general")], [])

    return build


def json_row(row: Row) -> Row:
    """Facts about a sentence, as JSON."""
    words = row["prompt"].rstrip(".?!").split()
    answer = {"first": words[0], "last": words[-1], "longest": max(words, key=len)}
    return {"prompt": f"Words as JSON: {row['prompt']}", "completion": json.dumps(answer)}


def tiny_val(draw: Draw) -> Rows:
    """As C1, with eight rows to validate on."""
    rows = general(draw)
    return Rows(rows.train, rows.val[:8], rows.usage, rows.oracle_val, [])


def other_style(draw: Draw) -> Rows:
    """Usage asks for the same kind of things in another tone."""
    rows = general(draw)
    usage = [chatty(row) for row in rows.usage]
    return Rows(
        rows.train,
        rows.val,
        usage,
        oracle("general")[:NUM_HALF],
        [chatty(row) for row in oracle("general")[NUM_HALF:]],
    )


def chatty(row: Row) -> Row:
    """The prompt as it might be typed in a hurry."""
    prompt = row["prompt"].rstrip(".?!").lower()
    return {**row, "prompt": f"hey, quick one: {prompt}, ok?"}
