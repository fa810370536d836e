"""All sources to one list of conversations, with every row accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sft.config import SourceConfig
from sft.data.conversation import Conversation
from sft.data.formats import check_config, detect, parse
from sft.data.problems import BadRow, BadRows, RowError, listing
from sft.data.sources import Row, read_rows
from sft.errors import ConfigError, DataError, did_you_mean

# So many rows of no known shape at the start of a source are a wrong source, not wrong rows.
MAX_UNRECOGNISED = 100
_MAX_COLUMNS = 1_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read: `len(conversations) + num_bad` is the number of rows.

    `bad_rows` holds at most the first 10,000 of `num_bad`. `files` has the SHA-256 of each
    file, and the revision of each hub data set.
    """

    conversations: list[Conversation]
    bad_rows: list[BadRow]
    num_bad: int
    files: dict[str, str]


def read_conversations(
    sources: Sequence[SourceConfig], on_bad_row: Literal["error", "skip"]
) -> Loaded:
    """Read all sources to the end.

    With `on_bad_row="error"`, rows that cannot be used raise one `DataError` for all of them.
    """
    if not sources:
        raise ConfigError("data.train: no training data. Give it with --data FILE")
    for source in sources:
        check_config(source)
    report = BadRows(on_bad_row)
    files: dict[str, str] = {}
    conversations: list[Conversation] = []
    for index, source in enumerate(sources):
        conversations.extend(_read_source(source, index, report, files))
    report.raise_if_any(len(conversations) + report.count)
    if not conversations:
        paths = ", ".join(source.path for source in sources)
        raise DataError(f"{paths}: no usable row in {report.count:,}:\n{report.table()}")
    return Loaded(conversations, report.rows, report.count, files)


def _read_source(
    source: SourceConfig, index: int, report: BadRows, files: dict[str, str]
) -> Iterator[Conversation]:
    """The conversations of one source; its first recognised row decides their format."""
    name = "" if source.format == "auto" else source.format
    columns = _Columns(source)
    stranger: DataError | None = None
    num_strangers = 0
    for row in read_rows(source, report, files):
        columns.see(row)
        try:
            name = name or detect(row.values, source.columns)
            yield parse(row, source, name, index)
        except RowError as error:
            report.add(row.origin, str(error))
        except DataError as error:
            report.add(row.origin, f"no known shape; columns found: {listing(row.values)}")
            stranger = stranger or DataError(f"{row.origin}: {error}")
            num_strangers += 1
            if num_strangers == MAX_UNRECOGNISED:
                break
    columns.check()
    if stranger and not name:
        raise stranger


class _Columns:
    """The columns of a source, to find those that are mapped but never there."""

    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        self._missing = set(source.columns.values())
        self._seen: dict[str, None] = {}

    def see(self, row: Row) -> None:
        """Take note of the row's columns."""
        if self._missing:
            self._missing -= row.values.keys()
            if len(self._seen) < _MAX_COLUMNS:
                self._seen.update(dict.fromkeys(row.values))

    def check(self) -> None:
        """Raise `DataError` for a mapped column that no row has."""
        if self._missing and self._seen:
            column = min(self._missing)
            raise DataError(
                f"{self._source.path}: columns: no row has a column {column!r}."
                f"{did_you_mean(column, self._seen)} Columns found: {listing(self._seen)}."
            )
