"""`preflight.json`: all that is measured on the data before training; guards judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sft.curate.coverage import coverage, slices, space, two_sample, uncovered_groups
from sft.curate.facts import compare
from sft.data.repeats import Prompted, answer_text, clusters, leaks, prompt_text
from sft.data.rows.conversation import Conversation
from sft.texts.near_duplicates import effective_size, first_of_each, without_repeats
from sft.texts.openers import surface

MAX_LISTED = 20  # pairs of duplicates, and leaks
MAX_TEXT = 200  # characters of a quoted prompt


def preflight(
    train: Sequence[Conversation],
    val: Sequence[Conversation],
    usage: Sequence[Prompted] | None,
    *,
    visits: float,
    facts: Mapping[str, tuple[Any, Any]] | None = None,
) -> dict[str, Any]:
    """The content of `preflight.json` (docs/guards.md), of plain JSON types only.

    `train` has one row at least, and so has `usage` where it is given. `visits` are the examples
    that the run will see, repeats counted. `facts` are further things to compare, by name: what
    training uses and what serving uses. Rows are called by their origin. The same data give the
    same result in every process.
    """
    labels = clusters(train)
    effective = effective_size(labels)
    leaking = leaks(train, val).held_out
    distinct = first_of_each(labels)
    return {
        "rows": {
            "train": len(train),
            "val": len(val),
            "effective": effective,
            "clusters": len(distinct),
            "visits": float(visits),
            "repeats": visits / effective,
            "duplicates": _duplicates(train, labels),
            "num_leaks": len(leaking),
            "leaks": [
                {"val": str(val[i].origin), "train": str(train[leaking[i]].origin)}
                for i in sorted(leaking)[:MAX_LISTED]
            ],
        },
        # Copies of a row are one answer: else few rows, often repeated, would all begin alike.
        "answers": surface(
            [answer_text(train[i]) for i in distinct], [answer_text(row) for row in usage or ()]
        ),
        "usage": usage_part(train, usage, facts or {}) if usage else None,
    }


def _duplicates(rows: Sequence[Conversation], labels: Sequence[int]) -> list[list[str]]:
    """The first pairs of near-duplicates: the first row of a cluster, and another of it."""
    first: dict[int, Conversation] = {}
    pairs = []
    for row, label in zip(rows, labels, strict=True):
        if first.setdefault(label, row) is not row:
            pairs.append([str(first[label].origin), str(row.origin)])
    return pairs[:MAX_LISTED]


def usage_part(
    train: Sequence[Conversation],
    usage: Sequence[Prompted],
    facts: Mapping[str, tuple[Any, Any]],
) -> dict[str, Any]:
    """The part `usage`: how far the training rows cover the prompts of `usage`, row by row."""
    texts = [prompt_text(row) for row in usage]
    ids = [str(row.origin) for row in usage]
    prompts = space([prompt_text(row) for row in train], texts)
    covered = coverage(prompts)
    test = two_sample(prompts, without_repeats(texts))
    groups = uncovered_groups(prompts, covered)
    by_index = {i: label for label, members in groups.items() for i in members}
    return {
        "n": len(usage),
        "p_values": dict(zip(ids, covered.p_values.tolist(), strict=True)),
        "uncovered": [
            {
                "id": ids[i],
                "p": float(covered.p_values[i]),
                "text": texts[i][:MAX_TEXT],
                "group": by_index[i],
            }
            for i in covered.uncovered.tolist()
        ],
        "groups": [
            {"label": label, "ids": [ids[i] for i in members]} for label, members in groups.items()
        ],
        "classifier": asdict(test) if test else None,
        "facts": compare(train, usage, facts),
        "slices": {ids[i]: label for label, members in slices(prompts).items() for i in members},
    }
