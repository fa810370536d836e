"""Plain differences between training and usage that need no statistics to be understood.

`differs` is said of what is plainly different only, as these facts may stop a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.data.repeats import Prompted, prompt_text
from sft.texts.languages import UNKNOWN, language

MIN_ROWS = 8
# Lengths differ when they hardly overlap (AUC) and are apart by this factor.
LENGTH_FACTOR, LENGTH_AUC = 3.0, 0.95
RARE, FREQUENT, FREQUENT_MIN = 0.01, 0.2, 3
SYSTEM_GAP, ONE_SYSTEM = 0.5, 0.8
MAX_ROWS = 2_000

Fact = dict[str, Any]


def compare(
    train: Sequence[Prompted], usage: Sequence[Prompted], given: Mapping[str, tuple[Any, Any]]
) -> list[Fact]:
    """The facts of `preflight.json`: length, language, turns, system prompt, and those `given`.

    `given` has, by name, what training and what serving use (`template`: two chat templates);
    they differ when they are not equal.
    """
    train = _thinned(train)
    facts = [check(train, usage) for check in (_length, _language, _turns, _system_prompt)]
    for name, (trained, used) in given.items():
        same = "the same" if trained == used else "not the same"
        message = f"{name}: training and usage have {same}"
        facts.append(_fact(name, trained, used, trained != used, message))
    return facts


def _fact(name: str, train: Any, usage: Any, differs: bool, message: str) -> Fact:
    return {
        "name": name,
        "train": train,
        "usage": usage,
        "differs": bool(differs),
        "message": message,
    }


def _thinned(rows: Sequence[Prompted]) -> Sequence[Prompted]:
    """At most `MAX_ROWS`, evenly from all."""
    if len(rows) <= MAX_ROWS:
        return rows
    return [rows[i] for i in np.linspace(0, len(rows) - 1, MAX_ROWS).astype(int)]


def _length(train: Sequence[Prompted], usage: Sequence[Prompted]) -> Fact:
    """Characters of the prompts: words are not comparable between languages."""
    from scipy.stats import mannwhitneyu

    sides = [[len(prompt_text(row)) for row in rows] for rows in (train, usage)]
    trained, used = (float(np.median(side)) for side in sides)
    longer = mannwhitneyu(sides[1], sides[0]).statistic / (len(sides[0]) * len(sides[1]))
    apart = max(trained, used) / max(1.0, min(trained, used))
    differs = (
        min(len(train), len(usage)) >= MIN_ROWS
        and apart >= LENGTH_FACTOR
        and max(longer, 1 - longer) >= LENGTH_AUC
    )
    message = (
        f"prompts have {trained:,.0f} characters in training and {used:,.0f} in usage (median)"
    )
    return _fact("length", trained, used, differs, message)


def _language(train: Sequence[Prompted], usage: Sequence[Prompted]) -> Fact:
    """Usage in a language that training has (almost) nothing of."""
    sides = [Counter(language(prompt_text(row)) for row in rows) for rows in (train, usage)]
    for side in sides:
        del side[UNKNOWN]
    trained, used = sides
    foreign = [name for name in used if trained[name] <= RARE * trained.total()]
    count = sum(used[name] for name in foreign)
    differs = (
        trained.total() >= MIN_ROWS and count >= FREQUENT_MIN and count >= FREQUENT * used.total()
    )
    first, second = (side.most_common(1)[0][0] if side else UNKNOWN for side in sides)
    message = f"prompts are mostly {first} in training and {second} in usage"
    if differs:
        message = (
            f"{count} of {len(usage)} usage prompts are in {', '.join(sorted(foreign))}, "
            f"which training (mostly {first}) hardly has"
        )
    return _fact("language", first, second, differs, message)


def _turns(train: Sequence[Prompted], usage: Sequence[Prompted]) -> Fact:
    """Usage goes on after the first answer, training never does.

    The other way round is no mismatch: every answer of a long conversation is trained on.
    """
    sides = [
        [sum(message.role == "user" for message in row.messages) for row in rows]
        for rows in (train, usage)
    ]
    trained, used = (float(np.mean([turns > 1 for turns in side])) for side in sides)
    differs = trained <= RARE and used >= FREQUENT and sum(n > 1 for n in sides[1]) >= FREQUENT_MIN
    message = f"{trained:.0%} of training rows and {used:.0%} of usage prompts have several turns"
    return _fact("turns", trained, used, differs, message)


def _system_prompt(train: Sequence[Prompted], usage: Sequence[Prompted]) -> Fact:
    """A system prompt on one side only, or one on each side and not the same."""
    sides = [Counter(_system(row) for row in rows) for rows in (train, usage)]
    trained, used = (1 - side[""] / side.total() for side in sides)
    enough = min(len(train), len(usage)) >= MIN_ROWS
    differs = enough and abs(trained - used) >= SYSTEM_GAP
    message = f"{trained:.0%} of training rows and {used:.0%} of usage prompts have a system prompt"
    (first, num_first), (second, num_second) = (side.most_common(1)[0] for side in sides)
    one_each = num_first >= ONE_SYSTEM * len(train) and num_second >= ONE_SYSTEM * len(usage)
    if enough and not differs and one_each and first != second:
        differs = True
        message = f"the system prompt is {_short(first)} in training and {_short(second)} in usage"
    return _fact("system_prompt", trained, used, differs, message)


def _system(row: Prompted) -> str:
    first = row.messages[0]
    return " ".join(first.content.split()) if first.role == "system" else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
