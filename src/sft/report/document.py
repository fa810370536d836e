"""Pages that are files of their own: they need no network and no server, and print well.

All text is shown as text: Jinja escapes it, characters that hide or reorder others are spelled
out by whoever calls, and a Content-Security-Policy allows this one style sheet, this one script by
its SHA-256 where there is one, pictures inside of the page, and no request to anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from sft.texts.safe import digest, percent


def document(
    room: str,
    values: Mapping[str, Any],
    *,
    sections: Sequence[tuple[str, str]],
    max_text: int,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    script: str = "",
) -> str:
    """The page of `room` (a package, such as `sft.report`) as HTML text.

    It is `page.html.j2` with `values`, in the style of `page.css`; `sections` are (id, title), and
    the filter `short` cuts text after `max_text` characters. The same values give the same text.
    """

    def short(text: str) -> str:
        return text if len(text) <= max_text else f"{text[:max_text]} …"

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: asset(*name.split("/"))),
    )
    environment.filters.update(
        count=lambda number: f"{number:,}", percent=percent, short=short, **(filters or {})
    )
    style = "\n".join((asset("sft.report", "base.css"), asset("sft.report", "document.css"),
                       asset(room, "page.css")))  # fmt: skip
    scripts = f"script-src '{digest(script)}'; " if script else ""
    policy = (
        f"default-src 'none'; style-src '{digest(style)}'; {scripts}img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(f"{room}/page.html.j2").render(
        values, policy=policy, style=Markup(style), script=Markup(script), sections=sections
    )


def asset(package: str, name: str) -> str:
    """The text of a file of a package."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def one_script(modules: Sequence[str]) -> str:
    """Modules as one classic script, those that others import before them."""
    linked = re.compile(r"^import [^;]*;\n|^export (?=const|class|function)", re.MULTILINE)
    return '"use strict";\n' + "\n".join(linked.sub("", text) for text in modules)
