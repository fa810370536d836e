"""How answers are compared with references: a table of tasks, and shares with intervals.

A task is chosen from the references alone, so both models are measured the same way.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sft.errors import ConfigError, did_you_mean

MAX_EXACT_WORDS = 20
MAX_FIELDS_SHOWN = 20
# A field is free text when nearly every row has another value, and values are phrases:
# an order number differs in every row too, but must still be right.
FREE_TEXT_DISTINCT, FREE_TEXT_WORDS = 0.8, 3
# Words; scripts that put no spaces between them count by character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Measure:
    """One number: `share` (of `n`, with its 95 % interval where known), `nats` or `choices`.

    `value` is None where it is not finite.
    """

    value: float | None
    unit: str
    n: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """Does it fit these references; (answers, references) to measures; and how, in words."""

    fits: Callable[[Sequence[str]], bool]
    score: Callable[[Sequence[str], Sequence[str]], dict[str, Measure]]
    describe: Callable[[Sequence[str]], str]


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share of `n` (Wilson 1927); never empty, never outside 0..1."""
    z2 = 1.959964**2
    centre = share + z2 / (2 * n)
    spread = math.sqrt(z2 * share * (1 - share) / n + (z2 / (2 * n)) ** 2)
    scale = 1 + z2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mean_share(values: Sequence[float]) -> Measure:
    """The mean of one number between 0 and 1 per row.

    For numbers that are not just 0 or 1, the interval is wider than it need be, never narrower:
    no other distribution with that mean varies as much.
    """
    mean = sum(values) / len(values)
    return Measure(mean, "share", len(values), wilson(min(1.0, mean), len(values)))


def choose_task(name: str, references: Sequence[str]) -> str:
    """`name`, or for `auto` the first task that fits.

    Raises:
        ConfigError: no such task, or the references are not of its kind.
    """
    if name == "auto":
        return next(task for task in TASKS if TASKS[task].fits(references))
    if name not in TASKS:
        known = ["auto", *TASKS]
        raise ConfigError(
            f"task: no task '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}."
        )
    if name == "json" and not TASKS[name].fits(references):
        raise ConfigError("task: json needs references that are all JSON objects; use auto")
    return name


# ------------------------------------------------------------------------- json


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, strictly (no fences, no NaN, nothing around it), or None."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def free_text_fields(references: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Fields that hold free text, with the share of distinct values."""
    free = {}
    for field in _fields(references):
        values = [reference[field] for reference in references if field in reference]
        if not all(isinstance(value, str) for value in values):
            continue
        distinct = len({value.strip() for value in values}) / len(values)
        num_words = sum(len(words(value)) for value in values) / len(values)
        if distinct > FREE_TEXT_DISTINCT and num_words >= FREE_TEXT_WORDS:
            free[field] = distinct
    return free


def _score_json(answers: Sequence[str], references: Sequence[str]) -> dict[str, Measure]:
    wanted = [parse_object(reference) or {} for reference in references]
    given = [parse_object(answer) for answer in answers]
    pairs = list(zip(given, wanted, strict=True))
    free = free_text_fields(wanted)
    measures = {
        "json_valid": mean_share([answer is not None for answer in given]),
        "json_keys": mean_share(
            [answer is not None and answer.keys() == right.keys() for answer, right in pairs]
        ),
    }
    rows = []
    for answer, right in pairs:
        fields = [field for field in right if field not in free]
        if fields:
            rows.append(sum(_same(answer, right, field) for field in fields) / len(fields))
    if rows:
        measures["field_accuracy"] = mean_share(rows)
    for field in _fields(wanted)[:MAX_FIELDS_SHOWN]:
        compare, name = (_overlapping, "token_f1") if field in free else (_same, "field_accuracy")
        measures[f"{name}.{field}"] = mean_share(
            [compare(answer, right, field) for answer, right in pairs if field in right]
        )
    return measures


def _fields(references: Sequence[dict[str, Any]]) -> list[str]:
    """All fields, the most frequent first, then in the order they come in."""
    counts = Counter(field for reference in references for field in reference)
    return [field for field, _ in counts.most_common()]


def _same(answer: dict[str, Any] | None, right: dict[str, Any], field: str) -> float:
    if answer is None or field not in answer:
        return 0.0
    return float(_exact(answer[field]) == _exact(right[field]))


def _exact(value: Any) -> str:
    """Text without the white space around it; other values as JSON, so that 1 is not true."""
    return json.dumps(value.strip() if isinstance(value, str) else value, sort_keys=True)


def _overlapping(answer: dict[str, Any] | None, right: dict[str, Any], field: str) -> float:
    value = answer.get(field) if answer else None
    return token_f1(value, right[field]) if isinstance(value, str) else 0.0


def _describe_json(references: Sequence[str]) -> str:
    wanted = [parse_object(reference) or {} for reference in references]
    free = free_text_fields(wanted)
    exact = [field for field in _fields(wanted) if field not in free]
    text = f"JSON objects; field_accuracy is the share of equal values of {', '.join(exact)}"
    if not exact:
        text = "JSON objects of free text"
    for field, distinct in free.items():
        text += (
            f"; {field} is free text ({distinct:.0%} distinct values), compared by token_f1 and "
            "not part of field_accuracy"
        )
    return text + "; an invalid answer scores 0"


# ------------------------------------------------------------------------- text


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.casefold())


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words, as SQuAD has it; order is not read."""
    given, wanted = Counter(words(answer)), Counter(words(reference))
    if not wanted:
        return float(answer.strip() == reference.strip())
    common = (given & wanted).total()
    return 2 * common / (given.total() + wanted.total())


def normalised(text: str) -> str:
    """Lower case, single spaces, no period at the end."""
    return " ".join(text.casefold().split()).removesuffix(".")


def _score_exact(answers: Sequence[str], references: Sequence[str]) -> dict[str, Measure]:
    pairs = zip(answers, references, strict=True)
    return {"exact_match": mean_share([normalised(a) == normalised(r) for a, r in pairs])}


def _score_overlap(answers: Sequence[str], references: Sequence[str]) -> dict[str, Measure]:
    pairs = zip(answers, references, strict=True)
    return {"token_f1": mean_share([token_f1(a, r) for a, r in pairs])}


# The first that fits is what `auto` takes.
TASKS: dict[str, Task] = {
    "json": Task(
        fits=lambda references: all(parse_object(r) is not None for r in references),
        score=_score_json,
        describe=_describe_json,
    ),
    "exact": Task(
        fits=lambda references: all(len(words(r)) <= MAX_EXACT_WORDS for r in references),
        score=_score_exact,
        describe=lambda _: "short texts; equal but for case, spacing and a final period",
    ),
    "overlap": Task(
        fits=lambda _: True,
        score=_score_overlap,
        describe=lambda _: "long texts; token_f1 is the overlap of words, not a grade",
    ),
}
