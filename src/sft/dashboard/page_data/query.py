"""Values of a query: text from an address, which may be anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sft.errors import ConfigError, did_you_mean


def choice(query: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    """One of `known`; the first where nothing is asked.

    Raises:
        ConfigError: it is none of them.
    """
    value = query.get(name) or known[0]
    if value not in known:
        hint = did_you_mean(value, known)
        raise ConfigError(f"{name}: found {value[:60]!r}, expected {', '.join(known)}.{hint}")
    return value


def decimal(query: Mapping[str, str], name: str) -> float | None:
    """A finite number; None where nothing is asked.

    Raises:
        ConfigError: it is not a number.
    """
    text = query.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{name}: found {text[:60]!r}, expected a number")
    return value


def between(query: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    """A number, moved into `low` to `high`.

    Raises:
        ConfigError: it is not a number.
    """
    value = decimal(query, name)
    return min(max(default if value is None else value, low), high)
