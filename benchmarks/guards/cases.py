"""The planted pitfalls, the clean controls and the traps: data, settings, and what must follow.

`expected`, `allowed` and `forbidden` were written before any run (guard names, or `guard.signal`).
An alarm of a guard that is neither expected nor allowed is a false alarm. `kind`:

    core    a pitfall planted at full strength; recall is counted on these
    more    planted as well, but harder, mixed or blinding the measurement; told one by one
    dose    the same pitfall, weaker; for the dose-response curve of its `family`
    clean   nothing is wrong
    trap    nothing is wrong, but it looks so
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from plants import (
    Rows,
    as_json,
    cocktail,
    elsewhere,
    few,
    few_of_both,
    general,
    leaky,
    maths,
    other_style,
    permuted,
    prefixed,
    tiny_val,
)
from pool import Draw

Kind = Literal["core", "more", "dose", "clean", "trap"]
GUARDS = ("overfitting", "format_collapse", "distribution_mismatch", "forgetting", "health")
NUM_TEXTS = 8  # pieces of plain text on `retain`

# Short runs, no action on alarms, nothing saved on the way: the guards only watch.
BASE: dict[str, Any] = {
    "model.name": "starter",
    "model.template": "chatml",  # without SmolLM2's system message: a third fewer tokens
    "batch.examples": 4,
    "optim.learning_rate": 2e-5,
    "optim.schedule": "constant",
    "optim.max_steps": 12,
    "eval.every": 4,
    "eval.budget": 4.3,  # probes of nearly full size, although the runs are tiny
    "eval.samples": 4,
    "eval.early_stopping": "off",
    "checkpoint.every": 1_000_000,
    "checkpoint.choose": "last",
    **{f"guards.{guard}": "warn" for guard in GUARDS},
}


@dataclass(frozen=True)
class Case:
    """One situation. `planted` is the guard that must find it; `dose` orders a `family`."""

    id: str
    kind: Kind
    what: str
    build: Callable[[Draw], Rows]
    config: Mapping[str, Any] = field(default_factory=dict)
    planted: str = ""
    expected: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    family: str = ""
    dose: float = 0.0
    rescore: bool = False  # score validation twice at the end, in other batches

    @property
    def forbidden(self) -> tuple[str, ...]:
        """The guards whose alarm would be false."""
        fine = {name.partition(".")[0] for name in (*self.expected, *self.allowed)}
        return tuple(guard for guard in GUARDS if guard not in fine)

    def settings(self) -> dict[str, Any]:
        """The dotted configuration, without paths and seed."""
        return {**BASE, **self.config}


CASES: tuple[Case, ...] = (
    Case(
        id="P1",
        kind="core",
        what="4 rows, 16 times each",
        build=few(4, 16),
        config={"optim.learning_rate": 1e-4, "optim.max_steps": 16},
        planted="overfitting",
        expected=("overfitting",),
        allowed=("forgetting", "distribution_mismatch"),
        family="P1",
        dose=64 / 4,
    ),
    Case(
        id="P2",
        kind="core",
        what='every answer opens with "Sure!"',
        build=prefixed(1.0),
        config={"optim.learning_rate": 5e-5},
        planted="format_collapse",
        expected=("format_collapse",),
        # The answers users want do not open like this: usage really gets worse.
        allowed=("distribution_mismatch",),
        family="P2",
        dose=1.0,
    ),
    Case(
        id="P3",
        kind="core",
        what="trained on GSM8K, used on Alpaca",
        build=elsewhere(1.0),
        planted="distribution_mismatch",
        expected=("distribution_mismatch",),
        family="P3",
        dose=1.0,
    ),
    Case(
        id="P4",
        kind="core",
        what="GSM8K at 50 times the learning rate",
        build=maths,
        config={"optim.learning_rate": 1e-3},
        planted="forgetting",
        expected=("forgetting",),
        family="P4",
        dose=1e-3,
    ),
    Case(
        id="P1b",
        kind="more",
        what="P1 with near-copies of the rows left in validation",
        build=leaky,
        config={"optim.learning_rate": 1e-4, "optim.max_steps": 16},
        planted="overfitting",
        expected=("overfitting",),
        allowed=("forgetting", "distribution_mismatch"),
    ),
    Case(
        id="P2c",
        kind="more",
        what="the answers belong to other prompts",
        build=permuted,
        config={"optim.learning_rate": 5e-5},
        planted="format_collapse",
        expected=("format_collapse",),
        allowed=("overfitting", "distribution_mismatch"),
    ),
    Case(
        id="P5",
        kind="more",
        what="everything at once: 4 prefixed GSM8K rows, 5e-4, used on Alpaca",
        build=cocktail,
        config={"optim.learning_rate": 5e-4},
        planted="overfitting",
        expected=("overfitting", "format_collapse", "distribution_mismatch", "forgetting"),
    ),
    *(
        Case(
            id=f"P1-{number}",
            kind="dose",
            what=f"{number} rows, {64 // number} times each",
            build=few(number, 64 // number),
            config={"optim.learning_rate": 1e-4, "optim.max_steps": 16},
            planted="overfitting",
            expected=("overfitting",),
            allowed=("forgetting", "distribution_mismatch"),
            family="P1",
            dose=64 / number,
        )
        for number in (8, 16, 64)
    ),
    *(
        Case(
            id=f"P2-{percent}",
            kind="dose",
            what=f'{percent} % of the answers open with "Sure!"',
            build=prefixed(percent / 100),
            config={"optim.learning_rate": 5e-5},
            planted="format_collapse",
            expected=("format_collapse",),
            allowed=("distribution_mismatch",),
            family="P2",
            dose=percent / 100,
        )
        for percent in (10, 30, 60)
    ),
    *(
        Case(
            id=f"P3-{percent}",
            kind="dose",
            what=f"{percent} % of usage is Alpaca, training is GSM8K",
            build=elsewhere(percent / 100),
            planted="distribution_mismatch",
            expected=("distribution_mismatch",),
            family="P3",
            dose=percent / 100,
        )
        for percent in (10, 20, 40)
    ),
    *(
        Case(
            id=f"P4-{rate:g}",
            kind="dose",
            what=f"GSM8K at a learning rate of {rate:g}",
            build=maths,
            config={"optim.learning_rate": rate},
            planted="forgetting",
            expected=("forgetting",),
            family="P4",
            dose=rate,
        )
        for rate in (2e-5, 1e-4, 3e-4)
    ),
    *(
        Case(
            id=f"P4-lora-{rate:g}",
            kind="dose",
            what=f"GSM8K with LoRA at {rate:g}",
            build=maths,
            config={"optim.learning_rate": rate, "method.kind": "lora", "method.lora_rank": 8},
            planted="forgetting",
            expected=("forgetting",),
            family="P4-lora",
            dose=rate,
        )
        for rate in (1e-3, 1e-2)
    ),
    Case(id="C1", kind="clean", what="Alpaca, used on Alpaca", build=general),
    Case(id="C2", kind="clean", what="GSM8K, used on GSM8K", build=maths),
    Case(
        id="C3",
        kind="clean",
        what="Alpaca with LoRA",
        build=general,
        config={"optim.learning_rate": 2e-4, "method.kind": "lora", "method.lora_rank": 8},
    ),
    Case(
        id="T1",
        kind="trap",
        what="a task whose every answer opens with {",
        build=as_json(64),
        config={"optim.learning_rate": 5e-5},
    ),
    Case(id="T2", kind="trap", what="8 rows of validation", build=tiny_val),
    Case(
        id="T3",
        kind="trap",
        what="24 rows, 3 epochs: a gap, but validation does not rise",
        build=few_of_both,
        config={"optim.max_steps": 18, "eval.every": 6},
    ),
    Case(
        id="T4",
        kind="trap",
        what="a hump at the end of warm-up",
        build=general,
        config={
            "optim.learning_rate": 1e-4,
            "optim.schedule": "linear",
            "optim.warmup_steps": 8,
            "optim.max_steps": 16,
        },
    ),
    Case(
        id="T5",
        kind="trap",
        what="NEFTune: training loss above validation loss",
        build=general,
        config={"optim.neftune_alpha": 5.0},
    ),
    Case(id="T6", kind="trap", what="usage asks in another style", build=other_style),
    Case(
        id="T7",
        kind="trap",
        what="A/A: nothing is learned, the same model is scored again",
        build=general,
        config={"optim.learning_rate": 1e-12, "optim.max_steps": 8},
        allowed=("health",),  # which may say that nothing is learned
        rescore=True,
    ),
    Case(
        id="T8",
        kind="trap",
        what="validation loss rises, accuracy does not fall: over-confidence",
        build=as_json(8, 8),
        config={"optim.learning_rate": 1e-4, "optim.max_steps": 16},
        # Really over-trained: an alarm is right when it says over-confidence.
        allowed=("overfitting", "forgetting", "distribution_mismatch"),
    ),
)
BY_ID = {case.id: case for case in CASES}
