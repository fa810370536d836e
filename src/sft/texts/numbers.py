"""Numbers as the report writes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

MINUS = "\N{MINUS SIGN}"


def figure(value: float | None, digits: int = 3) -> str:
    """`0.833`, `12.2`, `16,010`: three figures or so, a true minus sign; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-6:
        text = f"{size:.2e}"
    elif 0 < size < 0.5 * 10**-digits:
        text = f"{size:.{-math.floor(math.log10(size))}f}"
    elif size >= 100:
        text = f"{size:,.0f}"
    else:
        text = f"{size:.{digits if size < 10 else 1}f}"
    return MINUS + text if value < 0 else text


def signed(value: float | None) -> str:
    """`figure` with a plus sign where it is above 0."""
    return ("+" if value is not None and value > 0 else "") + figure(value)


def points(share: float | None) -> str:
    """A difference of shares: `+22.6 points`."""
    if share is None:
        return figure(None)
    sign = "+" if share > 0 else MINUS if share < 0 else ""
    return f"{sign}{abs(100 * share):.1f} points"


def share(value: float | None) -> str:
    """`74.4 %`."""
    return figure(None) if value is None else f"{100 * value:.1f} %"


def interval_text(
    interval: tuple[float, float] | None, shown: Callable[[float], str] = signed
) -> str:
    """`-1.857 to -1.507`."""
    if interval is None:
        return "not known"
    low, high = (shown(end) for end in interval)
    return f"{low.removesuffix(' points')} to {high}"


def p_text(p: float | None) -> str:
    """`p = 0.012`, `p < 0.001`."""
    if p is None:
        return "not tested"
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def in_unit(value: float | None, unit: str) -> str:
    """A value of an evaluation, by its unit."""
    return share(value) if unit.startswith("share") else figure(value)


def change_in_unit(value: float | None, unit: str) -> str:
    """A change of such a value."""
    return points(value) if unit.startswith("share") else signed(value)


def span(seconds: float | None) -> str:
    """`3 min 21 s`, `2 h 05 min`."""
    if seconds is None:
        return "not known"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def setting_text(value: Any) -> str:
    """A value of the config as one would write it in YAML, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(setting_text(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {setting_text(v)}" for k, v in value.items()) + "}"
    return str(value)
