"""Everything in a run folder that the report is made of, read tolerantly.

A file may be missing, torn or of another shape: then its part is empty, and `problems` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft.config import read_config
from sft.errors import SFTError
from sft.runs.best_step import BestStep, best_step
from sft.runs.evaluations import is_eval
from sft.runs.files import json_object, number, whole
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.runs.state import RunState, run_state

Record = dict[str, Any]
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
        return part(self.identity, "config")

    def setting(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key of the config."""
        section, _, name = key.partition(".")
        return part(self.config, section).get(name, default)

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
        return number(part(self.summary, "best").get("blend_alpha"))


def part(record: Any, name: str) -> Record:
    """A section of a record; empty where there is none, or something else."""
    found = record.get(name) if isinstance(record, Mapping) else None
    return found if isinstance(found, dict) else {}


def items(record: Any, name: str) -> list[Any]:
    """A list in a record; empty where there is none, or something else."""
    found = record.get(name) if isinstance(record, Mapping) else None
    return list(found) if isinstance(found, list | tuple) else []


def objects(record: Any, name: str) -> list[Record]:
    """The objects in a list of a record."""
    return [item for item in items(record, name) if isinstance(item, dict)]


def read_run(run: RunDir) -> RunRecords:
    """Read the folder `run`. Raises nothing for what is in it."""
    problems: list[str] = []
    read = _Reader(problems)
    events = read.lines(run.events)
    evals, tested, steps, ends = _metrics(read, run.metrics)
    return RunRecords(
        run=run,
        state=run_state(run),
        identity=read.yaml(run.config),
        summary=read.json(run.summary),
        account=read.json(run.account),
        preflight=read.json(run.preflight),
        examples=read.json(run.examples),
        blend=read.json(run.blend),
        evals=evals,
        tested=tested,
        steps=steps,
        first=ends[0],
        last=ends[1],
        scores=read.lines(run.scores),
        samples=read.lines(run.samples),
        findings=read.lines(run.findings),
        events=events,
        evaluations=_evaluations(read, run),
        problems=problems,
    )


def _evaluations(read: _Reader, run: RunDir) -> dict[str, Record]:
    try:
        paths = sorted(run.path.glob("eval-*.json"))[:_MOST_EVALUATIONS]
    except OSError:
        return {}
    found = {path.name: read.json(path) for path in paths}
    return {name: record for name, record in found.items() if record}


def _metrics(
    read: _Reader, path: Path
) -> tuple[dict[int, Record], Record, int, tuple[Record, Record]]:
    """Evaluations by step, the record of test rows, the number of steps, the first and last."""
    evals: dict[int, Record] = {}
    tested: Record = {}
    steps: set[int] = set()
    first: Record = {}
    last: Record = {}
    for record in read.each(path):
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
    return dict(sorted(evals.items())), tested, len(steps), (first, last)


class _Reader:
    """Reads files of a run, and notes what could not be read."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def json(self, path: Path) -> Record:
        """The object in a file; empty when there is none."""
        if not self._there(path):
            return {}
        try:
            return json_object(path)
        except SFTError as error:
            self._problems.append(str(error))
            return {}

    def yaml(self, path: Path) -> Record:
        """What `config.yaml` says."""
        if not self._there(path):
            return {}
        try:
            return read_config(path)
        except SFTError as error:
            self._problems.append(str(error))
            return {}

    def lines(self, path: Path) -> list[Record]:
        """All whole records of a file."""
        return list(self.each(path))

    def each(self, path: Path) -> Iterator[Record]:
        """The whole records of a file, a few megabytes at a time."""
        if self._there(path):
            yield from each_record(path)

    def _there(self, path: Path) -> bool:
        """Is it a file? Reading a pipe or a device may never end."""
        try:
            if path.is_file():
                return True
            if path.exists():
                self._problems.append(f"{path.name}: not a regular file")
        except (OSError, ValueError) as error:
            self._problems.append(f"{path.name}: cannot be read ({error})")
        return False
