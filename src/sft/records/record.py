"""The name, unit and meaning of every metric. One record is one line of `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `wall_clock` ones differ between two otherwise identical runs."""

    name: str
    unit: str
    meaning: str
    wall_clock: bool = False


_TABLE = (
    Metric("step", "steps", "Completed optimizer updates."),
    Metric(
        "loss",
        "nats per token",
        "Summed loss over all ranks and micro-batches of the step, divided by their trained "
        "tokens; before the update.",
    ),
    Metric(
        "loss_by_source",
        "nats per token",
        "As loss, for the rows of each source, by its name; only where there are several sources, "
        "and without those that have no row in the step.",
    ),
    Metric(
        "accuracy",
        "fraction",
        "Share of the step's trained tokens that the model, given the true text before them, "
        "ranks first.",
    ),
    Metric("perplexity", "choices", "exp(loss) of the same record."),
    Metric("learning_rate", "1", "Learning rate the step's update was made with."),
    Metric("epoch", "passes", "Training examples seen so far, divided by all training examples."),
    Metric(
        "train_flos",
        "FLOPs",
        "Model floating-point operations so far, by formula: no padding, no recomputation.",
    ),
    Metric("grad_norm", "1", "L2 norm of the gradient of all trained weights, before clipping."),
    Metric(
        "num_tokens", "tokens", "Real tokens processed so far: prompts and answers, no padding."
    ),
    Metric("num_trained_tokens", "tokens", "Tokens so far whose prediction counted in the loss."),
    Metric(
        "tokens_per_second",
        "tokens per second",
        "Real tokens of the step divided by its duration.",
        wall_clock=True,
    ),
    Metric(
        "val_loss",
        "nats per token",
        "Mean negative log-likelihood of the answer tokens of all validation rows that looks "
        "score, each token counted once.",
    ),
    Metric(
        "val_accuracy",
        "fraction",
        "Share of the validation set's answer tokens that the model, given the true text "
        "before them, ranks first.",
    ),
    Metric("val_perplexity", "choices", "exp(val_loss) of the same record."),
    Metric(
        "val_loss_by_source",
        "nats per token",
        "As val_loss, for the rows of each source, by its name; only where there are several "
        "sources.",
    ),
    Metric("seconds", "seconds", "Time spent training so far.", wall_clock=True),
    *(
        metric
        for probe, rows in (
            ("usage", "the user's own prompts with answers"),
            ("test", "the rows that decide nothing"),
        )
        for metric in (
            Metric(f"{probe}_loss", "nats per token", f"As val_loss, on {rows}."),
            Metric(f"{probe}_accuracy", "fraction", f"As val_accuracy, on {rows}."),
            Metric(f"{probe}_perplexity", "choices", f"exp({probe}_loss) of the same record."),
        )
    ),
    Metric("train_probe_loss", "nats per token", "As val_loss, on a fixed few training rows."),
    Metric(
        "usage_drift_loss",
        "nats per token",
        "As val_loss, of the base model's own answers to the usage prompts without answers.",
    ),
    Metric(
        "retain_loss",
        "nats per token",
        "As val_loss, on texts of the base model and those of `data.retain`.",
    ),
    Metric(
        "retain_kl",
        "nats per token",
        "KL(base || now) on the same texts: over the base's 64 likeliest tokens, and the rest.",
    ),
    Metric("look_seconds", "seconds", "Time this look took.", wall_clock=True),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}

# A value that is NaN or infinite is stored as null, beside a text under this longer name.
NONFINITE_SUFFIX = "_nonfinite"


def perplexity(mean_nll: float) -> float:
    """exp(mean_nll); infinite where that is larger than any float."""
    try:
        return math.exp(mean_nll)
    except OverflowError:
        return math.inf


def deterministic(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without its clock readings: equal for two identical runs."""
    clocks = {metric.name for metric in _TABLE if metric.wall_clock}
    return {
        name: value
        for name, value in record.items()
        if name.removesuffix(NONFINITE_SUFFIX) not in clocks
    }
