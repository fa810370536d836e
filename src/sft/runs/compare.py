"""`sft compare`: two runs on the same held-out rows, row by row. Reads records; needs no torch.

The rows of one probe differ far more from each other than one row differs between two runs, so
each row is compared with itself: d = loss in B - loss in A, nats per token of the answer, every row
counting once. The test is the paired one of the guards (`sft.guards.statistics.paired`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sft.config import read_config
from sft.errors import ConfigError, DataError
from sft.guards.history import row_loss, usable_rows
from sft.guards.statistics import minimum_detectable_effect, paired
from sft.runs.best_step import best_step
from sft.runs.evaluations import evals_of
from sft.runs.files import json_object, whole
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records

FEWEST = 8  # rows in common: with fewer no pattern of signs is rare enough
LEVEL = 0.025  # of each side: 5 % for "they differ"
PROBES = ("val", "usage", "test", "retain")

Verdict = Literal["better", "worse", "no difference seen"]
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What B is compared with A, on the `n` rows that both scored.

    Losses and differences are means over rows of nats per token; below 0, B is better.
    `interval` covers the true difference in 95 of 100 cases. `p_better` is the one-sided chance
    of so large a gain of B if there were none, `p_worse` the same of a loss. `mde` is the
    difference that would have been called one four times in five (None: none ever).
    """

    run_a: str
    run_b: str
    probe: str
    step_a: int
    step_b: int
    n: int
    loss_a: float
    loss_b: float
    difference: float
    interval: tuple[float, float]
    p_better: float
    p_worse: float
    mde: float | None
    verdict: Verdict
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As JSON: an interval without an end is null."""
        bounded = all(map(math.isfinite, self.interval))
        return {**asdict(self), "interval": list(self.interval) if bounded else None}


@dataclass(frozen=True, slots=True)
class _Side:
    """One run: the step it hands back, the rows of the probe there by id, and what it was."""

    path: Path
    step: int
    rows: Mapping[str, Record]
    config: Mapping[str, Any]
    blended: bool
    chosen_by: str  # the probe that the step was chosen on

    def fingerprint(self, name: str) -> Any:
        return (self.config.get("fingerprint") or {}).get(name)


def compare(run_a: str | Path, run_b: str | Path, probe: str = "val") -> Comparison:
    """Compare two finished runs on the rows of `probe` that both scored.

    Raises:
        ConfigError: a run is not there, has not finished, or was not scored on `probe`.
        DataError: too few rows in common, or rows that are not the same in both.
    """
    a, b = (_side(RunDir.find(run), probe) for run in (run_a, run_b))
    names = [name for name in a.rows if name in b.rows]
    if len(names) < FEWEST:
        raise DataError(_too_few(a, b, probe, len(names)))
    _refuse_other_rows(a, b, names)
    before, after = ([row_loss(side.rows[name]) or 0.0 for name in names] for side in (a, b))
    delta = [later - earlier for earlier, later in zip(before, after, strict=True)]
    worse, better = paired(delta), paired([-value for value in delta])
    # Of the size alone, so that it is the same for both sides.
    mde = minimum_detectable_effect(worse.sd, worse.n, LEVEL)
    return Comparison(
        run_a=str(a.path),
        run_b=str(b.path),
        probe=probe,
        step_a=a.step,
        step_b=b.step,
        n=len(names),
        loss_a=sum(before) / len(before),
        loss_b=sum(after) / len(after),
        difference=worse.mean,
        interval=worse.interval,
        p_better=better.p,
        p_worse=worse.p,
        mde=mde if mde < float("inf") else None,
        verdict=_verdict(better.p, worse.p),
        notes=_notes(a, b, probe, len(names)),
    )


def _verdict(p_better: float, p_worse: float) -> Verdict:
    if p_better < LEVEL:
        return "better"
    return "worse" if p_worse < LEVEL else "no difference seen"


def _side(run: RunDir, probe: str) -> _Side:
    step = _best_step(run)
    scores = read_records(run.scores)
    rows = usable_rows(scores, probe).get(step, {})
    if not rows:
        scored = sorted({str(record.get("probe")) for record in scores} & set(PROBES))
        raise ConfigError(
            f"{run.path}: nothing was scored on {probe} at step {step}; "
            f"scored were: {', '.join(scored) or 'none'}"
        )
    best = best_step(run, evals_of(run))
    config = read_config(run.config)
    return _Side(run.path, step, rows, config, "blend_alpha" in best.record, best.probe)


def _best_step(run: RunDir) -> int:
    """The step that a finished run hands back, as its `summary.json` says."""
    if not run.summary.is_file():
        raise ConfigError(
            f"{run.path}: this run has not finished (no summary.json); the command that started "
            "it continues it"
        )
    step = whole(json_object(run.summary).get("best_step"))
    if step is None:
        raise DataError(f"{run.summary}: not as it was written (no best_step); restore it")
    return step


def _too_few(a: _Side, b: _Side, probe: str, num: int) -> str:
    text = (
        f"{a.path} and {b.path}: {num} rows of {probe} were scored in both, and a comparison "
        f"needs {FEWEST} or more ({len(a.rows)} in the first, {len(b.rows)} in the second"
    )
    if not num and a.rows and b.rows:
        text += f"; such as {next(iter(a.rows))} and {next(iter(b.rows))}"
    return (
        f"{text}). Rows are known by file and line: give both runs the same files, by the same "
        "paths, and the same seed, or the same --val"
    )


def _refuse_other_rows(a: _Side, b: _Side, names: Sequence[str]) -> None:
    """Raise `DataError` unless the rows of one name are the same rows.

    A loss per token can be compared only where the tokens are the same.
    """
    for column, what in (("tokens", "tokens"), ("bytes", "bytes of answer")):
        other = [n for n in names if a.rows[n].get(column) != b.rows[n].get(column)]
        if other:
            name = other[0]
            raise DataError(
                f"{a.path} and {b.path}: {len(other)} of {len(names)} rows have other {what}, such "
                f"as {name} ({a.rows[name].get(column)} and {b.rows[name].get(column)}): another "
                "tokenizer, chat template, length limit or file, so losses per token cannot be "
                "compared"
            )
    files = [side.fingerprint("files") or {} for side in (a, b)]
    for path in sorted({_source(name, files[0]) for name in names} - {""}):
        if path in files[1] and files[0][path] != files[1][path]:
            raise DataError(
                f"{a.path} and {b.path}: {path} was not the same file in both, so its lines are "
                "not the same rows"
            )


def _source(name: str, files: Mapping[str, str]) -> str:
    """The file of an example's id (`file:line`, and what may follow), where it is known."""
    while ":" in name:
        name = name.rpartition(":")[0]
        if name in files:
            return name
    return ""


def _notes(a: _Side, b: _Side, probe: str, num: int) -> list[str]:
    notes = []
    if a.fingerprint("model") != b.fingerprint("model"):
        notes.append("the runs started from different models")
    if a.fingerprint("template") != b.fingerprint("template"):
        notes.append("the runs used different chat templates")
    for side in (a, b):
        if side.blended:
            notes.append(
                f"{side.path}: its model was blended with the base model; compared are the weights "
                "before that"
            )
    if left := max(len(a.rows), len(b.rows)) - num:
        notes.append(f"{left:,} rows were scored in one run only and are left out")
    if probe in (a.chosen_by, b.chosen_by):
        notes.append(
            f"the best evaluation on {probe} chose the step, which makes both a little too good; "
            "rows of data.test decide nothing"
        )
    return notes
