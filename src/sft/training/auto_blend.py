"""`guards.blend: auto`: when the chosen weights forgot too much, mix the base model back in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

import torch

from sft.disk import write_json
from sft.probes.evaluator import Evaluation
from sft.remedies.blend import (
    adapter_ends,
    choose,
    interpolate,
    points_table,
    sweep,
    weights_of,
)
from sft.runs.history import read_findings
from sft.runs.run_dir import RunDir
from sft.terminal.console import Console
from sft.training.setup import Setup

Weights = Mapping[str, torch.Tensor]


def blend_if_forgotten(
    setup: Setup, run: RunDir, step: int, show: Console
) -> tuple[float, Evaluation] | None:
    """Blend the weights of the evaluation at `step`, which the model holds, if forgetting alarmed
    there.

    Returns the share of the tuned model and what the blend scores; None when nothing was done.
    What was tried stands in `blend.json`.
    """
    config = setup.config
    probes = {probe.name: probe.examples for probe in setup.evaluator.probes}
    task, retain = probes.get("usage") or probes.get("val"), probes.get("retain")
    if config.guards.blend == "off" or not task or not retain or not _alarmed(run, step):
        return None
    ends = _ends(setup, show)
    if ends is None:
        return None
    set_alpha = partial(interpolate, setup.model, *ends)
    points = sweep(
        set_alpha,
        setup.forward,
        task,
        retain,
        micro_batch_tokens=config.batch.micro_batch_tokens,
        budget=config.guards.forgetting_budget,
        on_progress=show.progress,
    )
    budget = config.guards.forgetting_budget
    chosen = choose(points, budget)
    show.table(points_table(points, chosen.alpha, budget))
    found = {"step": step, "budget": budget, "alpha": chosen.alpha}
    write_json(run.blend, {**found, "points": [asdict(point) for point in points]})
    if chosen.alpha == 0:  # the base model itself: not what training was for
        set_alpha(1.0)
        show.note("guards.blend: no blend gains anything within the budget; kept as trained")
        return None
    set_alpha(chosen.alpha)
    names = [name for name in probes if name != "test"]
    return chosen.alpha, setup.evaluator.evaluate(
        at_base=False, progress=show.progress, probes=names
    )


def _alarmed(run: RunDir, step: int) -> bool:
    """Did forgetting alarm at the evaluation whose weights were chosen?"""
    return any(
        finding.guard == "forgetting" and finding.primary and finding.verdict == "alarm"
        for finding in read_findings(run)
        if finding.step == step
    )


def _ends(setup: Setup, show: Console) -> tuple[Weights, Weights] | None:
    """The base weights and the tuned ones; None where there is nothing to scale."""
    if setup.config.method.kind != "lora":
        return setup.base_weights(), weights_of(setup.model)
    if setup.config.method.dora:
        show.note("guards.blend: DoRA updates cannot be scaled; nothing was done", level="warning")
        return None
    return adapter_ends(setup.model)
