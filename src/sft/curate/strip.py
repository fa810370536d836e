"""Take an opener that too many answers share off the answers that are too many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sft.curate.remedies import Remedied, by_origin, check_share
from sft.data.rows.conversation import Conversation, Message
from sft.texts.ngrams import text_hash
from sft.texts.openers import FILLERS, LEAD_INS, read_opener

MAX_ROUNDS = 10  # of an answer that begins with one opener after the other

Openers = tuple[str, ...]  # taken off an answer, one after the other


def strip_openers(rows: Sequence[Conversation], max_share: float) -> Remedied:
    """Where one opener begins more than `max_share` of the answers, strip it from those beyond.

    An opener is taken off as a whole, with the mark or line break that ends it ("Sure!", "I'm
    sorry, but"; in any script), or when it leads to what follows ("Here is"). The rest begins with
    a capital. Two or more frequent ones that are no known fillers may be labels ("Positive." and
    "Negative.") and stay, as do yes and no, code, numbers, fields, and what is the whole answer.
    What follows an opener may be the next one beyond its share.

    Raises:
        ConfigError: when `max_share` is not above 0 and at most 1.
    """
    check_share(max_share)
    answers = [first_answer(row) for row in rows]
    texts = [
        row.messages[i].content if i >= 0 else "" for row, i in zip(rows, answers, strict=True)
    ]
    order = np.empty(len(rows), dtype=np.int64)
    order[by_origin(rows)] = np.arange(len(rows))
    limit = math.floor(max_share * sum(i >= 0 for i in answers))
    kinds, openers = plan(lambda indices: (texts[i] for i in indices), order, limit)
    kept, changed = list(rows), []
    for i in np.flatnonzero(kinds).tolist():
        taken = openers[kinds[i]]
        text = stripped(texts[i], taken) or texts[i]
        messages: list[Message] = list(rows[i].messages)
        messages[answers[i]] = replace(messages[answers[i]], content=text)
        kept[i] = replace(rows[i], messages=tuple(messages))
        changed.append((rows[i].origin, reason(taken)))
    return kept, changed


def first_answer(row: Conversation) -> int:
    """Index of the first answer that has a text, or -1."""
    messages = enumerate(row.messages)
    return next((i for i, m in messages if m.role == "assistant" and m.content.strip()), -1)


def reason(taken: Sequence[str]) -> str:
    """What the account says of a row."""
    return f'opener "{" ".join(taken)}" stripped from the answer'


def plan(
    read: Callable[[Sequence[int]], Iterable[str]],
    order: NDArray[np.generic],
    limit: int,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[NDArray[np.int32], list[Openers]]:
    """Which openers are taken off which of `len(order)` answers.

    `read` gives the beginnings of answers; of those with one opener the first `limit` by `order`
    keep it. Returned are a number of each answer, 0 for those that stay as they are, and what is
    taken off those with a number. Held in memory: some 20 bytes an answer.
    """
    kinds, openers = np.zeros(len(order), dtype=np.int32), list[Openers]([()])
    hashes = np.zeros(len(order), dtype=np.uint64)
    turned: list[int] = list(range(len(order)))
    for number in range(MAX_ROUNDS):
        for i, text in zip(turned, read(turned), strict=True):
            clause = read_opener(stripped(text, openers[kinds[i]]) or "").clause
            hashes[i] = text_hash(clause) if clause else 0
        values, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        often = (counts > limit) & (values != 0)
        examples = first[often].tolist()
        heads = zip(examples, read(examples), strict=True)
        frequent = [
            read_opener(stripped(text, openers[kinds[i]]) or "").clause for i, text in heads
        ]
        turned = []
        for clause in strippable(frequent):
            users = np.flatnonzero(hashes == text_hash(clause))
            beyond = users[np.argsort(order[users], kind="stable")][limit:]
            for before in np.unique(kinds[beyond]).tolist():
                openers.append((*openers[before], clause))
                kinds[beyond[kinds[beyond] == before]] = len(openers) - 1
            turned += beyond.tolist()
        turned.sort()
        progress("openers: round", number + 1, MAX_ROUNDS)
        if not turned:
            break
    return kinds, openers


def strippable(frequent: Sequence[str]) -> list[str]:
    """Those of the frequent openers that can be taken off: no labels."""
    known = [clause for clause in frequent if clause in FILLERS | LEAD_INS]
    others = [clause for clause in frequent if clause not in FILLERS | LEAD_INS]
    # Two labels would be two openers; "of course" and "of course sir" are one that goes on.
    labels = len({clause.split()[0] for clause in others}) > 1
    return known if labels else known + others


def stripped(text: str, taken: Sequence[str]) -> str | None:
    """An answer without the openers, one after the other; None when it does not begin so."""
    for clause in taken:
        found = read_opener(text)
        if found.clause != clause:
            return None
        text = found.rest
    return text
