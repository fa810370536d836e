"""The end of a run: the best weights, saved, proven loadable, and summed up."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sft.config import Config
from sft.disk import write_json
from sft.errors import CheckpointError
from sft.guards.base import verdicts
from sft.guards.indicators import indicators, learned_nothing
from sft.model.save import save_model, verify_model
from sft.probes.evaluator import Evaluation
from sft.remedies.blend import (
    adapter_ends,
    choose,
    interpolate,
    points_table,
    sweep,
    weights_of,
)
from sft.report.final_summary import show_ending
from sft.runs.best_step import rule_of
from sft.runs.history import history_of, newest, read_findings
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore, read_records
from sft.terminal.console import Console
from sft.training import checkpoint
from sft.training.identity import check_finished
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
    check_finished(run, config)
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
    step = chosen_step(setup)
    _restore(setup, run, step)
    blended = _blend_if_forgotten(setup, run, step, show)
    test = _score_test(setup, stores, step, show)
    _save(setup, run, show)
    verified = _verify(setup, run, step, blended, show)
    summary = _sum_up(setup, run, step, blended)
    summary = replace(summary, test=test, verified=verified)
    write_json(run.summary, asdict(summary))
    report(summary, run, show)
    return summary


def _restore(setup: Setup, run: RunDir, step: int) -> None:
    """Put the weights of `step` back into the model, unless it has them."""
    if step == setup.state.counters.step:
        return
    path = dict(checkpoint.find_checkpoints(run.checkpoints)).get(step)
    if path is None:
        raise CheckpointError(
            f"{run.checkpoints}: the checkpoint of step {step}, the best one, is gone; "
            "restore it, or choose another --run"
        )
    setup.state.load_model(checkpoint.load_checkpoint(path).tensors["model"])


@dataclass(frozen=True, slots=True)
class _Blended:
    """The share of the tuned model in the weights that are saved, and what they score."""

    alpha: float
    evaluation: Evaluation


def _blend_if_forgotten(setup: Setup, run: RunDir, step: int, show: Console) -> _Blended | None:
    """`guards.blend: auto`: mix the base model in if forgetting alarmed at the chosen step.

    None when nothing was done. What was tried stands in `blend.json`.
    """
    config, budget = setup.config, setup.config.guards.forgetting_budget
    probes = {probe.name: probe.examples for probe in setup.evaluator.probes}
    task, retain = probes.get("usage") or probes.get("val"), probes.get("retain")
    if config.guards.blend == "off" or not task or not retain or not _forgot(run, step):
        return None
    if config.method.kind != "lora":
        ends = setup.base_weights(), weights_of(setup.model)
    elif config.method.dora:
        show.note("guards.blend: DoRA updates cannot be scaled; nothing was done", level="warning")
        return None
    else:
        ends = adapter_ends(setup.model)
    set_alpha = partial(interpolate, setup.model, *ends)
    tokens = config.batch.micro_batch_tokens
    points = sweep(
        set_alpha,
        setup.forward,
        task,
        retain,
        micro_batch_tokens=tokens,
        budget=budget,
        on_progress=show.progress,
    )
    alpha = choose(points, budget).alpha
    show.table(points_table(points, alpha, budget))
    record = {"step": step, "budget": budget, "alpha": alpha}
    write_json(run.blend, {**record, "points": [asdict(point) for point in points]})
    if alpha == 0:  # the base model itself: not what training was for
        set_alpha(1.0)
        show.note("guards.blend: no blend gains anything within the budget; kept as trained")
        return None
    set_alpha(alpha)
    names = [name for name in probes if name != "test"]
    evaluation = setup.evaluator.evaluate(at_base=False, progress=show.progress, probes=names)
    return _Blended(alpha, evaluation)


def _forgot(run: RunDir, step: int) -> bool:
    """Did forgetting alarm at the evaluation of `step`?"""
    return any(
        finding.guard == "forgetting" and finding.primary and finding.verdict == "alarm"
        for finding in read_findings(run)
        if finding.step == step
    )


def _score_test(
    setup: Setup, stores: Mapping[str, RecordStore], step: int, show: Console
) -> dict[str, Any]:
    """Score the chosen weights on the rows that decided nothing, as an evaluation of its own."""
    if not any(probe.name == "test" and probe.examples for probe in setup.evaluator.probes):
        return {}
    evaluation = setup.evaluator.evaluate(at_base=False, progress=show.progress, probes=["test"])
    for score in evaluation.scores["test"]:
        stores["scores"].append(score.record(step, "test"))
    record = {"step": step, **evaluation.metrics()}
    stores["metrics"].append(record)
    return record


def _save(setup: Setup, run: RunDir, show: Console) -> None:
    show.progress("saving the model")
    save_model(
        setup.trained,
        setup.tokenizer,
        run.model,
        run.adapter,
        is_lora=setup.config.method.kind == "lora",
        dtype=setup.weights_dtype,
    )


def _verify(setup: Setup, run: RunDir, step: int, blended: _Blended | None, show: Console) -> str:
    """Load the saved model as others will, and compare its scores with those of this run."""
    show.progress("verifying the model")
    if blended is None:
        expected = {
            record["id"]: record["nll"]
            for record in read_records(run.scores)
            if record["step"] == step and record["probe"] == "val"
        }
    else:
        expected = {score.id: score.nll for score in blended.evaluation.scores.get("val", ())}
    exact = setup.config.model.dtype == "float32"
    return verify_model(
        run.model,
        setup.data.val,
        expected,
        setup.model.num_parameters(),
        setup.weights_dtype if exact else torch.bfloat16,
    )


def _sum_up(setup: Setup, run: RunDir, step: int, blended: _Blended | None) -> RunSummary:
    """What records, guards and indicators say of the whole run, and what measuring it took."""
    counters = setup.state.counters
    records = read_records(run.metrics)
    steps = [record for record in records if "loss" in record]
    evals = {record["step"]: record for record in records if EVAL_SECONDS in record}
    best = evals.get(step, {})
    if blended is not None:
        best = {"step": step, "blend_alpha": blended.alpha, **blended.evaluation.metrics()}
    history = history_of(run, setup.config, setup.num_steps)
    summary = RunSummary(
        run_dir=str(run.path),
        model_dir=str(run.model),
        steps=counters.step,
        best_step=step,
        stopped=counters.stopped,
        verified="",
        first=steps[0],
        last=steps[-1],
        base=evals.get(0, {}),
        best=best,
        headline=learned_nothing(history),
        eval_share=counters.eval_seconds / max(counters.eval_seconds + counters.seconds, 1e-9),
    )
    if not setup.config.guards.enabled:
        return summary
    return replace(
        summary,
        guards=[finding.record() for finding in verdicts(newest(read_findings(run))).values()],
        indicators=[asdict(indicator) for indicator in indicators(history)],
    )


def report(summary: RunSummary, run: RunDir, show: Console) -> None:
    """Print what happened, where the model lies, and what to type next."""
    losses = [record["loss"] for record in read_records(run.metrics) if "loss" in record]
    show_ending(asdict(summary), losses, show)
