"""Every metric, declared once: what it is, and how it is shown.

The terminal, the page, the report, the trackers and the table of docs/metrics.md all read
`METRICS`. One record is one line of `metrics.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

# How a value is written: four significant digits, a percentage, a whole number, `1.2 T`.
Format = Literal["number", "percent", "count", "large"]
# The y axis of a chart: around the values, from 0, logarithmic, or from 0 to 1.
Axis = Literal["values", "from_zero", "log", "share"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Only `name`, `unit` and `meaning` are needed.

    `of` is the kind of record it stands in. `watch` says in a sentence what to look out for, and
    `better` in which direction it improves. `wall_clock` ones differ between two otherwise
    identical runs.

    `panel` is the chart of page and report that it is drawn in, by the name of the chart's
    first metric: its own name for a chart of its own. `smooth`: the chart has a smoothed line too.
    `report`: the report draws the chart, too. `ending`: it has a row in the table at the end of a
    run. `live` is its rank among what the terminal shows while training, 1 what can be spared
    least, under `label`; 0: it is not shown.

    `derive` computes it from the other values of its record, None where they are not there. A
    metric without it is put into the record where it is measured.
    """

    name: str
    unit: str
    meaning: str
    of: Literal["step", "evaluation"] = "step"
    watch: str = ""
    better: Literal["lower", "higher", ""] = ""
    wall_clock: bool = False
    format: Format = "number"
    panel: str = ""
    axis: Axis = "values"
    smooth: bool = False
    report: bool = True
    ending: bool = False
    live: int = 0
    label: str = ""
    derive: Callable[[Mapping[str, Any]], float | None] | None = None

    @property
    def title(self) -> str:
        """`val_loss` as `val loss`."""
        return self.name.replace("_", " ")


def perplexity(mean_nll: float) -> float:
    """exp(mean_nll); infinite where that is larger than any float."""
    try:
        return math.exp(mean_nll)
    except OverflowError:
        return math.inf


def _perplexity_of(loss: str) -> Callable[[Mapping[str, Any]], float | None]:
    def derive(record: Mapping[str, Any]) -> float | None:
        return None if record.get(loss) is None else perplexity(record[loss])

    return derive


_loss = partial(Metric, unit="nats per token", better="lower")
_eval_loss = partial(_loss, of="evaluation")


def _scored(
    probe: str,
    loss: str,
    accuracy: str,
    watch: tuple[str, str, str],
    live: tuple[int, int, int] = (0, 0, 0),
) -> tuple[Metric, ...]:
    """Loss, accuracy and perplexity of a probe: meanings of two, what to watch, ranks (`live`)."""
    same, derive = f"exp({probe}_loss) of the same record.", _perplexity_of(f"{probe}_loss")
    metrics = (
        _loss(f"{probe}_loss", meaning=loss, label=probe),
        Metric(f"{probe}_accuracy", "fraction", accuracy, better="higher", format="percent"),
        Metric(f"{probe}_perplexity", "choices", same, better="lower", derive=derive),
    )
    panels = ("loss", "accuracy", "perplexity")
    return tuple(
        replace(metric, of="evaluation", watch=text, panel=panel, live=rank, ending=True)
        for metric, text, panel, rank in zip(metrics, watch, panels, live, strict=True)
    )


_TABLE = (
    Metric("step", "steps", "Completed optimizer updates.", format="count"),
    _loss(
        "loss",
        meaning="Summed weighted negative log-likelihood of the step's supervised tokens divided "
        "by their summed weights, over all ranks and micro-batches; measured before the update. "
        "The same number for every optim.loss, and without the term of optim.retain_kl.",
        watch="It should fall quickly, then steadily: flat from the start means a learning rate "
        "that is too low or nothing to learn, jumps mean one that is too high or a broken row.",
        panel="loss",
        smooth=True,
        ending=True,
        live=1,
        label="loss",
    ),
    _loss(
        "loss_by_source",
        meaning="As loss, for the rows of each source, by its name; only where there are several "
        "sources, and without those that have no row in the step.",
    ),
    Metric(
        "accuracy",
        "fraction",
        "Share of the supervised tokens that the model, given the true text before them, ranks "
        "first. It is not the share of right answers.",
        watch="It should rise while loss falls; near 1 on few rows seen often, the model knows "
        "them by heart.",
        better="higher",
        format="percent",
        panel="accuracy",
        axis="share",
        smooth=True,
        ending=True,
    ),
    Metric(
        "perplexity",
        "choices",
        "exp(loss) of the same record.",
        watch="It should drop as loss does: 3 means as unsure as between three equal choices.",
        better="lower",
        panel="perplexity",
        axis="log",
        smooth=True,
        ending=True,
        derive=_perplexity_of("loss"),
    ),
    Metric(
        "learning_rate",
        "1",
        "Learning rate the step's update was made with.",
        watch="It should rise during warm-up and then follow its schedule; compare it with the "
        "loss where that jumps or goes flat.",
        panel="learning_rate",
        axis="from_zero",
        ending=True,
        live=6,
        label="lr",
    ),
    Metric(
        "epoch",
        "passes",
        "Training examples seen so far, divided by all training examples (each counted as often "
        "as its weight says; replay included). In evaluation records, too.",
        watch="Past one pass rows are seen again: watch whether val_loss turns up while loss goes "
        "on falling.",
        panel="epoch",
        report=False,
        axis="from_zero",
        ending=True,
        live=7,
        label="epoch",
    ),
    Metric(
        "train_flos",
        "FLOPs",
        "Model floating-point operations of training so far, by formula: no padding, no "
        "recomputation, no evaluations, no texts of optim.retain_kl.",
        watch="It grows about in proportion to the tokens; use it to compare what two runs cost.",
        format="large",
        panel="train_flos",
        report=False,
        axis="from_zero",
        ending=True,
    ),
    Metric(
        "grad_norm",
        "1",
        "L2 norm of the gradient of all trained weights, before clipping.",
        watch="Some noise is normal; single spikes point to odd rows, a lasting rise often to a "
        "learning rate that is too high; 0 means that nothing is trained.",
        panel="grad_norm",
        axis="log",
        smooth=True,
        live=9,
        label="|g|",
    ),
    Metric(
        "num_tokens",
        "tokens",
        "Real tokens processed so far: prompts and answers, no padding.",
        format="count",
    ),
    Metric(
        "num_trained_tokens",
        "tokens",
        "Tokens so far whose prediction counted in the loss.",
        format="count",
    ),
    Metric(
        "tokens_per_second",
        "tokens per second",
        "Real tokens of the step divided by its duration.",
        watch="It should stay level apart from noise; a lasting drop means that the machine is "
        "shared, throttled or short of memory.",
        better="higher",
        wall_clock=True,
        format="count",
        panel="tokens_per_second",
        axis="from_zero",
        smooth=True,
        live=4,
        label="tok/s",
    ),
    *_scored(
        "val",
        "Mean negative log-likelihood of the answer tokens of the validation rows that evaluations "
        "score (all of them, or as many as fit into eval.budget), each token counted once, "
        "whatever data.prompt_weight is.",
        "Share of the validation set's answer tokens that the model, given the true text before "
        "them, ranks first.",
        (
            "It should fall to a plateau; when it turns up while loss goes on falling, the model "
            "learns rows by heart.",
            "It should rise and level off; a gap to accuracy that keeps growing means learning by "
            "heart.",
            "It should drop to a plateau, as val_loss does, of which it is another scale.",
        ),
        live=(1, 5, 3),
    ),
    _eval_loss(
        "val_loss_by_source",
        meaning="As val_loss, for the rows of each source, by its name; only where there are "
        "several sources.",
    ),
    Metric("seconds", "seconds", "Time spent in steps so far.", wall_clock=True),
    *_scored(
        "usage",
        "As val_loss, on the user's own prompts with answers (data.usage).",
        "As val_accuracy, on the same rows as usage_loss.",
        (
            "It should fall along with val_loss; when only val_loss falls, the training rows are "
            "not like the prompts of real use.",
            "",
            "",
        ),
        live=(2, 0, 0),
    ),
    *_scored(
        "test",
        "As val_loss, on data.test, the rows that decide nothing: of the base model, and of the "
        "weights that the run hands back.",
        "As val_accuracy, on the same rows as test_loss.",
        (
            "It tells how good the model is: nothing was chosen by it, so compare its last value "
            "with that of the base model.",
            "",
            "",
        ),
    ),
    _eval_loss(
        "train_probe_loss",
        meaning="As val_loss, on a fixed few training rows.",
        watch="Its gap to val_loss is normal while small; a gap that widens means that the model "
        "learns its training rows by heart.",
        panel="loss",
    ),
    Metric(
        "usage_drift_loss",
        "nats per token",
        "As val_loss, of the base model's own answers to the usage prompts without answers.",
        of="evaluation",
        watch="It rises as the model moves away from the base model; it does not say whether that "
        "is for the better.",
        panel="loss",
    ),
    _eval_loss(
        "retain_loss",
        meaning="As val_loss, on texts of the base model and those of data.retain.",
        watch="It should stay level: a rise above guards.forgetting_budget means that the model "
        "forgets what the base model could do.",
        panel="loss",
        ending=True,
        live=4,
    ),
    _eval_loss(
        "retain_kl",
        meaning="KL(base || now) on the same texts: over the base's 64 likeliest tokens, and the "
        "rest.",
        watch="It should stay small and level off; it grows as the model moves away from the base "
        "model.",
        panel="retain_kl",
        axis="from_zero",
    ),
    Metric(
        "eval_seconds",
        "seconds",
        "Time this evaluation took.",
        of="evaluation",
        watch="Evaluations should stay within eval.budget of the training time.",
        wall_clock=True,
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}

# A value that is NaN or infinite is stored as null, beside a text under this longer name.
NONFINITE_SUFFIX = "_nonfinite"


def with_derived(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the metrics that are computed from what it has (`Metric.derive`)."""
    complete = dict(record)
    for name, metric in METRICS.items():
        if metric.derive is not None and name not in complete:
            value = metric.derive(complete)
            if value is not None:
                complete[name] = value
    return complete


def panels() -> dict[str, list[Metric]]:
    """The metrics of each chart, by the chart's name; first the one that it is named after."""
    charts: dict[str, list[Metric]] = {}
    for metric in METRICS.values():
        if metric.panel:
            charts.setdefault(metric.panel, []).append(metric)
    return {name: sorted(metrics, key=lambda m: m.name != name) for name, metrics in charts.items()}


def deterministic(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without its clock readings: equal for two identical runs."""
    clocks = {metric.name for metric in METRICS.values() if metric.wall_clock}
    return {
        name: value
        for name, value in record.items()
        if name.removesuffix(NONFINITE_SUFFIX) not in clocks
    }


def markdown() -> str:
    """The table of docs/metrics.md."""
    rows = ["| name | unit | better | meaning |", "|---|---|---|---|"]
    for metric in METRICS.values():
        meaning = metric.meaning.replace("|", "\\|") + (" Wall clock." if metric.wall_clock else "")
        rows.append(f"| `{metric.name}` | {metric.unit} | {metric.better} | {meaning} |")
    return "\n".join(rows)
