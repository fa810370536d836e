"""How findings are worded: quotes of data that are short and safe to print, numbers, places."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, Severity

MAX_QUOTE = 100  # characters


def quoted(text: str, limit: int = MAX_QUOTE) -> str:
    """`text` in quotation marks, on one line, without characters that do something on a screen."""
    line = " ".join(text[: 8 * limit].split())
    shown = "".join(letter if letter.isprintable() else _escaped(letter) for letter in line)
    return f'"{shown}"' if len(shown) <= limit else f'"{shown[: limit - 3]}..."'


def quoted_end(text: str, limit: int = MAX_QUOTE) -> str:
    """The end of `text`, as `quoted` shows a beginning."""
    line = " ".join(text[-8 * limit :].split())
    shown = "".join(letter if letter.isprintable() else _escaped(letter) for letter in line)
    return f'"{shown}"' if len(shown) <= limit else f'"...{shown[-(limit - 3) :]}"'


def _escaped(letter: str) -> str:
    return f"\\u{ord(letter):04x}"


def count(number: int, noun: str = "row") -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def verb(number: int, plain: str) -> str:
    """The verb for so many: `repeats` for one, `repeat` for more."""
    if number != 1:
        return plain
    return "has" if plain == "have" else f"{plain}s"


def share(number: int, total: int) -> str:
    """`3.2 %`, of a total that may be 0."""
    percent = 100 * number / max(total, 1)
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"


def finding(
    corpus: Corpus, check: str, severity: Severity, rows: Iterable[int], message: str, fix: str = ""
) -> DataFinding:
    """A finding about training rows, given by index; each is counted once, in order."""
    index = sorted(set(rows))
    return DataFinding(
        check, severity, len(index), tuple(corpus.places[i] for i in index), message, fix
    )


def place(corpus: Corpus, row: int) -> str:
    """`file:line` of a training row, printable and without its folders."""
    name = corpus.train[row].origin
    return quoted(f"{PurePath(name.source).name}:{name.line}")[1:-1]


def word_set(text: str) -> frozenset[str]:
    """The words of a text that lists them."""
    return frozenset(text.split())
