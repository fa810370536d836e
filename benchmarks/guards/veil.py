"""Take the words out of a trace, and leave what verdicts depend on.

Sampled answers and references are compared with each other: equal words become equal made-up
words of the same length, so that openings, loops and repetition stay what they were. The made-up
words depend on all of the run's own texts, which are not kept: a dictionary does not undo them.
Token ids are numbered anew, topics lose their names, and prompts and quotations go.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Records = list[dict[str, Any]]
Veil = Callable[[str], str]

_PIECE = re.compile(r"[^\W\d_]+|\d+")
_SHORT = 2  # words up to this length are too few to tell apart by chance; they are permuted
_LETTERS = "qhwrtjmzkbxvcgynpsdfloaieu"
_DIGITS = "7294850316"
_PERMUTED = str.maketrans("abcdefghijklmnopqrstuvwxyz0123456789", _LETTERS + _DIGITS)
_TOKENS = ("first_label", "first_token")


def make_veil(texts: Any) -> Veil:
    """The function that veils a text, for a run with these `texts` (any JSON)."""
    salt = hashlib.sha256(json.dumps(texts, sort_keys=True, default=str).encode()).digest()

    def veil(text: str) -> str:
        return _PIECE.sub(lambda found: _made_up(found.group(), salt), text)

    return veil


def _made_up(piece: str, salt: bytes) -> str:
    lower = piece.lower()
    if len(lower) <= _SHORT or lower.isdigit():
        made = lower.translate(_PERMUTED)
    else:
        digest = hashlib.sha256(salt + lower.encode()).digest()
        letters = "".join(chr(ord("a") + byte % 26) for byte in digest)
        made = (letters * (len(lower) // len(letters) + 1))[: len(piece)]
    return made.capitalize() if piece[0].isupper() else made


def samples(records: Iterable[Mapping[str, Any]], veil: Veil) -> Records:
    """Sampled answers without their prompts."""
    return [
        {
            "step": sample["step"],
            "probe": sample["probe"],
            "id": short(str(sample["id"])),
            "answer": veil(str(sample["answer"])),
            "reference": veil(str(sample["reference"])) if sample.get("reference") else None,
            "stop_reason": sample["stop_reason"],
        }
        for sample in records
    ]


def preflight(found: Mapping[str, Any], veil: Veil) -> dict[str, Any]:
    """What was measured on the data: numbers, ids and veiled openers."""
    kept: dict[str, Any] = {}
    if rows := found.get("rows"):
        leaks = [{side: short(str(pair[side])) for side in pair} for pair in rows["leaks"]]
        kept["rows"] = {k: v for k, v in rows.items() if k != "duplicates"} | {"leaks": leaks}
    if answers := found.get("answers"):
        kept["answers"] = _answers(answers, veil)
    if usage := found.get("usage"):
        kept["usage"] = _usage(usage)
    return kept


def _answers(found: Mapping[str, Any], veil: Veil) -> dict[str, Any]:
    kept = {**found, "opener": veil(str(found["opener"]))}
    if reference := found.get("reference"):
        kept["reference"] = _answers(reference, veil)
    return kept


def _usage(found: Mapping[str, Any]) -> dict[str, Any]:
    topics = numbered(found["slices"].values())
    told = found["classifier"]
    return {
        "n": found["n"],
        "p_values": {short(name): p for name, p in found["p_values"].items()},
        "groups": [
            {"label": f"group {i}", "ids": [short(name) for name in group["ids"]]}
            for i, group in enumerate(found["groups"])
        ],
        "classifier": told and {"auc": told["auc"], "p": told["p"]},
        "facts": [
            {"name": fact["name"], "differs": fact["differs"], "message": f"{fact['name']}."}
            for fact in found["facts"]
        ],
        "slices": {short(name): f"topic {topics[key]}" for name, key in found["slices"].items()},
    }


def token_columns(tables: Mapping[str, dict[str, Any]]) -> None:
    """Number the token ids of all `tables` anew, in place; equal ones stay equal."""
    columns = [
        table["columns"][name]
        for table in tables.values()
        for name in _TOKENS
        if name in table["columns"]
    ]
    number = numbered(token for rows in columns for row in rows for token in row)
    for rows in columns:
        rows[:] = [[None if t is None else number[t] for t in row] for row in rows]


def numbered(values: Iterable[Any]) -> dict[Any, int]:
    """A number for each value that is not None, in the order they come."""
    return {value: i for i, value in enumerate(dict.fromkeys(v for v in values if v is not None))}


def short(name: str) -> str:
    """An example's id without the folder its file lay in."""
    return name.rpartition("/")[2]


def texts_of(records: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> list[Any]:
    """All texts that a run recorded, for `make_veil`."""
    return [[dict(record) for record in records], dict(found)]
