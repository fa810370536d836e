"""Text of data made safe to show: on a terminal, on a page, in a block of JSON.

Rows, answers, names and paths are hostile until proven otherwise. A template escapes tags; what is
here deals with the rest: characters that hide or reorder others, and JSON inside of HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

# What hides or reorders text, or steers a terminal, one set for every target: control characters,
# direction overrides, and what is invisible (zero width space, line separators, tags, halves of
# surrogate pairs). Tabs and line feeds stay, and joiners, which emoji and several scripts need.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
    "\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
_NOT_ON_A_LINE = re.compile(f"{UNSAFE.pattern}|[\t\n]")


def printable(text: str) -> str:
    """`text` for a terminal, or a service: each unsafe character as `\ufffd`, one column wide."""
    return UNSAFE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """`text` for a message of one line: unsafe characters, tabs and line feeds escaped."""
    return _NOT_ON_A_LINE.sub(lambda found: ascii(found[0])[1:-1], text)


def visible(text: str) -> str:
    """`text` for a page or Markdown: each unsafe character spelled out, as `⟨U+202E⟩`."""
    return UNSAFE.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def all_visible(value: Any) -> Any:
    """A copy of `value` in which all text is visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {all_visible(key): all_visible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [all_visible(item) for item in value]
    return value


def percent(share: float) -> str:
    """`12 %`, and `0.4 %` where whole numbers would say 0; never 0 or 100 unless it is."""
    value = 100 * share
    rounded = f"{value:.0f}"
    if (rounded == "0" and value > 0) or (rounded == "100" and value < 100):
        rounded = f"{value:.1f}" if 0.05 <= value < 99.95 else "< 0.1" if value < 1 else "> 99.9"
    return f"{rounded} %"


def as_json(value: Any) -> str:
    """JSON for a `<script>` block: nothing in it can end the block or start a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def digest(text: str) -> str:
    """The source expression by which a Content-Security-Policy allows `text`."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
