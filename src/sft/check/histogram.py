"""The distribution of lengths as SVG, made from counts alone: no text of the data is in it."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from sft.data.lengths import Lengths

_TOP, _BARS, _AXIS = 46, 84, 26  # heights of the marks' labels, the bars, and the axis, in px
_LEFT, _RIGHT = 1, 9
# Beyond this multiple of the longest row the limit is drawn at the end of the axis, as an arrow.
_MAX_STRETCH = 1.5
_CHARACTER = 6.6  # width of a character of a label, in px


def histogram(lengths: Lengths, width: int) -> Markup:
    """Two histograms, one above the other: all tokens of a row, and those that are trained.

    They share the horizontal axis, from 0 to the longest row (or `data.max_seq_len`, when that is
    near). `width` is in pixels; the drawing shrinks and grows with its container.
    """
    panel = _Panel(lengths, width)
    height = _TOP + _BARS + _AXIS
    upper = panel.draw("all", lengths.all_counts, lengths.all_quantiles)
    lower = panel.draw("trained", lengths.trained_counts, lengths.trained_quantiles)
    text = (
        f"Tokens per row: median {lengths.all_quantiles[1]:,}, 95 % at most "
        f"{lengths.all_quantiles[2]:,}, longest {lengths.all_quantiles[3]:,}. Trained tokens: "
        f"median {lengths.trained_quantiles[1]:,}, 95 % at most {lengths.trained_quantiles[2]:,}."
    )
    return Markup(
        f'<svg class="histogram" viewBox="0 0 {width} {2 * height}" role="img" '
        f'aria-label="{text}">{upper}<g transform="translate(0 {height})">{lower}</g></svg>'
    )


def beyond_axis(lengths: Lengths) -> bool:
    """Is `max_seq_len` too far from the longest row to be drawn to scale?"""
    return lengths.max_seq_len > _MAX_STRETCH * max(lengths.edges[-1], 1.0)


class _Panel:
    """One histogram: bars, marks and axis in coordinates of its own."""

    def __init__(self, lengths: Lengths, width: int) -> None:
        longest = max(lengths.edges[-1], 1.0)
        self.edges, self.limit = lengths.edges, lengths.max_seq_len
        self.limit_fits = not beyond_axis(lengths)
        self.end = max(longest, float(self.limit)) if self.limit_fits else longest
        self.width = width

    def x(self, tokens: float) -> float:
        """Horizontal place of a number of tokens."""
        return _LEFT + (self.width - _LEFT - _RIGHT) * min(tokens / self.end, 1.0)

    def draw(self, name: str, counts: Sequence[int], quantiles: Sequence[int]) -> str:
        """The whole panel; `name` is the class of its bars."""
        title = "all tokens" if name == "all" else "trained tokens"
        parts = [
            f'<text class="panel" x="{_LEFT}" y="12">{title}</text>',
            self._bars(name, counts),
            self._axis(),
            self._mark(quantiles[1], f"median {quantiles[1]:,}", 40),
            self._mark(quantiles[2], f"95 % {quantiles[2]:,}", 27),
        ]
        if name == "all":
            label = f"max_seq_len {self.limit:,}" + " →" * (not self.limit_fits)
            parts.append(self._mark(self.limit, label, 12, "limit"))
        return "".join(parts)

    def _bars(self, name: str, counts: Sequence[int]) -> str:
        most = max(*counts, 1)
        bars = []
        for low, high, count in zip(self.edges, self.edges[1:], counts, strict=False):
            if count:
                left, right = self.x(low), self.x(high)
                # A single row among thousands is seen too.
                size = max(_BARS * count / most, 1.5)
                bars.append(
                    f'<rect class="bar {name}" x="{left:.1f}" y="{_TOP + _BARS - size:.1f}" '
                    f'width="{max(right - left - 1, 1):.1f}" height="{size:.1f}">'
                    f"<title>{low:,.0f} to {high:,.0f} tokens: {count:,} rows</title></rect>"
                )
        return "".join(bars)

    def _axis(self) -> str:
        base = _TOP + _BARS
        parts = [
            f'<line class="axis" x1="{_LEFT}" x2="{self.width - _RIGHT}" y1="{base}" y2="{base}"/>'
        ]
        for tick in _ticks(self.end, 4 if self.width < 500 else 8):
            x, anchor = self.x(tick), "middle" if tick else "start"
            if x + len(f"{tick:,}") * _CHARACTER / 2 <= self.width:
                parts.append(
                    f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>'
                    f'<text x="{x:.1f}" y="{base + 17}" text-anchor="{anchor}">{tick:,}</text>'
                )
        return "".join(parts)

    def _mark(self, tokens: int, label: str, y: int, kind: str = "quantile") -> str:
        """A vertical line with its label at height `y`, on the side where there is room."""
        x = self.x(tokens)
        left = x + len(label) * _CHARACTER + 6 > self.width
        anchor, at = ("end", x - 4) if left else ("start", x + 4)
        return (
            f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 9}" y2="{_TOP + _BARS}"/>'
            f'<text class="{kind}" x="{at:.1f}" y="{y}" text-anchor="{anchor}">{label}</text>'
        )


def _ticks(end: float, most: int) -> list[int]:
    """Round numbers from 0 to `end`, at most `most` steps apart."""
    step = 1
    while end / step > most:
        digits = str(step)
        step = step * 5 // 2 if digits[0] == "2" else step * 2
    return list(range(0, int(end) + 1, step))
