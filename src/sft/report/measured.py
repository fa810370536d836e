"""The looks of a run, kept up to date as its records grow; records of steps are passed over."""

from __future__ import annotations

from collections.abc import Sequence

from sft.report.files import Following, Kept, Record, number, section, whole
from sft.report.state import summary_of, tail
from sft.run_dir import RunDir

OBJECTIVES = ("usage_loss", "val_loss")  # the first that was measured chooses the step


def is_look(record: Record) -> bool:
    """Whether a record of `metrics.jsonl` is of a look; runs of old have no `look_seconds`."""
    return "loss" not in record and ("look_seconds" in record or "epoch" in record)


class Measured(Following):
    """The records of looks, in order; what is scored after the end is added to that of its step."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(run.metrics, keep=_not_of_a_step)
        self._looks: list[Record] = []

    def looks(self) -> tuple[list[Record], int]:
        """All looks so far, and the bytes of the file that they were read from."""
        with self.lock:
            self.update()
            return list(self._looks), self.offset

    def take(self, record: Record) -> None:
        """Keep a look; join what only has scores to the look at its step."""
        if is_look(record):
            self._looks.append(record)
            return
        for place, look in enumerate(self._looks):
            if look.get("step") == record.get("step"):
                self._looks[place] = {**look, **record}

    def clear(self) -> None:
        """Begin anew."""
        self._looks.clear()


_HELD = Kept(256)


def _not_of_a_step(line: bytes) -> bool:
    return b'"loss":' not in line


def looks_of(run: RunDir) -> list[Record]:
    """All looks of a run so far; quick when nothing changed."""
    return looks_and_offset(run)[0]


def looks_and_offset(run: RunDir) -> tuple[list[Record], int]:
    """All looks, and the bytes of `metrics.jsonl` they were read from."""
    return _HELD.get(run.path, lambda: Measured(run)).looks()


def last_step(run: RunDir) -> Record:
    """The newest record of a step; empty when there is none."""
    return next((r for r in reversed(tail(run.metrics)) if "loss" in r), {})


def objective_of(looks: Sequence[Record]) -> str | None:
    """The metric that the step is chosen by; None where none was measured."""
    return next((name for name in OBJECTIVES if any(name in look for look in looks)), None)


def best_of(run: RunDir, looks: Sequence[Record]) -> tuple[int | None, Record]:
    """The step whose weights are handed back, and its look; before the end the best look so far."""
    summary = summary_of(run)
    chosen = whole(summary.get("best_step"))
    if chosen is not None:
        known = next((look for look in looks if look.get("step") == chosen), {})
        return chosen, {**known, **section(summary, "best")}
    name = objective_of(looks)
    scored = [
        (loss, look)
        for look in looks
        if name
        and (whole(look.get("step")) or 0) > 0
        and (loss := number(look.get(name))) is not None
    ]
    if not scored:
        return None, {}
    best = min(scored, key=lambda pair: pair[0])[1]
    return whole(best.get("step")), best
