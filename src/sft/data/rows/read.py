"""All sources to one list of conversations, with every row accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from sft.config import SourceConfig
from sft.data.rows.conversation import Conversation
from sft.data.rows.formats import check_config, detect, format_named, parse
from sft.data.rows.formats.own import code_of
from sft.data.rows.problems import SKIP_HINT, BadRow, BadRows, RowError, listing
from sft.data.rows.sources import Row, read_rows
from sft.errors import ConfigError, DataError, did_you_mean

# So many rows of no known shape at the start of a source are a wrong source, not wrong rows.
MAX_UNRECOGNISED = 100
_MAX_COLUMNS = 1_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read: `len(conversations) + num_bad` is the number of rows.

    `bad_rows` holds at most the first 10,000 of `num_bad`. `files` has the SHA-256 of each
    file, and the revision of each hub data set. `notes` tell what of the rows is not used.
    """

    conversations: list[Conversation]
    bad_rows: list[BadRow]
    num_bad: int
    files: dict[str, str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows by the format they have, and by the columns with a value that it does not read."""

    formats: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, source: SourceConfig, name: str) -> None:
        """Count a row that was parsed as one of the format `name`."""
        self.formats[name] += 1
        shape = format_named(name)
        if len(self.unread) < _MAX_COLUMNS and not shape.reads_all:
            known = shape.reads() | set(source.columns.values())
            empty: tuple[object, ...] = (None, "", [], {})
            others = (column for column in row.values if column not in known)
            self.unread.update(column for column in others if row.values[column] not in empty)

    def notes(self) -> list[str]:
        """What is not used of the rows although it is data."""
        count = self.formats["preference"]
        if not count:
            return []
        return [f"{count:,} rows are preferences: the chosen answers are used, no rejected ones"]


def read_conversations(
    sources: Sequence[SourceConfig], on_bad_row: Literal["error", "skip"], hint: str = SKIP_HINT
) -> Loaded:
    """Read all sources to the end.

    With `on_bad_row="error"`, rows that cannot be used raise one `DataError` for all of them, which
    ends with the `hint`.
    """
    if not sources:
        raise ConfigError("data.train: no training data. Give it with --data FILE")
    for source in sources:
        check_config(source)
    report, tally = BadRows(on_bad_row), Tally()
    files: dict[str, str] = {}
    conversations: list[Conversation] = []
    for index, source in enumerate(sources):
        conversations.extend(read_source(source, index, report, files, tally))
    report.raise_if_any(len(conversations) + report.count, hint)
    if not conversations:
        paths = ", ".join(source.path for source in sources)
        raise DataError(f"{paths}: no usable row in {report.count:,}:\n{report.table()}")
    return Loaded(conversations, report.rows, report.count, files, tally.notes())


def read_source(
    source: SourceConfig, index: int, report: BadRows, files: dict[str, str], tally: Tally
) -> Iterator[Conversation]:
    """The conversations of one source; its first recognised row decides their format.

    `report`, `files` and `tally` are filled on the way.
    """
    name = "" if source.format == "auto" else source.format
    files |= code_of(name)
    missing, columns = set(source.columns.values()), dict[str, None]()  # mapped ones; all seen
    stranger: DataError | None = None
    num_strangers = 0
    for row in read_rows(source, report, files):
        missing -= row.values.keys()
        if missing and len(columns) < _MAX_COLUMNS:
            columns |= dict.fromkeys(row.values)
        try:
            name = name or detect(row.values, source.columns)
            conversation = parse(row, source, name, index)
        except RowError as error:
            report.add(row.origin, str(error))
        except DataError as error:
            report.add(row.origin, f"no known shape; columns found: {listing(row.values)}")
            stranger = stranger or DataError(f"{row.origin}: {error}")
            num_strangers += 1
            if num_strangers == MAX_UNRECOGNISED:
                break
        else:
            tally.add(row, source, name)
            yield conversation
    _refuse_never_there(source, missing, columns)
    if stranger and not name:
        raise stranger


def _refuse_never_there(source: SourceConfig, missing: Set[str], seen: Mapping[str, Any]) -> None:
    """Raise `DataError` for a mapped column that no row has."""
    if missing and seen:
        column = min(missing)
        raise DataError(
            f"{source.path}: columns: no row has a column {column!r}."
            f"{did_you_mean(column, seen)} Columns found: {listing(seen)}."
        )
