"""Where two configurations differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_ABSENT = object()


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed between two trees: `optim.learning_rate: was 2e-05, now 0.0001`."""
    before, after = dict(_leaves(saved)), dict(_leaves(now))
    pairs = {key: (before.get(key, _ABSENT), after.get(key, _ABSENT)) for key in before | after}
    return [
        f"{key}: was {_text(old)}, now {_text(new)}"
        for key, (old, new) in pairs.items()
        if old != new and repr(old) != repr(new)  # nan != nan
    ]


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and (tree or not prefix):
        pairs = list(tree.items())
    elif isinstance(tree, list | tuple) and tree:
        pairs = list(enumerate(tree))
    else:
        yield prefix, tree
        return
    for key, value in pairs:
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


def _text(value: Any) -> str:
    text = "absent" if value is _ABSENT else repr(value)
    return text if len(text) <= 80 else f"{text[:38]}...{text[-38:]}"
