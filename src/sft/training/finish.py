"""The end of a run: the best weights, saved, proven loadable, and summed up."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sft.config import Config
from sft.config.differences import differences
from sft.disk import write_json
from sft.errors import CheckpointError
from sft.guards.base import verdicts
from sft.guards.indicators import indicators, learned_nothing
from sft.model.save import save_model, verify_model
from sft.report.final_summary import show_ending
from sft.runs.best_step import rule_of
from sft.runs.history import history_of, newest, read_findings
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore, read_records
from sft.terminal.console import Console
from sft.training import checkpoint
from sft.training.auto_blend import blend_if_forgotten
from sft.training.identity import saved_identity, without_place
from sft.training.setup import Setup

EVAL_SECONDS = "eval_seconds"  # only the record of an evaluation has it


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a finished run amounts to; also `summary.json` in the run folder.

    `first` and `last` are the first and the last training record; `base` and `best` the evaluation
    before training and the evaluation whose weights are in `model_dir` (empty without validation);
    `test` is what the chosen weights score on rows that decided nothing. `guards` has the verdict
    of each guard, `indicators` what to watch, `headline` what outweighs all of it (a run that
    learned nothing), and `eval_share` the share of time that evaluations took.
    """

    run_dir: str
    model_dir: str
    steps: int
    best_step: int
    stopped: str | None
    verified: str
    first: dict[str, Any]
    last: dict[str, Any]
    base: dict[str, Any]
    best: dict[str, Any]
    test: dict[str, Any] = field(default_factory=dict)
    guards: list[dict[str, Any]] = field(default_factory=list)
    indicators: list[dict[str, Any]] = field(default_factory=list)
    headline: str = ""
    eval_share: float | None = None


def run_folder(config: Config) -> Path:
    """`run.dir`, or `runs/<model>-<data>`."""
    if config.run.dir:
        return Path(config.run.dir).expanduser()
    data = Path(config.data.train[0].path).stem if config.data.train else "run"
    name = f"{Path(config.model.name).name}-{data}"
    return Path("runs") / (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run")


def finished(run: RunDir, config: Config, show: Console) -> RunSummary | None:
    """The summary of a run that is complete already, else None.

    Raises:
        CheckpointError: it was started with another config.
    """
    if not run.summary.is_file():
        return None
    identity = saved_identity(run)
    saved, files = identity["config"], identity.get("fingerprint", {}).get("files", {})
    asked = _known(config.model_dump(mode="json"), saved, identity.get("reasons", {}))
    changed = differences(without_place(saved), without_place(asked))
    changed += differences(files, _files_now(files))
    if changed:
        raise CheckpointError(
            f"{run.path}: holds a finished run of something else:\n  "
            + "\n  ".join(changed)
            + "\nNothing was changed; choose another --run"
        )
    try:
        summary = RunSummary(**json.loads(run.summary.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{run.summary}: not as it was written ({error}); delete it, and the same command "
            "writes it again"
        ) from None
    summary = replace(summary, run_dir=str(run.path), model_dir=str(run.model))  # it may have moved
    show.note(f"{run.path}: this run is finished; nothing to do")
    report(summary, run, show)
    return summary


def _files_now(files: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 the data files have now; what is no local file (any more) keeps its own."""
    now = dict(files)
    for path in filter(os.path.isfile, files):
        with open(path, "rb") as file:
            now[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return now


def _known(
    asked: dict[str, Any], saved: dict[str, Any], reasons: Mapping[str, str]
) -> dict[str, Any]:
    """`asked` with the value of the finished run wherever both leave the choice (`auto`)."""
    return {
        section: {
            key: saved.get(section, {}).get(key)
            if value == "auto" and f"{section}.{key}" in reasons
            else value
            for key, value in values.items()
        }
        for section, values in asked.items()
    }


def chosen_step(setup: Setup) -> int:
    """The step whose weights the run hands back, by `checkpoint.choose` and what guards did."""
    counters = setup.state.counters
    best = rule_of(setup.config).best_step(
        counters.evals,
        counters.over_budget,
        restore_best=counters.restore_best,
        keep_last=counters.keep_last,
    )
    return counters.step if best is None else best


def finish(
    setup: Setup, run: RunDir, stores: Mapping[str, RecordStore], show: Console
) -> RunSummary:
    """Put the best weights into `model/`, prove them, and write `summary.json`."""
    counters = setup.state.counters
    best_step = chosen_step(setup)
    if best_step != counters.step:
        _restore(setup, run, best_step)
    blended = blend_if_forgotten(setup, run, best_step, show)
    test = _score_test(setup, stores, best_step, show)
    records = read_records(run.metrics)
    evals = {record["step"]: record for record in records if EVAL_SECONDS in record}
    expected = {
        record["id"]: record["nll"]
        for record in read_records(run.scores)
        if record["step"] == best_step and record["probe"] == "val"
    }
    if blended is not None:
        evals[best_step] = {"step": best_step, "blend_alpha": blended[0], **blended[1].metrics()}
        expected = {score.id: score.nll for score in blended[1].scores.get("val", ())}
    steps = [record for record in records if "loss" in record]
    evidence = _evidence(setup, run)
    show.progress("saving the model")
    save_model(
        setup.trained,
        setup.tokenizer,
        run.model,
        run.adapter,
        is_lora=setup.config.method.kind == "lora",
        dtype=setup.weights_dtype,
    )
    show.progress("verifying the model")
    computed_in_fp32 = setup.config.model.dtype == "float32"
    verified = verify_model(
        run.model,
        setup.data.val,
        expected,
        setup.model.num_parameters(),
        setup.weights_dtype if computed_in_fp32 else torch.bfloat16,
    )
    summary = RunSummary(
        run_dir=str(run.path),
        model_dir=str(run.model),
        steps=counters.step,
        best_step=best_step,
        stopped=counters.stopped,
        verified=verified,
        first=steps[0],
        last=steps[-1],
        base=evals.get(0, {}),
        best=evals.get(best_step, {}),
        test=test,
        **evidence,
    )
    write_json(run.summary, asdict(summary))
    report(summary, run, show)
    return summary


def _restore(setup: Setup, run: RunDir, step: int) -> None:
    """Put the weights of `step` back into the model."""
    path = dict(checkpoint.find_checkpoints(run.checkpoints)).get(step)
    if path is None:
        raise CheckpointError(
            f"{run.checkpoints}: the checkpoint of step {step}, the best one, is gone; "
            "restore it, or choose another --run"
        )
    setup.state.load_model(checkpoint.load_checkpoint(path).tensors["model"])


def _score_test(
    setup: Setup, stores: Mapping[str, RecordStore], step: int, show: Console
) -> dict[str, Any]:
    """The chosen weights on the rows that decided nothing; recorded like an evaluation of its
    own.
    """
    if not any(probe.name == "test" and probe.examples for probe in setup.evaluator.probes):
        return {}
    evaluation = setup.evaluator.evaluate(at_base=False, progress=show.progress, probes=["test"])
    for score in evaluation.scores["test"]:
        stores["scores"].append(score.record(step, "test"))
    record = {"step": step, **evaluation.metrics()}
    stores["metrics"].append(record)
    return record


def _evidence(setup: Setup, run: RunDir) -> dict[str, Any]:
    """What guards and indicators say of the whole run, and what measuring it took."""
    counters = setup.state.counters
    share = counters.eval_seconds / max(counters.eval_seconds + counters.seconds, 1e-9)
    records = history_of(run, setup.config, setup.num_steps)
    if not setup.config.guards.enabled:
        return {"eval_share": share, "headline": learned_nothing(records)}
    return {
        "guards": [finding.record() for finding in verdicts(newest(read_findings(run))).values()],
        "indicators": [asdict(indicator) for indicator in indicators(records)],
        "headline": learned_nothing(records),
        "eval_share": share,
    }


def report(summary: RunSummary, run: RunDir, show: Console) -> None:
    """Print what happened, where the model lies, and what to type next."""
    losses = [record["loss"] for record in read_records(run.metrics) if "loss" in record]
    show_ending(asdict(summary), losses, show)
