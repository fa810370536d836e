"""Which of many texts a text shares runs of words with: an exact index, without any sketching."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sft.texts.near_duplicates import words


def runs(parts: Sequence[str], length: int) -> set[str]:
    """All runs of `length` words; one run of all when there are fewer; none for no words."""
    if not parts:
        return set()
    starts = range(max(1, len(parts) - length + 1))
    return {" ".join(parts[start : start + length]) for start in starts}


@dataclass(frozen=True, slots=True)
class Hit:
    """The text that shares most: its number, how many runs it shares, and how many it has."""

    text: int
    shared: int
    text_runs: int

    @property
    def contained(self) -> float:
        """Share of the indexed text's runs that are in the other."""
        return self.shared / self.text_runs


class Index:
    """Runs of `length` words of some texts.

    Runs that `common` texts or more have are not counted: they are the form of the texts, such
    as "answer with one of the following letters".
    """

    def __init__(self, texts: Sequence[str], length: int, common: int | None = None) -> None:
        self.length = length
        self._holders: dict[str, list[int]] = {}
        self.sizes = [0] * len(texts)
        for number, text in enumerate(texts):
            for run in runs(words(text), length):
                self._holders.setdefault(run, []).append(number)
        if common is not None:
            self._holders = {r: held for r, held in self._holders.items() if len(held) < common}
        for held in self._holders.values():
            for number in held:
                self.sizes[number] += 1

    def may_match(self, parts: Sequence[str]) -> bool:
        """Whether a text can have a Jaccard similarity of 0.8 to these words: a fast test.

        It would share four in five of their runs, and so one of every four that are looked at.
        """
        num_runs = max(1, len(parts) - self.length + 1)
        step = 4 if num_runs >= 8 else 1
        starts = range(0, num_runs, step)
        return any(" ".join(parts[s : s + self.length]) in self._holders for s in starts)

    def best(self, parts: Sequence[str]) -> Hit | None:
        """The text with the largest share of its runs in these words; None when none shares one."""
        shared = self._shared(runs(parts, self.length))
        if not shared:
            return None
        number = max(shared, key=lambda i: (shared[i] / self.sizes[i], -i))
        return Hit(number, shared[number], self.sizes[number])

    def near(self, parts: Sequence[str], least: float) -> list[int]:
        """The texts whose runs have a Jaccard similarity of `least` to those of these words."""
        own = runs(parts, self.length)
        return [
            i
            for i, count in self._shared(own).items()
            if count >= least * (len(own) + self.sizes[i] - count)
        ]

    def _shared(self, own: Iterable[str]) -> Counter[int]:
        return Counter(number for run in own for number in self._holders.get(run, ()))
