"""Data for `augment_case.py`: where new rows, weights or a choice of rows should help, or not harm.

Each case has training rows for every arm, validation rows and test rows with the name of a part.
No row that is measured is trained on, and nothing is made by the code that is tested: the noise of
the test rows has other rules than that of `sft augment`.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "guards"))

from pool import Draw, oracle  # noqa: E402

TICKETS = HERE.parent / "examples" / "support_tickets"
SYSTEM = "Name the team and the urgency of the customer message."
# How the same is asked in use, or not at all: none of these is in the augmentation's list.
SYSTEMS_IN_USE = ("", "Which team is this for, and how urgent is it?", "sort this: team, urgency")
SYSTEMS_TO_AUGMENT = (
    "(none)",
    "You sort messages of customers. Answer with team and urgency.",
    "Say who should handle the message below and how soon.",
    "Classify the following message by team and urgency.",
)
SHORT_FORMS = {
    **{"please": "pls", "you": "u", "your": "ur", "are": "r", "because": "cause", "and": "n"},
    **{"have": "hv", "with": "w", "would": "wd", "message": "msg", "tomorrow": "tmrw", "for": "4"},
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to train: more settings, and whether rows are augmented, or which rows are taken."""

    config: dict[str, Any] = field(default_factory=dict)
    ways: str = ""
    take: str = ""


@dataclass(frozen=True)
class Case:
    """`arms` are compared with the first of them. `build(seed)` gives rows by use."""

    what: str
    arms: dict[str, Arm]
    build: Callable[[int], dict[str, Any]]
    config: dict[str, Any]


def tickets(name: str) -> list[tuple[str, str]]:
    """Customer message, and category and urgency, of a file of the support tickets."""
    pairs = []
    for line in (TICKETS / name).read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        answer = json.loads(messages[-1]["content"])
        pairs.append((messages[-2]["content"], f"{answer['category']}, {answer['urgency']}"))
    return pairs


def is_clean(text: str) -> bool:
    """Begins with a capital, ends with a stop, fits into a line and is no chat."""
    return bool(re.fullmatch(r"[A-Z][a-z' ][^\n|/\[\]]{20,150}[.?!]", text)) and not text.isupper()


def as_typed(text: str, rng: random.Random) -> str:
    """As typed on a phone: no capitals, no stops, short forms, vowels left out."""
    words = []
    for word in re.sub(r"[.,;:!?'\"]", "", text.lower()).split():
        if word in SHORT_FORMS and rng.random() < 0.7:
            word = SHORT_FORMS[word]
        elif len(word) > 4 and word.isalpha() and rng.random() < 0.15:
            word = word[0] + re.sub("[aeiou]", "", word[1:-1], count=1) + word[-1]
        words.append(word)
    return " ".join(words)


def noisy_use(seed: int) -> dict[str, Any]:
    """Clean messages to train on; others, as typed and under other system messages, to use.

    Which rows are trained on does not depend on the seed: it draws their order and the noise.
    """
    rng = random.Random(seed)
    clean = [pair for pair in tickets("train.jsonl") if is_clean(pair[0])]
    held = [pair for pair in tickets("held_out.jsonl") if len(pair[0]) < 220][:36]
    real = [pair for pair in tickets("usage.jsonl") if len(pair[0]) < 220][:32]

    def row(text: str, answer: str, system: str = SYSTEM) -> Row:
        return {"system": system, "prompt": text, "completion": answer}

    typed = [
        row(as_typed(text, rng), answer, SYSTEMS_IN_USE[i % len(SYSTEMS_IN_USE)])
        for i, (text, answer) in enumerate(held)
    ]
    return {
        "train": [row(*pair) for pair in clean[:96]],
        "val": [row(*pair) for pair in held],
        "test": {"typed": typed, "real": [row(*pair) for pair in real]},
    }


def mixed_use(seed: int) -> dict[str, Any]:
    """Training is one quarter maths and the rest general; used on maths only."""
    draw = Draw(seed)
    train = [*draw.maths(24), *draw.general(72)]
    draw.random.shuffle(train)
    return {
        "train": train,
        "usage": draw.maths(32),
        "val": [*oracle("maths")[:6], *oracle("general")[:18]],
        "test": {"used": oracle("maths")[40:72], "elsewhere": oracle("general")[40:64]},
    }


def like_use(seed: int) -> dict[str, Any]:
    """Training and usage are drawn alike: weights have nothing to find."""
    draw = Draw(seed)
    train = [*draw.maths(48), *draw.general(48)]
    draw.random.shuffle(train)
    return {
        "train": train,
        "usage": [*draw.maths(16), *draw.general(16)],
        "val": [*oracle("maths")[:12], *oracle("general")[:12]],
        "test": {"used": [*oracle("maths")[40:56], *oracle("general")[40:56]]},
    }


def redundant(seed: int) -> dict[str, Any]:
    """Six general rows twenty times each with a word changed, then 40 that differ; used on all."""
    draw = Draw(seed)
    few, many = draw.general(6), draw.general(40)
    names = ("again", "now", "today", "here", "briefly", "well", "once more", "in short")
    copies = [
        {**row, "prompt": f"{row['prompt']} ({names[i % len(names)]} {i})"}
        for i in range(20)
        for row in few
    ]
    return {
        "train": [*copies, *many],
        "val": oracle("general")[:24],
        "test": {"used": oracle("general")[40:88]},
    }


WEIGHTING = {"plain": Arm(), "weighted": Arm({"data.usage_weighting": True})}
SELECT = 32
CASES: dict[str, Case] = {
    "noise": Case(
        "clean messages under one system message; used as typed on a phone, under others or none",
        {
            "plain": Arm(),
            "augmented": Arm(ways="system_prompt,case,typos"),
        },
        noisy_use,
        {"batch.examples": 8, "optim.learning_rate": 5e-5},
    ),
    "weighting": Case(
        "a quarter of the training rows is like usage",
        WEIGHTING,
        mixed_use,
        {"batch.examples": 4, "optim.learning_rate": 2e-5},
    ),
    "weighting-alike": Case(
        "control: training is like usage",
        WEIGHTING,
        like_use,
        {"batch.examples": 4, "optim.learning_rate": 2e-5},
    ),
    "selection": Case(
        "120 near-copies of six rows before 40 rows that differ",
        {
            "random": Arm(take="random"),
            "first": Arm(take="first"),
            "diverse": Arm({"data.select_rows": SELECT}),
        },
        redundant,
        {"batch.examples": 4, "optim.learning_rate": 2e-5},
    ),
}
