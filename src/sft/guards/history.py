"""`History`: the records of a run as tables, which is all that guards see."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft.guards.base import GuardSettings

Array = NDArray[np.float64]

_KEYS = ("step", "probe", "id")
# Its rows decide nothing, so guards do not see them; they are scored when the run has ended, under
# the step of the weights chosen, which was judged long before.
TEST = "test"


@dataclass(frozen=True, slots=True)
class Table:
    """The scores of one probe: `columns[name]` is `[num_evals, num_examples]`, NaN where absent.

    Evaluations are in the order of `steps`, examples in that of `ids`. The columns are those of
    `scores.jsonl` (docs/metrics.md): `nll`, `tokens`, `bytes`, `correct` and, where measured,
    `first_*`, `kl*` and `surface_*`.
    """

    steps: tuple[int, ...]
    ids: tuple[str, ...]
    columns: Mapping[str, Array]

    def column(self, name: str) -> Array:
        """`[num_evals, num_examples]`; all NaN when nothing of this name was recorded."""
        empty = np.full((len(self.steps), len(self.ids)), math.nan)
        return self.columns.get(name, empty)

    @property
    def loss(self) -> Array:
        """Mean nll per token of each example, `[num_evals, num_examples]`."""
        return self.column("nll") / self.column("tokens")

    def at(self, step: int) -> Table:
        """Only the evaluations up to `step`."""
        keep = sum(s <= step for s in self.steps)
        columns = {name: values[:keep] for name, values in self.columns.items()}
        return Table(self.steps[:keep], self.ids, columns)

    def rows(self, index: Sequence[int] | NDArray[np.int64]) -> Table:
        """Only the examples at `index`, repeats allowed; used to resample."""
        index = np.asarray(index, dtype=np.int64)
        ids = tuple(self.ids[i] for i in index)
        return Table(self.steps, ids, {n: v[:, index] for n, v in self.columns.items()})


@dataclass(frozen=True, slots=True)
class History:
    """Everything recorded about a run so far.

    `tables` has an entry for each probe that was scored; `metrics` are the lines of
    `metrics.jsonl`, `samples` those of `samples.jsonl`, and `preflight` what was measured on the
    data before training.
    """

    settings: GuardSettings
    metrics: Sequence[Mapping[str, Any]] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    preflight: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The newest step that anything was recorded for."""
        steps = [int(record["step"]) for record in self.metrics]
        steps += [step for table in self.tables.values() for step in table.steps]
        return max(steps, default=0)

    @property
    def eval_steps(self) -> tuple[int, ...]:
        """Steps after which any probe was scored, in order."""
        return tuple(sorted({step for table in self.tables.values() for step in table.steps}))

    @property
    def newest(self) -> int:
        """The step that a verdict is about: of the newest evaluation, else of the newest record."""
        steps = self.eval_steps
        return steps[-1] if steps else self.step

    def table(self, probe: str) -> Table | None:
        """The scores of `probe`, or None when it was never scored."""
        return self.tables.get(probe)

    def series(self, name: str) -> tuple[Array, Array]:
        """Steps and values of the training records that have `name`, both `[num_records]`.

        A value that was not finite is NaN.
        """
        records = [record for record in self.metrics if name in record and "loss" in record]
        steps = np.array([record["step"] for record in records], dtype=float)
        return steps, np.array([record[name] for record in records], dtype=float)

    def losses(self) -> tuple[Array, Array]:
        """Steps and training losses, both `[num_steps]`; a value that was not finite is NaN."""
        return self.series("loss")

    def at(self, step: int) -> History:
        """The history as it stood after the evaluation at `step`."""
        return replace(
            self,
            metrics=[record for record in self.metrics if record["step"] <= step],
            tables={
                name: table.at(step)
                for name, table in self.tables.items()
                if table.steps and table.steps[0] <= step
            },
            samples=[sample for sample in self.samples if sample["step"] <= step],
        )


def history(
    settings: GuardSettings,
    metrics: Sequence[Mapping[str, Any]] = (),
    scores: Sequence[Mapping[str, Any]] = (),
    samples: Sequence[Mapping[str, Any]] = (),
    preflight: Mapping[str, Any] | None = None,
) -> History:
    """The history that these records tell. An evaluation that was cut short is left out."""
    by_probe: dict[str, list[Mapping[str, Any]]] = {}
    for score in scores:
        if score["probe"] != TEST:
            by_probe.setdefault(str(score["probe"]), []).append(score)
    tables = {probe: _table(rows) for probe, rows in by_probe.items()}
    return History(settings, list(metrics), tables, list(samples), preflight or {})


def row_loss(score: Mapping[str, Any]) -> float | None:
    """Nats per token of one row of `scores.jsonl`; None where the row cannot be used.

    The one rule for every reader: `nll` has to be a finite number (what was not is recorded as
    null), and `tokens` a number above 0. A row that cannot be used is absent, never 0.
    """
    nll, tokens = (_number(score.get(name)) for name in ("nll", "tokens"))
    return None if nll is None or tokens is None or tokens <= 0 else nll / tokens


def usable_rows(
    scores: Iterable[Mapping[str, Any]], probe: str
) -> dict[int, dict[str, Mapping[str, Any]]]:
    """The scores of `probe` that have a `row_loss`, by step and id."""
    usable: dict[int, dict[str, Mapping[str, Any]]] = {}
    for score in scores:
        step = _number(score.get("step"))
        if score.get("probe") == probe and step is not None and row_loss(score) is not None:
            usable.setdefault(int(step), {})[str(score.get("id"))] = score
    return usable


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if known else None


def _table(scores: Sequence[Mapping[str, Any]]) -> Table:
    counts = Counter(int(score["step"]) for score in scores)
    # A reader can come by while an evaluation is being written; every evaluation scores the same
    # examples.
    steps = sorted(step for step, count in counts.items() if count >= max(counts.values()))
    scores = [score for score in scores if int(score["step"]) in set(steps)]
    ids = list(dict.fromkeys(str(score["id"]) for score in scores))
    row = {step: i for i, step in enumerate(steps)}
    place = {name: i for i, name in enumerate(ids)}
    names = {name for score in scores for name in score if name not in _KEYS}
    columns = {name: np.full((len(steps), len(ids)), math.nan) for name in sorted(names)}
    for score in scores:
        i, j = row[int(score["step"])], place[str(score["id"])]
        usable = row_loss(score) is not None
        for name, value in score.items():
            if name == "nll" and not usable:
                continue
            if name in columns and isinstance(value, int | float):
                columns[name][i, j] = value
    return Table(tuple(steps), tuple(ids), columns)
