"""Rows in chunks: small enough to hold, with what is needed to write each as it was."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sft.config import SourceConfig
from sft.data.rows.conversation import Conversation, Origin
from sft.data.rows.files import kind_of, open_text
from sft.data.rows.formats import check_config, parse
from sft.data.rows.json_rows import json_lines
from sft.data.rows.lines import MAX_ROW_BYTES, numbered_lines
from sft.data.rows.problems import BadRows, RowError, listing
from sft.data.rows.read import Tally, read_source
from sft.data.rows.sources import Row, local_files, read_file
from sft.errors import ConfigError, DataError

CHUNK_ROWS = 2_000
CHUNK_BYTES = 4_000_000  # its words take some 30 times as much while it is worked on

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """One file, the name of its rows' format and its source's settings."""

    path: str
    format: str
    config: SourceConfig


@dataclass(slots=True)
class Chunk:
    """Rows of one file that stand together.

    `items` are lines of a JSON lines file as bytes (None: too long), or rows of any other file
    as values (or the reason why there are none).
    """

    source: int
    numbers: list[int]
    items: list[bytes | None] | list[Values | RowError]


def open_sources(configs: Sequence[SourceConfig]) -> list[Source]:
    """The files of all sources, each source with the format of its first row that has one.

    Raises:
        ConfigError: no file, or sources of two formats, which one file cannot hold.
        DataError: the rows have no known shape.
    """
    sources: list[Source] = []
    for config in configs:
        check_config(config)
        files = local_files(config.path, texts=config.format == "text")
        if not files:
            raise ConfigError(
                f"{config.path}: no such file. sft curate reads files; save a data set of the hub "
                f"first: datasets.load_dataset({config.path!r})['train'].to_json('rows.jsonl')"
            )
        name = config.format if config.format != "auto" else _first_format(config)
        if sources and name != sources[0].format:
            raise ConfigError(
                f"{config.path} holds rows of the format {name} and {sources[0].path} of "
                f"{sources[0].format}. One file cannot hold both; curate them one at a time"
            )
        sources += [Source(str(path), name, config) for path in files]
    return sources


def _first_format(config: SourceConfig) -> str:
    report, tally = BadRows("skip"), Tally()
    next(read_source(config, 0, report, {}, tally), None)
    if not tally.formats:
        raise DataError(f"{config.path}: no usable row:\n{report.table()}")
    return next(iter(tally.formats))


def chunks(sources: Sequence[Source], size: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """All rows, in order; blank lines are none.

    Files are streamed; of a JSON document the text is held as a whole.
    """
    for index, source in enumerate(sources):
        numbers: list[int] = []
        items: list[Any] = []
        num_bytes = 0
        for number, item in _items(source):
            numbers.append(number)
            items.append(item)
            num_bytes += _size(item)
            if len(items) >= size or num_bytes >= CHUNK_BYTES:
                yield Chunk(index, numbers, items)
                numbers, items, num_bytes = [], [], 0
        if items:
            yield Chunk(index, numbers, items)


def _size(value: Any) -> int:
    """Characters or bytes of the texts within a row."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0


def _items(source: Source) -> Iterator[tuple[int, bytes | Values | RowError | None]]:
    path = Path(source.path)
    empty = True
    for number, item in _lines(path) if kind_of(path) == ".jsonl" else read_file(path):
        empty = False
        yield number, item
    if empty:
        raise DataError(f"{path}: holds no rows")


def _lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    with open_text(path) as file:
        for number, line in numbered_lines(file):
            if line is None or line.strip():
                yield number, line


def count_rows(sources: Sequence[Source]) -> int:
    """Lines of the files, to show how far the work is; 0 when one of them has no lines."""
    if any(Path(source.path).suffix.lower() != ".jsonl" for source in sources):
        return 0
    num_lines = 0
    for source in sources:
        with open_text(Path(source.path)) as file:
            while block := file.read(1 << 20):
                num_lines += block.count(b"\n")
    return num_lines


def chunk_values(chunk: Chunk) -> list[Values | RowError]:
    """The values of each row, or the reason why they cannot be read."""
    if not chunk.items or isinstance(chunk.items[0], dict | RowError):
        return cast(list[Values | RowError], chunk.items)
    lines = chunk.items
    too_long = RowError(f"longer than {MAX_ROW_BYTES:,} bytes")
    rows: list[Values | RowError] = [too_long] * len(lines)
    # The blank line in front keeps a byte order mark within the file where it is.
    joined = io.BytesIO(b"\n" + b"".join(line or b"\n" for line in lines))
    for number, values in json_lines(joined):
        rows[number - 2] = values
    return rows


def conversation(values: Values | RowError, origin: Origin, source: Source) -> Conversation | str:
    """The row as a conversation, or the reason why it is none."""
    if isinstance(values, RowError):
        return str(values)
    try:
        return parse(Row(values, origin), source.config, source.format)
    except RowError as error:
        return str(error)
    except DataError:
        return f"no known shape; columns found: {listing(values)}"


def conversations(chunk: Chunk, source: Source) -> list[Conversation | str]:
    """Each row of the chunk as a conversation, or the reason why it is none."""
    return [
        conversation(values, Origin(source.path, number), source)
        for number, values in zip(chunk.numbers, chunk_values(chunk), strict=True)
    ]


def json_line(item: bytes | Values | RowError | None) -> bytes:
    """A row as one line: the very bytes of a JSON lines file, or its values as JSON."""
    if isinstance(item, bytes):
        return item.rstrip(b"\r\n") + b"\n"
    if isinstance(item, dict):
        return json.dumps(item, ensure_ascii=False, default=str).encode() + b"\n"
    raise TypeError("an unreadable row is never written")
