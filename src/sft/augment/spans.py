"""What must not be touched in a text: code, quotes, numbers, addresses, places to fill in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_FENCED = r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)"
_INLINE = r"`[^`\n]+`"
# A straight single quote is one only where no letter stands before the first or after the second.
_QUOTED = (
    r'"[^"\n]+"|\u201c[^\u201d\n]+\u201d|\u00ab[^\u00bb\n]+\u00bb|\u201e[^\u201c\n]+\u201c'
    r"|\u2018[^\u2019\n]+\u2019(?!\w)|(?<!\w)'[^'\n]+'(?!\w)"
)
_ADDRESS = r"https?://\S+|www\.\S+|\S+@\S+\.\w+"
_SLOT = r"\{[^{}\n]*\}|\[[^\[\]\n]*\]|<[^<>\n]*>"
_WITH_DIGIT = r"\S*\d\S*"
# A line with signs that only code has: a bracket after a name, or an assignment.
_CODE_LINE = r"^[^\n]*(?:[{}\\|^~_]|;[ \t]*$|=[^\n]|\w\()[^\n]*$"
_KEPT = re.compile("|".join((_FENCED, _INLINE, _QUOTED, _ADDRESS, _SLOT)), re.DOTALL)
# Looked for once what is kept is hidden: `f(x)` in a sentence does not make it a line of code.
_HIDDEN = "\0"
_UNTOUCHED = re.compile("|".join((_CODE_LINE, f"{_HIDDEN}+", _WITH_DIGIT)), re.MULTILINE)


def kept_texts(text: str) -> list[str]:
    """Code, quoted texts, addresses and places to fill in, as they are in `text`."""
    return [match.group() for match in _KEPT.finditer(text)]


def numbers(text: str) -> Counter[str]:
    """The numbers of a text, digits only, a comma between thousands left out."""
    matches = (match.group() for match in NUMBER.finditer(text))
    return Counter(re.sub(r",(?=\d{3}\b)", "", number) for number in matches)


def free_spans(text: str) -> Iterator[tuple[int, int]]:
    """The parts of `text`, from and to, that may be changed; in order."""
    start = 0
    hidden = _KEPT.sub(lambda match: _HIDDEN * len(match.group()), text)
    for match in _UNTOUCHED.finditer(hidden):
        if match.start() > start:
            yield start, match.start()
        start = match.end()
    if start < len(text):
        yield start, len(text)
