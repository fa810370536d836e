"""`report.html`: what `facts` found of a run, as one file without a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup, escape

from sft.report.document import document
from sft.report.pictures import Picture, beyond_axis, pictures
from sft.texts import numbers
from sft.texts.safe import all_visible

MAX_TEXT = 4_000  # characters of a message, a reason or an event
SECTIONS = (
    ("answer", "Before and after"),
    ("verdicts", "Verdicts"),
    ("curves", "Curves"),
    ("watch", "What to watch"),
    ("samples", "Samples"),
    ("data", "Data"),
    ("incidents", "Incidents"),
    ("settings", "Settings"),
    ("again", "Do it again"),
    ("missing", "Not measured"),
)


def render(facts: Mapping[str, Any]) -> str:
    """The page as HTML text. The same facts give the same text.

    A picture that cannot be drawn is left out, and the page says so.
    """
    drawn, problem = _drawn(facts)
    safe = all_visible(facts)
    settings = safe["settings"]
    lengths = (facts.get("data") or {}).get("lengths")
    values = {
        "facts": safe,
        "pictures": drawn,
        "small_curves": [n for n in _lines(safe) if n in drawn and n != "loss"],
        "curve_titles": {name: line["title"] for name, line in _lines(safe).items()},
        "lengths_beyond": beyond_axis(lengths) if lengths else False,
        "chosen_settings": [row for row in settings if row["source"] != "default"],
        "other_settings": [row for row in settings if row["source"] == "default"],
        "problems": [*safe["problems"], *problem],
        "in_unit": numbers.in_unit,
        "change_in_unit": numbers.change_in_unit,
        "interval": _interval,
        "p_text": numbers.p_text,
        "counted": numbers.counted,
    }
    filters: dict[str, Callable[..., Any]] = {
        "ticked": _ticked,
        "figure": numbers.figure,
        "signed": numbers.signed,
        "span": numbers.span,
    }
    return document("sft.report", values, sections=SECTIONS, max_text=MAX_TEXT, filters=filters)


def _drawn(facts: Mapping[str, Any]) -> tuple[dict[str, dict[str, Picture]], list[str]]:
    try:
        return pictures(facts), []
    except Exception as error:  # figures of an odd folder; the tables are still true
        return {}, [f"the pictures could not be drawn ({type(error).__name__}: {error})"[:300]]


def _lines(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    lines: Mapping[str, Any] = facts["curves"].get("lines", {})
    return lines


def _ticked(text: str) -> Markup:
    """Text in which what stands between backticks is code, as our messages have it."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def _interval(claim: Mapping[str, Any]) -> str:
    """The interval of a change, or of the value after where that is what was measured."""
    ends = claim["interval"]
    if ends is None:
        return ""
    form = numbers.points if claim["unit"].startswith("share") else numbers.signed
    return numbers.interval_text((ends[0], ends[1]), form)
