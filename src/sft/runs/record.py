"""The name, unit and meaning of every metric. One record is one line of `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `wall_clock` ones differ between two otherwise identical runs.

    `watch` says in a sentence what to look out for; empty where there is nothing to say.
    """

    name: str
    unit: str
    meaning: str
    wall_clock: bool = False
    watch: str = ""


_TABLE = (
    Metric("step", "steps", "Completed optimizer updates."),
    Metric(
        "loss",
        "nats per token",
        "Summed loss over all ranks and micro-batches of the step, divided by their trained "
        "tokens; before the update.",
        watch="It should fall quickly, then steadily: flat from the start means a rate that is "
        "too low or nothing to learn, jumps mean a rate that is too high or a broken row.",
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
        watch="It should rise while loss falls; near 1 on few rows seen often, the model knows "
        "them by heart. It is not the share of right answers.",
    ),
    Metric(
        "perplexity",
        "choices",
        "exp(loss) of the same record.",
        watch="It should drop as loss does: 3 means as unsure as between three equal choices.",
    ),
    Metric(
        "learning_rate",
        "1",
        "Learning rate the step's update was made with.",
        watch="It should rise during warm-up and then follow its schedule; compare it with the "
        "loss where that jumps or goes flat.",
    ),
    Metric(
        "epoch",
        "passes",
        "Training examples seen so far, divided by all training examples.",
        watch="Past one pass rows are seen again: watch whether val_loss turns up while loss goes "
        "on falling.",
    ),
    Metric(
        "train_flos",
        "FLOPs",
        "Model floating-point operations so far, by formula: no padding, no recomputation.",
        watch="It grows about in proportion to the tokens; use it to compare what two runs cost.",
    ),
    Metric(
        "grad_norm",
        "1",
        "L2 norm of the gradient of all trained weights, before clipping.",
        watch="Some noise is normal; single spikes point to odd rows, a lasting rise often to a "
        "learning rate that is too high; 0 means that nothing is trained.",
    ),
    Metric(
        "num_tokens", "tokens", "Real tokens processed so far: prompts and answers, no padding."
    ),
    Metric("num_trained_tokens", "tokens", "Tokens so far whose prediction counted in the loss."),
    Metric(
        "tokens_per_second",
        "tokens per second",
        "Real tokens of the step divided by its duration.",
        wall_clock=True,
        watch="It should stay level apart from noise; a lasting drop means that the machine is "
        "shared, throttled or short of memory.",
    ),
    Metric(
        "val_loss",
        "nats per token",
        "Mean negative log-likelihood of the answer tokens of all validation rows that evaluations "
        "score, each token counted once.",
        watch="It should fall to a plateau; when it turns up while loss goes on falling, the "
        "model learns rows by heart.",
    ),
    Metric(
        "val_accuracy",
        "fraction",
        "Share of the validation set's answer tokens that the model, given the true text "
        "before them, ranks first.",
        watch="It should rise and level off; a gap to accuracy that keeps growing means learning "
        "by heart.",
    ),
    Metric(
        "val_perplexity",
        "choices",
        "exp(val_loss) of the same record.",
        watch="It should drop to a plateau, as val_loss does, of which it is another scale.",
    ),
    Metric(
        "val_loss_by_source",
        "nats per token",
        "As val_loss, for the rows of each source, by its name; only where there are several "
        "sources.",
    ),
    Metric("seconds", "seconds", "Time spent training so far.", wall_clock=True),
    *(
        metric
        for probe, rows, watch in (
            (
                "usage",
                "the user's own prompts with answers",
                "It should fall along with val_loss; when only val_loss falls, the training rows "
                "are not like the prompts of real use.",
            ),
            (
                "test",
                "the rows that decide nothing",
                "It tells how good the model is: nothing was chosen by it, so compare its last "
                "value with that of the base model.",
            ),
        )
        for metric in (
            Metric(f"{probe}_loss", "nats per token", f"As val_loss, on {rows}.", watch=watch),
            Metric(f"{probe}_accuracy", "fraction", f"As val_accuracy, on {rows}."),
            Metric(f"{probe}_perplexity", "choices", f"exp({probe}_loss) of the same record."),
        )
    ),
    Metric(
        "train_probe_loss",
        "nats per token",
        "As val_loss, on a fixed few training rows.",
        watch="Its gap to val_loss is normal while small; a gap that widens means that the model "
        "learns its training rows by heart.",
    ),
    Metric(
        "usage_drift_loss",
        "nats per token",
        "As val_loss, of the base model's own answers to the usage prompts without answers.",
        watch="It rises as the model moves away from the base model; it does not say whether that "
        "is for the better.",
    ),
    Metric(
        "retain_loss",
        "nats per token",
        "As val_loss, on texts of the base model and those of `data.retain`.",
        watch="It should stay level: a rise above `guards.forgetting_budget` means that the model "
        "forgets what the base model could do.",
    ),
    Metric(
        "retain_kl",
        "nats per token",
        "KL(base || now) on the same texts: over the base's 64 likeliest tokens, and the rest.",
        watch="It should stay small and level off; it grows as the model moves away from the base "
        "model.",
    ),
    Metric(
        "eval_seconds",
        "seconds",
        "Time this evaluation took.",
        wall_clock=True,
        watch="Evaluations should stay within `eval.budget` of the training time.",
    ),
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
