"""What can be done about data before training on it. Pure functions from rows to rows.

Each returns the rows to train on, in the order given, and what became of the others: origin and
reason of every row that was changed or dropped. None depends on chance; which of several equal
rows is kept depends on their origins, not on their order.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sft.config import DataConfig
from sft.curate.diverse_rows import most_different
from sft.curate.vectors import hashed_terms
from sft.data.repeats import answer_text, leaks, prompt_text, repeats
from sft.data.rows.conversation import Conversation, Message, Origin
from sft.errors import ConfigError
from sft.texts.ngrams import text_hash
from sft.texts.openers import FILLERS, LEAD_INS, opener, read_opener

MAX_ROUNDS = 10  # of an answer that begins with one opener after the other

Remedied = tuple[list[Conversation], list[tuple[Origin, str]]]
Openers = tuple[str, ...]  # taken off an answer, one after the other


def choose_rows(
    rows: Sequence[Conversation],
    val: Sequence[Conversation],
    *,
    config: DataConfig,
    seed: int,
    note: Callable[[str], None] = lambda _text: None,
) -> Remedied:
    """The remedies that a config asks for, applied in order to the rows to train on.

    Near-duplicates go first, of each other and of `val`, then openers, then the choice of the most
    different rows. `note` is told how many rows `data.openers` changed.
    """
    left: list[Conversation] = list(rows)
    changed: list[tuple[Origin, str]] = []

    def apply(done: Remedied) -> None:
        nonlocal left
        left, notes = done
        changed.extend(notes)

    if config.deduplicate:
        apply(dedupe(left))
        apply(without_leaks(left, val))
    if config.openers != "keep":
        remedy = strip_openers if config.openers == "strip" else cap_openers
        total, before = len(left), len(changed)
        apply(remedy(left, config.opener_share))
        note(_opener_note(config, len(changed) - before, total))
    if config.select_rows is not None:
        apply(select_diverse(left, config.select_rows, seed))
    return left, changed


def _opener_note(config: DataConfig, number: int, total: int) -> str:
    name = f"data.openers: {config.openers}"
    if not number:
        return (
            f"{name} changed none of the {total:,} training rows: no opener that it can take off "
            f"begins more than {config.opener_share:.3g} of the answers (data.opener_share)"
        )
    result = "stripped of their opener" if config.openers == "strip" else "left out"
    return f"{name}: {number:,} of {total:,} training rows were {result}"


def dedupe(rows: Sequence[Conversation]) -> Remedied:
    """Leave out exact copies and near-duplicates of earlier rows; see `sft.data.repeats`."""
    copies, near = repeats(rows)
    later = (copies | near).items()
    return _without(rows, {i: f"near-duplicate of {rows[first].origin}" for i, first in later})


def without_leaks(rows: Sequence[Conversation], val: Sequence[Conversation]) -> Remedied:
    """Leave out the rows that repeat a validation row."""
    leaking = leaks(rows, val).rows.items()
    return _without(rows, {i: f"repeats validation row {val[h].origin}" for i, h in leaking})


def select_diverse(rows: Sequence[Conversation], k: int, seed: int) -> Remedied:
    """Keep `k` rows whose prompts lie as far from each other as possible (`most_different`)."""
    if k >= len(rows):
        return list(rows), []
    terms = hashed_terms([prompt_text(row) for row in rows])
    chosen = most_different(terms, np.arange(len(rows)), by_origin(rows), k, seed).tolist()
    reason = f"not among the {k:,} most different prompts"
    return _without(rows, dict.fromkeys({*range(len(rows))}.difference(chosen), reason))


def cap_openers(rows: Sequence[Conversation], max_share: float) -> Remedied:
    """Drop rows until no opener begins more than `max_share` of the answers left.

    One row of each opener always stays. Where few rows begin otherwise that drops nearly all;
    `strip_openers` keeps them.

    Raises:
        ConfigError: when `max_share` is not above 0 and at most 1.
    """
    _check_share(max_share)
    openers = [opener(answer_text(row)) for row in rows]
    counts = Counter(filter(None, openers))
    cap = largest_cap(list(counts.values()), max_share)
    taken: Counter[str] = Counter()
    reasons = {}
    for i in np.argsort(by_origin(rows)).tolist():
        if begin := openers[i]:
            taken[begin] += 1
            if taken[begin] > cap:
                reasons[i] = f'{counts[begin]:,} answers begin with "{begin}"; {cap:,} are kept'
    return _without(rows, reasons)


def largest_cap(counts: Sequence[int], max_share: float) -> int:
    """Largest number of rows an opener may keep: no more than its share of all that are kept."""
    total = sum(counts)
    while True:
        cap = max(1, math.floor(max_share * total + 1e-9))
        left = sum(min(count, cap) for count in counts)
        if left == total:
            return cap
        total = left


def by_origin(rows: Sequence[Conversation]) -> NDArray[np.int64]:
    """A rank of each row that looks random but does not depend on the order of the rows."""
    digests = [
        hashlib.sha256(str(row.origin).encode("utf-8", "surrogatepass")).digest() for row in rows
    ]
    ranks = np.empty(len(rows), dtype=np.int64)
    ranks[sorted(range(len(rows)), key=digests.__getitem__)] = np.arange(len(rows))
    return ranks


def _without(rows: Sequence[Conversation], reasons: Mapping[int, str]) -> Remedied:
    return (
        [row for i, row in enumerate(rows) if i not in reasons],
        [(rows[i].origin, reason) for i, reason in sorted(reasons.items())],
    )


def _check_share(max_share: float) -> None:
    if not 0 < max_share <= 1:
        raise ConfigError(f"max_share is {max_share}; it must be above 0 and at most 1")


# ------------------------------------------------------------------------ openers taken off


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
    _check_share(max_share)
    answers = [first_answer(row) for row in rows]
    texts = [
        row.messages[i].content if i >= 0 else "" for row, i in zip(rows, answers, strict=True)
    ]
    limit = math.floor(max_share * sum(i >= 0 for i in answers))
    kinds, openers = opener_plan(lambda some: (texts[i] for i in some), by_origin(rows), limit)
    result, changed = list(rows), []
    for i in np.flatnonzero(kinds).tolist():
        taken = openers[kinds[i]]
        text = stripped(texts[i], taken) or texts[i]
        messages: list[Message] = list(rows[i].messages)
        messages[answers[i]] = replace(messages[answers[i]], content=text)
        result[i] = replace(rows[i], messages=tuple(messages))
        changed.append((rows[i].origin, strip_reason(taken)))
    return result, changed


def first_answer(row: Conversation) -> int:
    """Index of the first answer that has a text, or -1."""
    messages = enumerate(row.messages)
    return next((i for i, m in messages if m.role == "assistant" and m.content.strip()), -1)


def strip_reason(taken: Sequence[str]) -> str:
    """What the account says of a row."""
    return f'opener "{" ".join(taken)}" stripped from the answer'


def opener_plan(
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

    def clauses(answers: Sequence[int]) -> Iterable[str]:
        """The opener of each answer, after what is taken off already."""
        for i, text in zip(answers, read(answers), strict=True):
            yield read_opener(stripped(text, openers[kinds[i]]) or "").clause

    turned: list[int] = list(range(len(order)))
    for number in range(MAX_ROUNDS):
        for i, clause in zip(turned, clauses(turned), strict=True):
            hashes[i] = text_hash(clause) if clause else 0
        values, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        frequent = list(clauses(first[(counts > limit) & (values != 0)].tolist()))
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
        begin = read_opener(text)
        if begin.clause != clause:
            return None
        text = begin.rest
    return text
