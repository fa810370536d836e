"""Text of anywhere as Markdown that shows it: it can become no tag, link, picture or heading."""

from __future__ import annotations

import re

from sft.texts.safe import visible

_PUNCTUATION = re.compile(r"([\\`*_\[\]<>|~$&])")
# What makes a list, a heading, a line or a quotation at the start of a text.
_START = re.compile(r"^(\d*)([-+=#.)])(?=[-+=#\s]|$)")
# Hubs make links of these by themselves, escaped or not.
_LINKS = re.compile(r"://|www\.|@|\b(?:mailto|xmpp|javascript|data):", re.IGNORECASE)
MOST_TEXT = 600  # characters of one message


def text(raw: str) -> str:
    """`raw` as Markdown that shows it: on one line, escaped, its links as code."""
    raw = _line(raw)
    shown = " ".join(
        code(word) if _LINKS.search(word) else _PUNCTUATION.sub(r"\\\1", word)
        for word in raw.split(" ")
    )
    return _START.sub(r"\1\\\2", shown)


def code(raw: str) -> str:
    """`raw` as code that nothing in it can end, on one line."""
    raw = _line(raw)
    if not raw:
        return "(empty)"
    fence = "`" * (max((len(run) for run in re.findall("`+", raw)), default=0) + 1)
    return f"{fence} {raw} {fence}" if "`" in raw else f"`{raw}`"


def _line(raw: str) -> str:
    raw = " ".join(visible(str(raw)).split())
    return raw if len(raw) <= MOST_TEXT else f"{raw[:MOST_TEXT]} …"
