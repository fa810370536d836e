"""Which examples an optimizer step sees: a pure function of seed, epoch and position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sft.config import SourceConfig
from sft.data.mixing import Share, shares, source_names
from sft.data.tokenize import Example
from sft.errors import ConfigError


class Batches:
    """Endless epochs over `examples`, each a new permutation, `per_step` at a time.

    An epoch holds each example `weight` times, where `weights` has one entry per source: twice
    for 2, every other one (another half each epoch) for 0.5. `importance` multiplies the weight of
    each example. Steps do not stop at the end of an epoch, so every step has exactly `per_step`
    examples.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        per_step: int,
        weights: Sequence[float],
        seed: int,
        importance: Sequence[float] | None = None,
    ) -> None:
        self._examples = examples
        self._per_step = per_step
        self._seed = seed
        self._weights = np.array([weights[example.source] for example in examples])
        if importance is not None:
            self._weights = self._weights * np.asarray(importance)
        self.epoch_size = max(1, round(float(self._weights.sum())))
        self.taken = 0
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def num_steps(self, epochs: float, max_steps: int | None) -> int:
        """Steps of a run: `max_steps` where given, else what covers `epochs`."""
        if max_steps is not None:
            return max_steps
        return max(1, math.ceil(self.epoch_size * epochs / self._per_step))

    @property
    def epoch(self) -> float:
        """Passes over the training examples so far; 1.5 is one and a half."""
        return self.taken / self.epoch_size

    def shares(self, sources: Sequence[SourceConfig], visits: float) -> list[Share]:
        """What each of `sources`, and replay, is of a run that sees `visits` examples.

        Nothing for a single source: it is all there is.
        """
        if len(sources) < 2:
            return []
        return shares(self._examples, self._weights.tolist(), source_names(sources), visits)

    def next(self) -> list[Example]:
        """The examples of the next step."""
        indices = []
        for position in range(self.taken, self.taken + self._per_step):
            epoch, within = divmod(position, self.epoch_size)
            indices.append(int(self._epoch_order(epoch)[within]))
        self.taken += self._per_step
        return [self._examples[i] for i in indices]

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            # Examples of one fraction are drawn in a random order, and a number of them in
            # proportion to it: copies of example i differ from weight i by less than one, and
            # the epoch has exactly epoch_size of them.
            whole = np.floor(self._weights)
            fraction = self._weights - whole
            extra = self.epoch_size - int(whole.sum())
            turn = np.full(len(fraction), np.inf)
            for part in np.unique(fraction[fraction > 0]):
                same = np.flatnonzero(fraction == part)
                turn[same] = (rng.permutation(len(same)) + rng.random()) / (len(same) * part)
            copies = whole.astype(np.int64)
            copies[np.argsort(turn, kind="stable")[:extra]] += 1
            self._order = (epoch, rng.permutation(np.repeat(np.arange(len(copies)), copies)))
        return self._order[1]

    def state_dict(self) -> dict[str, int]:
        """Where the order stands."""
        return {"taken": self.taken, "epoch_size": self.epoch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` stood; the data must be the same."""
        if state["epoch_size"] != self.epoch_size:
            raise ConfigError("the number of training examples changed")
        self.taken = state["taken"]
