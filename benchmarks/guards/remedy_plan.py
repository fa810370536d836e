"""Which remedy is tried on which planted pitfall, and on the healthy run C1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from plants import Rows
from pool import Draw, oracle

NUM_TEST = 72  # rows that decide nothing
NUM_TEST_TEXTS = 28
NUM_ADDED = 16  # usage-like rows among 64 training rows

# nothing: only trained. test: the test rows are scored after every fourth step as well.
# guards: the full probes, and the guards act. pack: trained only, with the probes at hand.
Evaluations = Literal["nothing", "test", "guards", "pack"]


@dataclass(frozen=True)
class Trial:
    """One run: a case with something done about it. `none` is the same without."""

    case: str
    action: str
    config: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[Rows, Draw], Rows] = lambda rows, _draw: rows
    evals: Evaluations = "nothing"
    needs_usage: bool = False
    same_if_equal_rows: bool = False  # where no row is changed, the run is that without

    @property
    def name(self) -> str:
        """The stem of its record, without the seed."""
        return f"{self.case}-{self.action}"


def add_usage_rows(rows: Rows, draw: Draw) -> Rows:
    """A quarter of the training rows are like usage (none of them is a usage or a test row)."""
    return replace(rows, train=rows.train[:-NUM_ADDED] + draw.general(NUM_ADDED))


def test_rows(case: str) -> dict[str, list[dict[str, str]]]:
    """Rows and texts that decide nothing, by probe; no run draws them for anything else."""
    general, maths = oracle("general")[:NUM_TEST], oracle("maths")[:NUM_TEST]
    texts = oracle("text")[:NUM_TEST_TEXTS]
    return {
        "P3": {"usage": general, "val": maths[: NUM_TEST // 2]},
        "P4": {"val": maths, "texts": texts},
    }.get(case, {"usage": general})


_RESTORE = Trial("", "restore_best", {"guards.overfitting": "restore_best"}, evals="guards")
_NEFTUNE = Trial("", "neftune", {"optim.neftune_alpha": 5.0})
_DROPOUT = Trial("", "dropout", {"optim.dropout": 0.1})
_STRIP = Trial("", "strip", {"data.openers": "strip"}, same_if_equal_rows=True)
_DROP = Trial("", "drop", {"data.openers": "drop"}, same_if_equal_rows=True)
_SELECT = Trial("", "select", {"data.select_rows": 32})
_ADDED = Trial("", "usage_rows", change=add_usage_rows)
_WEIGHTED = Trial(
    "", "weighting", {"data.usage_weighting": True}, change=add_usage_rows, needs_usage=True
)
_REPLAY = Trial("", "replay", {"data.replay": 0.1})
_RETAIN = Trial("", "retain_kl", {"optim.retain_kl": 1.0})


def _on(case: str, *trials: Trial) -> tuple[Trial, ...]:
    return tuple(replace(trial, case=case) for trial in trials)


def _lower(case: str, rate: float) -> Trial:
    return Trial(case, "lr_fifth", {"optim.learning_rate": rate})


# In this order: what hangs on a criterion first. `P4-none` and `C1-none` also give `blend`.
TRIALS: tuple[Trial, ...] = (
    Trial("P1", "none", evals="test"),
    *_on("P1", _RESTORE),
    Trial("P2", "none"),
    *_on("P2", _STRIP),
    Trial("P3", "none"),
    *_on("P3", _ADDED, _WEIGHTED),
    Trial("P4", "none", evals="pack"),
    _lower("P4", 2e-4),
    *_on("P4", _REPLAY),
    Trial("C1", "none", evals="pack"),
    *_on("C1", _RESTORE, _STRIP, _ADDED, _WEIGHTED),
    _lower("C1", 4e-6),
    *_on("C1", _REPLAY),
    *_on("P4", _RETAIN),
    *_on("C1", _RETAIN),
    *_on("P1", _NEFTUNE, _DROPOUT),
    *_on("C1", _NEFTUNE, _DROPOUT),
    *_on("P2", _DROP, _SELECT),
    *_on("C1", _DROP, _SELECT),
)
