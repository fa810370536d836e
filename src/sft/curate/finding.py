"""What is wrong with the data: a `DataFinding` for each kind of fault, with all its rows.

Its message has numbers, places, and quotes that are short and safe to print.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Literal

from sft.curate.corpus import Corpus

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")  # the worst first
SEVERITY_NAMES = {"error": "error", "warning": "warning", "info": "note"}
MAX_QUOTE = 100  # characters


@dataclass(frozen=True, slots=True)
class DataFinding:
    """One fault. `error` teaches something wrong, `warning` may, `info` is good to know.

    `count` is the number of rows concerned and `rows` are their places (`file:line`), as many as
    are known. `fix` is a config line or a command that mends it; empty when only a person can.
    """

    check: str
    severity: Severity
    count: int
    rows: tuple[str, ...]
    message: str
    fix: str = ""

    def record(self) -> dict[str, Any]:
        """The finding as plain JSON types."""
        return {**asdict(self), "rows": list(self.rows)}


def verdict(findings: Iterable[DataFinding]) -> str:
    """`2 errors, 1 warning, 3 notes`; empty for none."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(count(counts[s], SEVERITY_NAMES[s]) for s in SEVERITIES if counts[s])


def worst_first(findings: Iterable[DataFinding]) -> list[DataFinding]:
    """By severity, and of equal severity the most rows first."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), -one.count))


def as_severe_as(limit: str, findings: Iterable[DataFinding]) -> list[DataFinding]:
    """The findings that are as severe as `limit`, or more; none for `never`."""
    severities = SEVERITIES[: SEVERITIES.index(limit) + 1] if limit in SEVERITIES else ()
    return [finding for finding in findings if finding.severity in severities]


def quoted(text: str, limit: int = MAX_QUOTE) -> str:
    """`text` in quotation marks, on one line, without characters that do something on a screen."""
    line = _printable(text[: 8 * limit])
    return f'"{line}"' if len(line) <= limit else f'"{line[: limit - 3]}..."'


def quoted_end(text: str, limit: int = MAX_QUOTE) -> str:
    """The end of `text`, as `quoted` shows a beginning."""
    line = _printable(text[-8 * limit :])
    return f'"{line}"' if len(line) <= limit else f'"...{line[-(limit - 3) :]}"'


def _printable(text: str) -> str:
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)


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


def example_finding(
    corpus: Corpus,
    check: str,
    severity: Severity,
    examples: Sequence[tuple[int, str]],
    what: str,
    fix: str = "",
    *,
    noun: str = "",
    limit: int = 60,
    total: int = 0,
) -> list[DataFinding]:
    """One finding about rows (by index) with the text that shows it; none where there are none.

    The message counts the rows, or the examples where they are called by a `noun`, with their share
    of a `total`, says `what` they are or do, and quotes `limit` characters of the first example.
    """
    if not examples:
        return []
    row, text = examples[0]
    number = len(examples) if noun else len({row for row, _ in examples})
    counted = count(number, noun or "row") + (f" ({share(number, total)})" if total else "")
    message = f"{counted} {what}; {place(corpus, row)}: {quoted(text, limit)}"
    return [finding(corpus, check, severity, (row for row, _ in examples), message, fix)]


def place(corpus: Corpus, row: int) -> str:
    """`file:line` of a training row, printable and without its folders."""
    name = corpus.train[row].origin
    return quoted(f"{PurePath(name.source).name}:{name.line}")[1:-1]


def word_set(text: str) -> frozenset[str]:
    """The words of a text that lists them."""
    return frozenset(text.split())
