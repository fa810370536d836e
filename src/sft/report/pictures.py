"""The pictures of the pages that are files: SVG by matplotlib, light and dark, with its words.

A picture is drawn once, in the colours of paper; for dark screens its colours are exchanged. All
text in it is ours, and none is read as a formula. The same figures give the same bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sft.report.claims import SHORT
from sft.runs.metrics import METRICS
from sft.texts.numbers import interval_text, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito (2008), which stay apart for the colour-blind, as light and dark.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#007a5a", "#aa4f86"
TEXT, QUIET, LINE, RED = "#1d1f22", "#5c6168", "#dcdcd6", "#a5231b"
_DARK = {
    BLUE: "#5db8f0",
    ORANGE: "#f0a04b",
    GREEN: "#37c79b",
    PINK: "#e39cc6",
    TEXT: "#e5e6e4",
    QUIET: "#a0a6ae",
    LINE: "#343940",
    RED: "#ff9d93",
}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
_EVALS = {  # colour, marker, line
    "val": (ORANGE, "o", "-"),
    "usage": (GREEN, "s", "-"),
    "train_probe": (PINK, "^", ":"),
}
_NAMES = {"val": "validation", "usage": "usage", "train_probe": "training rows, same few"}
WIDE, NARROW, SMALL = 920, 350, 450  # px
_LENGTH_MARKS = ("median", "95 %")
# A logarithmic axis where the highest is so many times the lowest.
_LOG_FROM = 25


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: `light` and `dark` as `data:` addresses, and in `alt` what it shows."""

    light: str
    dark: str
    alt: str


@contextmanager
def _style() -> Iterator[None]:
    """Our style for the block: no formulas in text, text as text, the same ids every time."""
    import matplotlib

    settings = {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "sft",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: measured alike everywhere
        "font.size": 11,
        "axes.edgecolor": QUIET,
        "axes.labelcolor": QUIET,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "text.color": TEXT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.unicode_minus": True,
        "path.simplify": False,
    }
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        yield


def _picture(width: int, height: int, alt: str, draw: Callable[[Figure], None]) -> Picture:
    from matplotlib.figure import Figure as NewFigure

    drawing = NewFigure(figsize=(width / 72, height / 72), layout="constrained")
    draw(drawing)
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    drawing.savefig(out, format="svg", transparent=True, metadata=nothing)
    light = out.getvalue().replace("'DejaVu Sans'", _FONTS)
    dark = light
    for old, new in _DARK.items():
        dark = dark.replace(old, new)
    return Picture(_address(light), _address(dark), alt)


def _address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def pictures(facts: Mapping[str, Any]) -> dict[str, dict[str, Picture]]:
    """All pictures by name, each in the widths it is needed in (`wide`, `narrow`)."""
    result: dict[str, dict[str, Picture]] = {}
    with _style():
        claims = _changes(facts)
        if claims:
            result["change"] = {
                name: _change_picture(claims, width)
                for name, width in (("wide", WIDE), ("narrow", NARROW))
            }
        result |= _curve_pictures(facts.get("curves") or {})
    lengths = (facts.get("data") or {}).get("lengths")
    if lengths:
        result["lengths"] = lengths_pictures(lengths)
    return result


# ------------------------------------------------------------------ the change of each probe


def _changes(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The paired changes of losses that have an interval."""
    claims = (facts.get("answer") or {}).get("claims", [])
    named = [c for c in claims if c["id"].endswith("_loss") and c["id"][:-5] in SHORT]
    return [claim for claim in named if claim["interval"] is not None]


def _change_picture(claims: Sequence[Mapping[str, Any]], width: int) -> Picture:
    """A dot and its interval for each probe, beside the line of no change."""

    def draw(drawing: Figure) -> None:
        axes = drawing.subplots()
        for place, claim in enumerate(claims):
            retain = claim["id"] == "retain_loss"
            colour, marker = (ORANGE, "s") if retain else (BLUE, "o")
            low, high = claim["interval"]
            axes.plot([low, high], [place, place], color=colour, linewidth=2.5)
            axes.plot([claim["value"]], [place], marker=marker, color=colour, markersize=8)
            if retain and claim["budget"] is not None:
                axes.plot([claim["budget"]] * 2, [place - 0.3, place + 0.3], color=RED)
        axes.axvline(0, color=QUIET, linewidth=0.8)
        axes.set_ylim(len(claims) - 0.5, -0.6)
        labels = [_label(claim, narrow=width < WIDE) for claim in claims]
        axes.set_yticks(range(len(claims)), labels, color=TEXT)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("change of the loss, nats per token; left is better")
        _plain_ticks(axes.xaxis)

    alt = "Change of the loss against the base model, with its 95 % interval. " + " ".join(
        f"{SHORT[claim['id'][:-5]].capitalize()}: {signed(claim['value'])} "
        f"({interval_text(tuple(claim['interval']))})."
        for claim in claims
    )
    return _picture(width, 64 + 44 * len(claims), alt, draw)


def _label(claim: Mapping[str, Any], narrow: bool) -> str:
    probe = claim["id"][:-5]
    name = "what it knew" if probe == "retain" else SHORT[probe]
    return f"{name}\n({claim['n']:,})" if narrow else f"{name} ({claim['n']:,})"


# ------------------------------------------------------------------ curves


def _curve_pictures(curves: Mapping[str, Any]) -> dict[str, dict[str, Picture]]:
    result: dict[str, dict[str, Picture]] = {}
    for name, line in (curves.get("lines") or {}).items():
        if not line["drawn"]:
            continue
        sizes, marked = {"wide": (SMALL, 230)}, ""
        if name == "loss":
            sizes = {"wide": (WIDE, 340), "narrow": (NARROW, 320)}
            marked = ". ".join(curves.get("marks_words") or [])
        draw = partial(_draw_curve, name=name, line=line, curves=curves)
        alt = f"{line['words']} {marked}".strip()
        result[name] = {size: _picture(*pixels, alt, draw) for size, pixels in sizes.items()}
    return result


def _draw_curve(
    drawing: Figure, name: str, line: Mapping[str, Any], curves: Mapping[str, Any]
) -> None:
    axes = drawing.subplots()
    smooth = line["smooth"]
    faint = bool(smooth["y"])
    if line["y"]:
        axes.plot(
            line["x"],
            line["y"],
            color=BLUE,
            linewidth=0.9 if faint else 1.8,
            alpha=0.4 if faint else 1.0,
            label="each step" if faint else "training",
            marker="." if len(line["y"]) == 1 else None,
        )
    if faint:
        axes.plot(smooth["x"], smooth["y"], color=BLUE, linewidth=2, label="smoothed")
    for evaluation, points in line["evaluations"].items():
        _draw_eval(axes, evaluation, points)
    if name == "grad_norm" and curves.get("clip"):
        axes.axhline(curves["clip"], color=QUIET, linestyle="--", linewidth=1, label="clip")
    _scale(axes, name, line)
    axes.set_xlabel("step")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    if name == "loss":
        _draw_marks(axes, curves.get("marks") or [])
    _legend(drawing, axes, name)


def _draw_eval(axes: Axes, evaluation: str, points: Mapping[str, Any]) -> None:
    probe = next((probe for probe in _EVALS if evaluation.startswith(probe)), "val")
    colour, marker, style = _EVALS[probe]
    axes.plot(
        points["x"],
        points["y"],
        color=colour,
        marker=marker,
        linestyle=style,
        linewidth=1.8,
        markersize=5,
        label=_NAMES[probe],
    )


# kind of mark: (name, marker, colour, height in the axes)
_MARKS = {
    "checkpoint": ("checkpoint", "|", QUIET, 0.015),
    "watch": ("first watch", "v", ORANGE, 0.975),
    "alarm": ("first alarm", "X", RED, 0.975),
}
_LINES = {"chosen": (GREEN, "--"), "resumed": (QUIET, ":"), "stopped": (QUIET, "-.")}
_ENDS = ("interrupted", "failed")


def _draw_marks(axes: Axes, marks: Sequence[Mapping[str, Any]]) -> None:
    """Checkpoints along the bottom, verdicts along the top, lines for what cut the run."""
    for kind, (label, marker, colour, height) in _MARKS.items():
        steps = sorted({mark["step"] for mark in marks if mark["kind"] == kind})
        if steps:
            axes.plot(
                steps,
                [height] * len(steps),
                transform=axes.get_xaxis_transform(),
                linestyle="none",
                marker=marker,
                markersize=7,
                color=colour,
                label=label,
            )
    for kind in (*_LINES, *_ENDS):
        colour, style = _LINES.get(kind, (RED, ":"))
        for first, step in enumerate(m["step"] for m in marks if m["kind"] == kind):
            label = kind if not first else "_"
            axes.axvline(step, color=colour, linestyle=style, linewidth=1.2, label=label)


def _scale(axes: Axes, name: str, line: Mapping[str, Any]) -> None:
    """Powers where the values span many, and ticks without formulas."""
    values = [*line["y"], *(y for points in line["evaluations"].values() for y in points["y"])]
    positive = [value for value in values if value > 0]
    spans = len(positive) == len(values) and max(values) > _LOG_FROM * min(values)
    if spans and (name == "loss" or (name in METRICS and METRICS[name].axis == "log")):
        axes.set_yscale("log")
    _plain_ticks(axes.yaxis)
    _plain_ticks(axes.xaxis, whole=True)


def _plain_ticks(axis: Any, whole: bool = False, most: int = 6) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if axis.get_scale() != "log":
        axis.set_major_locator(MaxNLocator(nbins=most, integer=whole))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float) -> str:
    """`0.5`, `12`, `1,200`, `2e-05`."""
    size = abs(value)
    text = f"{value:,.0f}" if 1000 <= size < 1e7 else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}") if "e" not in text else text


def _legend(drawing: Figure, axes: Axes, name: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return
    narrow = drawing.get_figwidth() * 72 < WIDE
    rows = -(-len(labels) // ((2 if name == "loss" else 3) if narrow else 7))
    drawing.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=-(-len(labels) // rows),  # so that the rows are about equally long
        frameon=False,
        fontsize=10,
        handlelength=1.6,
        columnspacing=1.2,
    )


# ------------------------------------------------------------------ lengths


def lengths_pictures(lengths: Mapping[str, Any]) -> dict[str, Picture]:
    """How many tokens the rows have, and how many of them are trained; wide and narrow.

    `lengths` has `edges`, `max_seq_len`, and for `all` and `trained` tokens `counts` of rows in
    each bin and `quantiles` by name (`median`, `95 %`, `longest`).
    """
    every, trained = lengths["all"]["quantiles"], lengths["trained"]["quantiles"]
    alt = (
        f"Tokens per row: median {every['median']:,}, 95 % at most {every['95 %']:,}, longest "
        f"{every['longest']:,}; max_seq_len {lengths['max_seq_len']:,}. Trained tokens: median "
        f"{trained['median']:,}, 95 % at most {trained['95 %']:,}, longest {trained['longest']:,}."
    )

    def draw(drawing: Figure) -> None:
        upper, lower = drawing.subplots(2, 1, sharex=True)
        _draw_lengths(upper, lengths, "all", BLUE)
        _draw_lengths(lower, lengths, "trained", GREEN)
        lower.set_xlabel("tokens of a row")

    with _style():
        return {
            name: _picture(width, 320, alt, draw)
            for name, width in (("wide", WIDE), ("narrow", NARROW))
        }


def beyond_axis(lengths: Mapping[str, Any]) -> bool:
    """Is `max_seq_len` too far from the longest row to be drawn to scale?"""
    return bool(lengths["max_seq_len"] > 1.5 * max(lengths["edges"][-1], 1.0))


def bar_heights(counts: Sequence[int]) -> list[float]:
    """`counts`, but so that a single row among thousands is seen too."""
    least = 0.018 * max(*counts, 1)
    return [max(count, least) if count else 0.0 for count in counts]


def _draw_lengths(axes: Axes, lengths: Mapping[str, Any], name: str, colour: str) -> None:
    edges, limit, beyond = lengths["edges"], lengths["max_seq_len"], beyond_axis(lengths)
    end = max(edges[-1], 1.0, 0 if beyond else limit)
    axes.stairs(bar_heights(lengths[name]["counts"]), edges, fill=True, color=colour)
    axes.set_xlim(0, end)
    axes.set_ylabel("all tokens" if name == "all" else "trained tokens")
    quantiles = lengths[name]["quantiles"]
    marks = [(f"{key} {quantiles[key]:,}", quantiles[key], QUIET, ":") for key in _LENGTH_MARKS]
    if name == "all":
        marks.append((f"max_seq_len {limit:,}" + " →" * beyond, limit, RED, "--"))
    for level, (text, value, tone, style) in enumerate(marks):
        if value <= end:
            axes.axvline(value, color=tone, linestyle=style, linewidth=1)
        place = min(value, end)
        left = place > end / 2
        axes.annotate(
            text,
            (place, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-4 if left else 4, 2 + 12 * level),
            textcoords="offset points",
            ha="right" if left else "left",
            color=tone,
            fontsize=10,
        )
    _plain_ticks(axes.yaxis, whole=True, most=3)
    _plain_ticks(axes.xaxis, whole=True)
