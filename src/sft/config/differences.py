"""Where two configurations differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed between two trees: `optim.learning_rate: was 2e-05, now 0.0001`."""
    before, after = dict(_leaves(saved)), dict(_leaves(now))
    lines = []
    for key in [*before, *(key for key in after if key not in before)]:
        if key not in after:
            lines.append(f"{key}: was {_shown(before[key])}, now absent")
        elif key not in before:
            lines.append(f"{key}: was absent, now {_shown(after[key])}")
        elif before[key] != after[key] and repr(before[key]) != repr(after[key]):  # nan != nan
            lines.append(f"{key}: was {_shown(before[key])}, now {_shown(after[key])}")
    return lines


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


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:38]}...{text[-38:]}"
