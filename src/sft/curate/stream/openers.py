"""Openers that too many answers share: rows dropped, or the opener stripped, out of core.

The rules are those of `sft.curate.remedies.cap_openers` and `sft.curate.strip.strip_openers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from sft.curate.remedies import largest_cap
from sft.curate.stream.feature_pass import Progress
from sft.curate.stream.step_result import Mask, StepResult
from sft.curate.stream.store import Lists, Store
from sft.curate.strip import choose, openings

MAX_ROUNDS = 10
_BLOCK = 2_000

Counts = dict[str, tuple[int, int]]  # opener -> answers that begin with it, and with a mark after


def drop_openers(store: Store, alive: Mask, share: float) -> StepResult:
    """Drop rows until no three-word opener begins more than `share` of the answers left.

    `value` is the number of answers that begin alike, and the note `kept` how many of them stay.
    """
    rows = np.flatnonzero(alive)
    hashes = store.load("opener", np.uint64)[rows]
    rows, hashes = rows[hashes != 0], hashes[hashes != 0]
    by_chance = store.load("order", ">u8")[rows]
    order = np.lexsort((by_chance, hashes))
    _, begins, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    cap = largest_cap(counts.tolist(), share)
    rank = np.arange(len(rows)) - np.repeat(begins, counts)
    beyond = np.flatnonzero(rank >= cap)
    size = np.repeat(counts, counts)[beyond]
    dropped = rows[order][beyond]
    sort = np.argsort(dropped)
    return StepResult.of(dropped[sort], value=size[sort], notes={"kept": cap})


def strip_openers(store: Store, alive: Mask, share: float, progress: Progress) -> StepResult:
    """Which openers are taken off which rows: `kind` is the number of one of the `phrases`."""
    heads = Lists(store, "heads", np.uint8)
    taken = _Taken(heads, alive)
    by_chance = store.load("order", ">u8")
    limit = math.floor(share * np.count_nonzero(alive & (np.diff(heads.begins) > 0)))
    for number in range(MAX_ROUNDS):
        phrase = choose(taken.counts(limit), limit)
        if not phrase:
            break
        users = taken.users(phrase)
        users = users[np.argsort(by_chance[users], kind="stable")]
        taken.take(users[limit:], phrase)
        progress("openers: round", number + 1, MAX_ROUNDS)
    heads.close()
    rows = np.flatnonzero(taken.kind)
    notes = {"phrases": [list(phrases) for phrases in taken.phrases]}
    return StepResult.of(rows, kind=taken.kind[rows], notes=notes)


def stripped(text: str, phrases: list[str]) -> str | None:
    """An answer without the openers, one after the other; None when it does not begin so."""
    for phrase in phrases:
        rest = next((rest for found, _, rest in openings(text) if found == phrase), None)
        if rest is None:
            return None
        text = rest
    return text


class _Taken:
    """The heads of all answers, and which openers were taken off them so far."""

    def __init__(self, heads: Lists, alive: Mask) -> None:
        self._heads = heads
        self._alive = alive
        self.kind = np.zeros(len(alive), dtype=np.int32)  # 0: nothing was taken off
        self.phrases: list[tuple[str, ...]] = [()]

    def counts(self, limit: int) -> Counts:
        """How often each opener begins an answer, of those that more than `limit` begin with.

        An opener of two words is never more frequent than its first word, so that the rare ones,
        of which there are as many as answers, are not counted.
        """
        first = self._count(lambda phrase: " " not in phrase)
        frequent = {phrase for phrase, (uses, _) in first.items() if uses > limit}
        if not frequent:
            return {}
        return self._count(lambda phrase: phrase.split(" ")[0] in frequent)

    def _count(self, wanted: Callable[[str], bool]) -> Counts:
        uses: dict[str, list[int]] = {}
        for _, text in self._texts():
            for phrase, marked, _ in openings(text):
                if not wanted(phrase):
                    break
                found = uses.setdefault(phrase, [0, 0])
                found[0] += 1
                found[1] += marked
        return {phrase: (found[0], found[1]) for phrase, found in uses.items()}

    def users(self, phrase: str) -> np.ndarray:
        """Rows whose answer begins with the opener."""
        rows = [
            row
            for row, text in self._texts()
            if any(found == phrase for found, _, _ in openings(text))
        ]
        return np.array(rows, dtype=np.int64)

    def take(self, rows: np.ndarray, phrase: str) -> None:
        """Take the opener off these rows."""
        for before in np.unique(self.kind[rows]).tolist():
            self.phrases.append((*self.phrases[before], phrase))
            same = rows[self.kind[rows] == before]
            self.kind[same] = len(self.phrases) - 1

    def _texts(self) -> Iterator[tuple[int, str]]:
        begins = self._heads.begins
        for start in range(0, len(self._alive), _BLOCK):
            end = min(start + _BLOCK, len(self._alive))
            data = self._heads.rows(start, end).tobytes()
            for row in (np.flatnonzero(self._alive[start:end]) + start).tolist():
                at = slice(begins[row] - begins[start], begins[row + 1] - begins[start])
                text = data[at].decode("utf-8", "surrogatepass")
                yield row, stripped(text, list(self.phrases[self.kind[row]])) or ""
