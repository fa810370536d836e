"""`report.html`: one file that needs no network, no server and no script, and prints well.

All text is shown as text: Jinja escapes it, characters that hide or reorder others are spelled
out, and a Content-Security-Policy allows this one style sheet, pictures inside of the page, and no
request to anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from sft.report import words
from sft.report.pictures import Picture, pictures
from sft.texts.shown import all_visible, digest, percent

MAX_TEXT = 4_000  # characters of a message, a reason or an event
_CURVES = ("perplexity", "accuracy", "learning_rate", "grad_norm", "tokens_per_second")


def render(facts: Mapping[str, Any]) -> str:
    """The page as HTML text. The same facts give the same text.

    A picture that cannot be drawn is left out, and the page says so.
    """
    drawn, problem = _drawn(facts)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        count=lambda number: f"{number:,}",
        percent=percent,
        short=_short,
        ticked=_ticked,
        figure=words.figure,
        signed=words.signed,
        span=words.span,
    )
    environment.globals.update(
        in_unit=words.in_unit,
        change_in_unit=words.change_in_unit,
        interval=_interval,
        p_text=words.p_text,
        counted=words.counted,
    )
    style = _asset("page.css")
    policy = (
        f"default-src 'none'; style-src '{digest(style)}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    shown = all_visible(facts)
    settings = shown["settings"]
    return environment.from_string(_asset("page.html.j2")).render(
        facts=shown,
        policy=policy,
        style=Markup(style),
        pictures=drawn,
        small_curves=[name for name in _CURVES if name in drawn],
        curve_titles={name: line["title"] for name, line in _lines(shown).items()},
        told_settings=[row for row in settings if row["source"] != "default"],
        other_settings=[row for row in settings if row["source"] == "default"],
        problems=[*shown["problems"], *problem],
    )


def _drawn(facts: Mapping[str, Any]) -> tuple[dict[str, dict[str, Picture]], list[str]]:
    try:
        return pictures(facts), []
    except Exception as error:  # figures of an odd folder; the tables are still true
        return {}, [f"the pictures could not be drawn ({type(error).__name__}: {error})"[:300]]


def _lines(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = facts["curves"].get("lines", {})
    return found


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …"


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
    shown = words.points if claim["unit"].startswith("share") else words.signed
    return words.interval_text((ends[0], ends[1]), shown)


def _asset(name: str) -> str:
    return (resources.files("sft.report") / name).read_text(encoding="utf-8")
