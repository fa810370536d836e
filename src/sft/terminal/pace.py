"""How long a run still takes, from how long its steps and evaluations took so far."""

from __future__ import annotations

from collections import deque
from statistics import median

_STEPS = 50  # the newest, over which the median is taken
KNOWN_AFTER, KNOWN_AFTER_IF_SHORT, SHORT = 10, 3, 30  # steps


class Pace:
    """Medians, so that one slow step changes nothing.

    What passes between two steps is counted too: evaluations and checkpoints, which come at the
    same steps, by their own median; and what every step has, such as reading and writing.
    """

    def __init__(self, num_steps: int, every: int = 0) -> None:
        """`num_steps` of the whole run, with an evaluation after `every` of them (0: without
        evaluations).
        """
        self.num_steps = num_steps
        self._every = every
        self._steps: deque[float] = deque(maxlen=_STEPS)
        self._between: deque[float] = deque(maxlen=_STEPS)
        self._evals: deque[float] = deque(maxlen=_STEPS)
        self._first_eval = 0.0
        self._num_seen = 0
        self._ended: float | None = None  # when the last step did
        self._evaluated = False

    def evaluate(self, seconds: float) -> None:
        """An evaluation was taken, in `seconds`."""
        self._evaluated = True
        if not self._evals:
            self._first_eval = seconds

    def step(self, seconds: float, now: float) -> None:
        """A step of `seconds` ended at `now`, the reading of a clock in seconds."""
        self._num_seen += 1
        self._steps.append(seconds)
        if self._ended is not None:
            aside = max(0.0, now - self._ended - seconds)
            (self._evals if self._evaluated else self._between).append(aside)
        self._ended, self._evaluated = now, False

    def left(self, step: int) -> float | None:
        """Seconds to the end after `step`; None while it is too early to tell, or over."""
        known = KNOWN_AFTER if self.num_steps >= SHORT else KNOWN_AFTER_IF_SHORT
        todo = self.num_steps - step
        if todo <= 0 or self._num_seen < known:
            return None
        each = median(self._steps) + (median(self._between) if self._between else 0.0)
        evaluation = median(self._evals) if self._evals else self._first_eval
        return todo * each + self._evals_left(step) * evaluation

    def _evals_left(self, step: int) -> int:
        if not self._every:
            return 0
        last_is_extra = self.num_steps % self._every != 0
        return self.num_steps // self._every - step // self._every + last_is_extra
