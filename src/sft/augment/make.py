"""Which new rows are wanted, and making them: every wanted row is made, or dropped for a reason."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sft.augment.ask import MODEL_WAYS, Request, Writer
from sft.augment.noise import case, typos, whitespace
from sft.augment.rows import Change, identity
from sft.augment.wrappers import system_prompt, template
from sft.data.repeats import prompt_key
from sft.data.rows.conversation import Conversation
from sft.data.rows.formats.writing import write
from sft.errors import ConfigError, did_you_mean

ALREADY_THERE = "already there, word for word"


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """What is wanted: `per_row` new rows of a `share` of the rows, by `ways` in turn."""

    ways: tuple[str, ...]
    per_row: int = 1
    share: float = 1.0
    seed: int = 0
    templates: Sequence[str] = ()
    systems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """One new row that is wanted; the `variant`-th of its row by this way, from 0."""

    row: Conversation
    way: str
    variant: int


# What each way that needs no model makes of a row.
_LOCAL_WAYS: dict[str, Callable[[Conversation, random.Random, AugmentSettings], Change]] = {
    "template": lambda row, rng, settings: template(row, rng, settings.templates),
    "system_prompt": lambda row, rng, settings: system_prompt(row, rng, settings.systems),
    "case": lambda row, rng, _: case(row, rng),
    "whitespace": lambda row, rng, _: whitespace(row, rng),
    "typos": lambda row, rng, _: typos(row, rng),
}
WAYS = (*_LOCAL_WAYS, *MODEL_WAYS)


def parse_ways(text: str) -> tuple[str, ...]:
    """The ways in a list with commas.

    Raises:
        ConfigError: one is not known, or there is none.
    """
    ways = tuple(dict.fromkeys(filter(None, (way.strip() for way in text.split(",")))))
    for way in ways:
        if way not in WAYS:
            raise ConfigError(
                f"--way: no way {way!r}.{did_you_mean(way, WAYS)} Known: {', '.join(WAYS)}."
            )
    if not ways:
        raise ConfigError(f"--way: expected one or more of {', '.join(WAYS)}")
    return ways


def wanted_rows(rows: Sequence[Conversation], settings: AugmentSettings) -> list[Wanted]:
    """What is to be made, in the order of the rows; the same for the same rows and seed.

    Rows that are augmented themselves, and those that are no conversations, are left alone.
    """
    own = [row for row in rows if not row.parent and row.kind == "chat"]
    order = sorted(range(len(own)), key=lambda i: _digest(own[i], settings.seed, "share"))
    wanted = []
    for i in sorted(order[: max(1, round(settings.share * len(own)))]):
        # The ways take turns, beginning with another one for each row.
        first = int.from_bytes(_digest(own[i], settings.seed, "ways")[:4])
        for slot in range(settings.per_row):
            turn = (first + slot) % len(settings.ways)
            wanted.append(Wanted(own[i], settings.ways[turn], slot // len(settings.ways)))
    return wanted


def _digest(row: Conversation, seed: int, purpose: str) -> bytes:
    """Random bytes that depend on the row and its line, not on the name of its file."""
    text = f"{seed}|{purpose}|{row.origin.line}|{prompt_key(row)}"
    return hashlib.sha256(text.encode()).digest()


def requests_for(way: str, wanted: Sequence[Wanted]) -> dict[int, Request | str]:
    """By place in `wanted`: what a model is asked for this way, or why it is not."""
    ask, _ = MODEL_WAYS[way]
    return {i: ask(want.row, want.variant) for i, want in enumerate(wanted) if want.way == way}


def make_rows(
    rows: Sequence[Conversation],
    wanted: Sequence[Wanted],
    settings: AugmentSettings,
    writers: Mapping[str, Writer],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The new rows, and a line of the ledger for each that is wanted, both as they are written.

    `writers` has a writer for each way that a model is asked for.
    """
    written: dict[int, Change] = {}
    for way, writer in writers.items():
        written |= _written(way, wanted, writer)
    there = {identity(row) for row in rows if row.kind == "chat"}
    new_rows: list[dict[str, Any]] = []
    ledger: list[dict[str, Any]] = []
    for i, want in enumerate(wanted):
        change = written[i] if i in written else _changed(want, settings)
        line = {"row": str(want.row.origin), "way": want.way}
        new = replace(want.row, messages=change.messages, parent=prompt_key(want.row))
        if change.messages and (same := identity(new)) not in there:
            there.add(same)
            detail = f"{want.way}: {change.detail}"
            source = {"parent_row": str(want.row.origin), "augmentation": detail}
            new_rows.append(write(new, "messages") | source)
            line |= {"status": "made", "detail": change.detail}
            ledger.append({**line, "line": len(new_rows)})
        else:
            reason = change.reason or ALREADY_THERE
            ledger.append({**line, "status": "dropped", "reason": reason})
    return new_rows, ledger


def counts(ledger: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By way: how many rows were wanted and made, and how many dropped for each reason."""
    counted = {}
    for way in dict.fromkeys(line["way"] for line in ledger):
        lines = [line for line in ledger if line["way"] == way]
        reasons = Counter(line["reason"] for line in lines if line["status"] == "dropped")
        counted[way] = {
            "wanted": len(lines),
            "made": len(lines) - reasons.total(),
            "dropped": dict(reasons.most_common()),
        }
    return counted


def _changed(want: Wanted, settings: AugmentSettings) -> Change:
    """What the ways without a model make of a row."""
    digest = _digest(want.row, settings.seed, f"{want.way}|{want.variant}")
    return _LOCAL_WAYS[want.way](want.row, random.Random(digest), settings)


def _written(way: str, wanted: Sequence[Wanted], writer: Writer) -> dict[int, Change]:
    """What a model makes of the rows, by place in `wanted`."""
    asked = requests_for(way, wanted)
    changes = {i: Change(reason=why) for i, why in asked.items() if isinstance(why, str)}
    requests = {i: request for i, request in asked.items() if isinstance(request, Request)}
    replies = writer.write(list(requests.values()))
    _, take = MODEL_WAYS[way]
    for i, reply in zip(requests, replies, strict=True):
        changes[i] = take(wanted[i].row, reply, wanted[i].variant)
    return changes
