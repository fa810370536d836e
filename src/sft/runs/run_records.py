"""Everything in a run folder that the report is made of, read tolerantly.

A file may be missing, torn or of another shape: then its part is empty, and `problems` says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft.runs.best_step import BestStep, best_step
from sft.runs.evaluations import is_eval
from sft.runs.files import Record, identity, json_object, number, readable, section, whole
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.runs.state import RunState, run_state

PROBES = ("test", "usage", "val")  # held-out rows, those that decide least first
_MOST_EVALUATIONS = 20


@dataclass(frozen=True, slots=True)
class RunRecords:
    """The records of one run. `state` is how it stands; `problems` what could not be read.

    `steps` is the number of completed steps, `evals` the records of evaluations by step (the newest
    of a step), `tested` the record of the rows that decide nothing, after the run.
    """

    run: RunDir
    state: RunState
    identity: Record
    summary: Record
    account: Record
    preflight: Record
    examples: Record
    blend: Record
    evals: Mapping[int, Record]
    tested: Record
    steps: int
    first: Record
    last: Record
    scores: Sequence[Record]
    samples: Sequence[Record]
    findings: Sequence[Record]
    events: Sequence[Record]
    evaluations: Mapping[str, Record]
    problems: Sequence[str] = field(default_factory=tuple)

    @property
    def config(self) -> Record:
        """The resolved config, as a tree."""
        return section(self.identity, "config")

    def setting(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key of the config."""
        group, _, name = key.partition(".")
        return section(self.config, group).get(name, default)

    @property
    def finished(self) -> bool:
        """Is the run complete?"""
        return self.state.state == "finished"

    @property
    def chosen(self) -> int | None:
        """The step whose weights the run handed back; None while it has not."""
        return whole(self.summary.get("best_step")) if self.finished else None

    @property
    def compared(self) -> int | None:
        """The step to compare with the base: the chosen one, else that of the newest evaluation."""
        if self.chosen is not None:
            return self.chosen
        return max((step for step in self.evals if step > 0), default=None)

    @property
    def best(self) -> BestStep:
        """The step whose weights are handed back, or would be if the run ended now."""
        return best_step(self.run, list(self.evals.values()))

    @property
    def blended(self) -> float | None:
        """The share of the tuned weights, where `guards.blend` mixed the base model back in."""
        return number(section(self.summary, "best").get("blend_alpha"))


def read_run(run: RunDir) -> RunRecords:
    """Read the folder `run`. Raises nothing for what is in it."""
    paths = (run.summary, run.account, run.preflight, run.examples, run.blend)
    lines = (run.scores, run.samples, run.findings, run.events)
    odd = [  # reading a pipe or a device may never end
        path
        for path in (run.config, run.metrics, *paths, *lines)
        if os.path.exists(path) and not os.path.isfile(path)
    ]
    problems = [f"{path.name}: not a regular file" for path in odd]
    summary, account, preflight, examples, blend = (
        {} if path in odd else readable(json_object, path, problems) for path in paths
    )
    scores, samples, findings, events = (list(each_record(path)) for path in lines)
    return RunRecords(
        run=run,
        state=run_state(run),
        identity=readable(identity, run, problems),
        summary=summary,
        account=account,
        preflight=preflight,
        examples=examples,
        blend=blend,
        **_metrics(run.metrics),
        scores=scores,
        samples=samples,
        findings=findings,
        events=events,
        evaluations=_evaluations(run, problems),
        problems=problems,
    )


def _evaluations(run: RunDir, problems: list[str]) -> dict[str, Record]:
    try:
        paths = sorted(run.path.glob("eval-*.json"))[:_MOST_EVALUATIONS]
    except OSError:
        return {}
    records = {path.name: readable(json_object, path, problems) for path in paths}
    return {name: record for name, record in records.items() if record}


def _metrics(path: Path) -> dict[str, Any]:
    """The fields of `RunRecords` that are from `metrics.jsonl`, of which steps are nearly all."""
    evals: dict[int, Record] = {}
    tested: Record = {}
    steps: set[int] = set()
    first: Record = {}
    last: Record = {}
    for record in each_record(path):
        step = whole(record.get("step"))
        if step is None:
            continue
        if "loss" in record:
            steps.add(step)
            first, last = first or record, record
        elif is_eval(record):
            evals[step] = record
        elif any(str(name).startswith("test_") for name in record):
            tested = record
    by_step = dict(sorted(evals.items()))
    return {"evals": by_step, "tested": tested, "steps": len(steps), "first": first, "last": last}
