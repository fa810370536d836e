"""Characters that were broken on the way, and markers of chat templates left in the text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, Severity, example_finding

# UTF-8 that was read as Windows-1252 or Latin-1: "Ã©" for "é", "â€™" for an apostrophe.
_MOJIBAKE = re.compile(
    "[\u00c3\u00c2][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
    "|\u00e2\u20ac[\u0080-\u00bf\u0152\u0153\u02dc\u201c\u201d\u2122\u00a6]|\u00ef\u00bf\u00bd"
    "|\u00f0\u0178[\u0080-\u00bf\u0152\u0153\u2018-\u201d\u02dc\u2122]"
    "|(?:[\u00d0\u00d1][\u0080-\u00bf\u201a-\u2122\u0152\u0192]){3}"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad\u2028\u2029]")
_ENTITY = re.compile(
    r"&(?:amp|lt|gt|quot|apos|nbsp|#39|#x27|#34|rsquo|lsquo|ldquo|rdquo|mdash|ndash);"
)
_MARKUP = re.compile(r"```|<[a-zA-Z/!][^>\n]*>|\bhtml\b|\bxml\b|\bentit(?:y|ies)\b|https?://", re.I)
_ESCAPED = re.compile(r"(?<!\\)\\n")
_IN_CODE = re.compile(r"['\"{(;=\\]\\n|\\n['\"]")
_CYRILLIC = re.compile("[\u0400-\u04ff]")
_LOOK_ALIKES = frozenset(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425"
    "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u0456"
)
MAX_LOOK_ALIKES = 3  # more of them are a Russian word
_BORDER = re.compile(r"^\s*<s>|</s>\s*$")
_STRUCK = re.compile(r"[^\n]<s>.*</s>|<s>.*</s>[^\n]", re.S)
_TOKENS = re.compile(
    r"<\|[a-zA-Z][\w ]{1,30}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?(?:bos|eos)>"
    r"|<(?:pad|unk)>|<\uff5c[^>\n]{1,40}\uff5c>"
)


def encoding(corpus: Corpus) -> list[DataFinding]:
    """Characters that were broken on the way: by a wrong decoding, an export, or on purpose."""
    examples: dict[str, list[tuple[int, str]]] = {}
    for row, _, text in corpus.contents:
        for kind, at in _broken(text):
            examples.setdefault(kind, []).append((row, text[max(0, at - 25) : at + 25]))
    return [
        one
        for kind, (severity, fix) in _BROKEN_KINDS.items()
        for one in example_finding(
            corpus, "encoding", severity, examples.get(kind, []), f"with {kind}", fix
        )
    ]


_REREAD = "read the source again as UTF-8, or sft curate DATA --drop encoding --out FILE"
_BROKEN_KINDS: dict[str, tuple[Severity, str]] = {
    "UTF-8 that was decoded as another encoding": ("warning", _REREAD),
    "the replacement character U+FFFD: bytes were lost": ("warning", _REREAD),
    "control characters": ("warning", "remove them, or --drop encoding"),
    "characters that turn the direction of the text around": ("warning", "remove them"),
    "HTML entities in plain text": (
        "warning",
        "html.unescape in Python turns them into characters",
    ),
    "line breaks written as backslash and n": ("warning", "replace them by real line breaks"),
    "Cyrillic letters that look like Latin ones": (
        "info",
        "write them in Latin: they are other tokens",
    ),
    "invisible characters": ("info", "remove them; each is a token of its own"),
    "letters and accents in two characters (not NFC)": (
        "info",
        "unicodedata.normalize('NFC', text) in Python: models know the one-character form",
    ),
}


def _broken(text: str) -> Iterable[tuple[str, int]]:
    """What is broken in a text, and where it is first."""
    _, _, control, _, entities, escaped, *_ = _BROKEN_KINDS
    if "&" in text and (match := _ENTITY.search(text)) and not _MARKUP.search(text):
        yield entities, match.start()
    if "\\n" in text and (at := _escaped_break(text)) >= 0:
        yield escaped, at
    if match := _CONTROL.search(text):
        yield control, match.start()
    if not text.isascii():
        yield from _broken_letters(text)


def _broken_letters(text: str) -> Iterable[tuple[str, int]]:
    """What is broken among the letters that are not ASCII."""
    mojibake, lost, _, bidi, _, _, alike, invisible, parts = _BROKEN_KINDS
    for kind, pattern in ((mojibake, _MOJIBAKE), (bidi, _BIDI)):
        if match := pattern.search(text):
            yield kind, match.start()
    if "\ufffd" in text:
        yield lost, text.index("\ufffd")
    if match := _INVISIBLE.search(text):
        yield invisible, match.start()
    cyrillic = _CYRILLIC.findall(text)
    if 0 < len(cyrillic) <= MAX_LOOK_ALIKES and _LOOK_ALIKES.issuperset(cyrillic):
        yield alike, text.index(cyrillic[0])
    if not unicodedata.is_normalized("NFC", text):
        yield parts, next((i for i, c in enumerate(text) if unicodedata.combining(c)), 0)


def _escaped_break(text: str) -> int:
    """Where a text has its first of several breaks as two characters, outside code; or -1."""
    if "\n" in text.strip() or "```" in text or _IN_CODE.search(text):
        return -1
    breaks = [match.start() for match in _ESCAPED.finditer(text)]
    return breaks[0] if len(breaks) > 1 else -1


def _marker(text: str) -> re.Match[str] | None:
    """The first marker of a template; <s> and </s> around words in between strike them out."""
    if "<" not in text and "[" not in text:
        return None
    marker = _TOKENS.search(text)
    if marker is None and "s>" in text and not _STRUCK.search(text.strip()):
        marker = _BORDER.search(text)
    return marker


def special_text(corpus: Corpus) -> list[DataFinding]:
    """Markers of chat templates inside the text, left there by an export.

    The text is encoded as text, so that the model would learn to write these characters.
    """
    examples = [
        (row, text[max(0, match.start() - 20) : match.end() + 30])
        for row, _, text in corpus.contents
        if (match := _marker(text))
    ]
    return example_finding(
        corpus,
        "special_text",
        "warning",
        examples,
        "with markers of a chat template inside the text, where they are no control tokens",
        "export messages without the template (data.format: messages), or "
        "sft curate DATA --drop special_text --out FILE",
    )
