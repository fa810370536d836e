"""The line that tells how a run goes: as many of its parts as there is room for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
SPARK_WIDTH = 24
# The narrowest terminals with so many bars of a sparkline: fewer than eight are of no use.
_SPARK_FROM = ((150, 24), (130, 16), (72, 8))
BAR_FROM, BAR_WIDTH = 120, 10  # columns
_MOST_MEANS = 960


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """The values as bars, averaged into at most `width` of them."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    size = -(-len(finite) // width)
    means = [
        sum(finite[i : i + size]) / len(finite[i : i + size]) for i in range(0, len(finite), size)
    ]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in means)


def progress_bar(share: float, width: int = BAR_WIDTH) -> str:
    """`▕████▌     ▏`, in eighths of a column."""
    whole, part = divmod(round(min(max(share, 0.0), 1.0) * width * 8), 8)
    full = "█" * whole + (_EIGHTHS[part] if part else "")
    return f"▕{full:<{width}}▏"


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def roughly(seconds: float) -> str:
    """`41 min`, `5 h 12 min`."""
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class Curve:
    """All values so far as at most `_MOST_MEANS` means, each of equally many of them."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self._each = 1
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """One more value; what is not finite is left out."""
        if not math.isfinite(value):
            return
        self._open.append(value)
        if len(self._open) < self._each:
            return
        self.means.append(sum(self._open) / self._each)
        self._open.clear()
        if len(self.means) == _MOST_MEANS:
            pairs = zip(self.means[::2], self.means[1::2], strict=True)
            self.means = [(a + b) / 2 for a, b in pairs]
            self._each *= 2


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands: its newest step, its losses, its newest evaluation and the one before.

    `left` is the time to the end in seconds, None while that is not known.
    """

    step: Mapping[str, Any]
    num_steps: int
    losses: Sequence[float]
    evaluation: Mapping[str, Any]
    eval_before: Mapping[str, Any]
    left: float | None


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the line. Where there is no room for all, those of a high `rank` are left out.

    `most` is the width that is kept free for it.
    """

    rank: int
    label: str
    value: str
    gap: str = "  "
    most: int = 0

    @property
    def width(self) -> int:
        return len(self.gap) + max(len(f"{self.label} {self.value}".strip()), self.most)


def live_line(standing: Standing, width: int) -> Text:
    """The line for a terminal of `width` columns, in which it never breaks."""
    spark = next((bars for least, bars in _SPARK_FROM if width >= least), 0)
    parts = [*_parts(standing, spark)]
    if width >= BAR_FROM:
        parts.insert(1, _bar(standing))
    while len(parts) > 1 and sum(part.width for part in parts) - len(parts[0].gap) > width:
        parts.remove(max(parts, key=lambda part: part.rank))
    return _joined(parts)


def log_line(standing: Standing) -> str:
    """The line for a log: all there is, but no bar."""
    return _joined([*_parts(standing, SPARK_WIDTH)]).plain


def _joined(parts: Sequence[_Part]) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for part in parts:
        line.append(part.gap if line else "")
        line.append(f"{part.label} " if part.label else "", style="dim")
        line.append(part.value)
    return line


def _bar(standing: Standing) -> _Part:
    share = standing.step["step"] / max(standing.num_steps, 1)
    return _Part(8, "", f"{progress_bar(share)} {share:4.0%}")


def _parts(standing: Standing, spark: int) -> Iterator[_Part]:
    """The parts in the order they are shown in; what was not measured has none."""
    record, evaluation = standing.step, standing.evaluation
    yield _Part(0, "step", f"{record['step']:,}/{standing.num_steps:,}")
    yield _Part(1, "loss", f"{record['loss']:.4f}")
    if spark and standing.losses:
        yield _Part(5, "", sparkline(standing.losses, spark), gap=" ", most=spark)
    if evaluation.get("val_loss") is not None:
        yield _Part(3, "val", f"{evaluation['val_loss']:.4f}{_trend(standing)}")
    yield _Part(6, "lr", f"{record['learning_rate']:.2g}")
    if record.get("grad_norm") is not None:
        yield _Part(9, "|g|", f"{record['grad_norm']:.2g}")
    yield _Part(4, "", f"{record['tokens_per_second']:,.0f} tok/s")
    if record.get("epoch") is not None:
        yield _Part(7, "epoch", f"{record['epoch']:.2f}")
    if standing.left is not None:
        yield _Part(2, "ETA", duration(standing.left))


def _trend(standing: Standing) -> str:
    now, before = standing.evaluation["val_loss"], standing.eval_before.get("val_loss")
    if before is None or now == before:
        return ""
    return " ↓" if now < before else " ↑"
