"""`sft convert`: rows of any shape, written in another one. No row is lost silently.

Rows are read and written one by one. Each is read back before it is kept, and must be the same
conversation then. The file appears at the end, whole, or not at all.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from sft.config import SourceConfig
from sft.data.rows.conversation import Conversation
from sft.data.rows.formats import check_config, parse
from sft.data.rows.formats.writing import WRITERS, write
from sft.data.rows.lines import MAX_ROW_BYTES
from sft.data.rows.problems import BadRows, RowError, listing
from sft.data.rows.read import Tally, read_source
from sft.data.rows.sources import Row
from sft.disk import TMP_PREFIX, disk_errors, sync_path
from sft.errors import ConfigError, DataError, did_you_mean

_WRITTEN = SourceConfig.model_validate("what was written")
_BATCH_ROWS = 1_000
_TURNS = ("messages", "conversations")  # columns that are lists of objects with the same keys
_SKIP_HINT = "Correct them, or leave them out with --on-bad-row skip"


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of the rows: `num_written + num_skipped` were read.

    `skipped` has one line per reason, with its first places; `notes` tell what else is not in
    the new file.
    """

    out: Path
    shape: str
    num_written: int
    num_skipped: int
    skipped: str = ""
    notes: list[str] = field(default_factory=list)

    def account(self) -> str:
        """The account of all rows, for the terminal."""
        total = self.num_written + self.num_skipped
        lines = [f"{total:,} rows read, {self.num_written:,} written as {self.shape}: {self.out}"]
        if self.num_skipped:
            lines.append(f"{self.num_skipped:,} skipped:\n{self.skipped}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def convert(
    source: SourceConfig,
    shape: str,
    out: str | Path,
    *,
    on_bad_row: Literal["error", "skip"] = "error",
    force: bool = False,
) -> Converted:
    """Write the rows of `source` to `out` in `shape`, one of `WRITERS`.

    How the file is written follows from its ending: .jsonl, .json, .csv or .parquet. The same rows
    give the same bytes. With `on_bad_row="skip"`, rows that cannot be read or have no place in
    the shape are left out and counted.

    Raises:
        ConfigError: an unknown shape or ending, or a file that is there already.
        DataError: rows that cannot be converted, all in one message; nothing is written.
    """
    path = _checked(shape, Path(out).expanduser(), force)
    check_config(source)
    bad, tally, num_written = BadRows(on_bad_row), Tally(), 0
    with _spool(path) as spool:
        for conversation in read_source(source, 0, bad, {}, tally):
            try:
                line = _line(conversation, shape)
            except RowError as error:
                bad.add(conversation.origin, str(error))
                continue
            spool.write(line)
            num_written += 1
        bad.raise_if_any(num_written + bad.count, _SKIP_HINT)
        if not num_written:
            raise DataError(f"{source.path}: no row could be written as {shape}:\n{bad.table()}")
        spool.flush()
        with disk_errors(path):
            _write_rows(Path(spool.name), path)
    return Converted(path, shape, num_written, bad.count, bad.table(), _notes(tally))


def column_map(texts: Sequence[str]) -> dict[str, str]:
    """`ours=theirs` texts as a column map; `ConfigError` for one that is written otherwise."""
    pairs = [text.partition("=") for text in texts]
    for text, (ours, mark, theirs) in zip(texts, pairs, strict=True):
        if not (ours and mark and theirs):
            raise ConfigError(f"--columns: expected OURS=THEIRS, such as prompt=q; found {text!r}")
    return {ours: theirs for ours, _, theirs in pairs}


def _checked(shape: str, path: Path, force: bool) -> Path:
    if shape not in WRITERS:
        known = ", ".join(WRITERS)
        raise ConfigError(
            f"--to: no shape {shape!r}.{did_you_mean(shape, WRITERS)} Known: {known}."
        )
    if path.suffix.lower() not in WRITTEN:
        raise ConfigError(f"{path}: the name must end in one of {', '.join(WRITTEN)}")
    if path.is_dir():
        raise ConfigError(f"{path}: a folder; name a file")
    if path.exists() and not force:
        raise ConfigError(f"{path}: is there already; choose another name, or say --force")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}")
    return path


@contextmanager
def _spool(path: Path) -> Iterator[IO[str]]:
    """A file of JSON lines beside `path`, for rows that are not kept yet; gone afterwards."""
    name = path.with_name(f"{TMP_PREFIX}{os.getpid()}-{path.name}.rows")
    with disk_errors(path):
        try:
            with open(name, "w", encoding="utf-8", newline="\n") as file:
                yield file
        finally:
            name.unlink(missing_ok=True)


def _line(conversation: Conversation, shape: str) -> str:
    """The row as a line of JSON that reads back as the same conversation."""
    try:
        line = json.dumps(write(conversation, shape), ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise RowError(f"holds a value that JSON has no notation for ({error})") from None
    if len(line) > MAX_ROW_BYTES // 4 and len(line.encode()) > MAX_ROW_BYTES:
        raise RowError(f"would be longer than {MAX_ROW_BYTES:,} bytes as {shape}")
    if parse(Row(json.loads(line), conversation.origin), _WRITTEN, shape) != conversation:
        raise RowError(f"would not be the same conversation when it is read back as {shape}")
    return line


def _notes(tally: Tally) -> list[str]:
    notes = tally.notes()
    counted = {f"{name:.40} ({count:,} rows)": count for name, count in tally.unread.items()}
    if counted:
        notes.append(
            f"columns that are not part of a conversation are left out: {listing(counted)}"
        )
    return notes


def _write_rows(lines: Path, out: Path) -> None:
    """Write the rows of `lines`, a file of JSON lines, to `out`, which is replaced if it is there.

    The ending of `out` is one of `WRITTEN`. All columns are known before the first row is written.
    Where a file has no place for lists, they are written as JSON text.
    """
    fresh = out.with_name(f"{TMP_PREFIX}{os.getpid()}-{out.name}")
    try:
        WRITTEN[out.suffix.lower()](lines, fresh)
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, out)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_path(out.parent)


def _rows(lines: Path) -> Iterator[dict[str, Any]]:
    with open(lines, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


def _columns(lines: Path) -> list[str]:
    """All columns of the rows, in the order in which they first appear."""
    return list(dict.fromkeys(column for row in _rows(lines) for column in row))


def _write_jsonl(lines: Path, out: Path) -> None:
    shutil.copyfile(lines, out)


def _write_json(lines: Path, out: Path) -> None:
    with (
        open(lines, encoding="utf-8", newline="\n") as source,
        open(out, "w", encoding="utf-8", newline="\n") as file,
    ):
        for number, line in enumerate(source):
            file.write((",\n" if number else "[\n") + line.rstrip("\n"))
        file.write("\n]\n")


def _write_csv(lines: Path, out: Path) -> None:
    columns = _columns(lines)
    with open(out, "w", encoding="utf-8", newline="") as file:
        # All cells are quoted: a lone carriage return in one would else end its row.
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(columns)
        for row in _rows(lines):
            writer.writerow([_cell(row.get(column)) for column in columns])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _write_parquet(lines: Path, out: Path) -> None:
    """Lists of messages become lists of structs; what has other keys in each row, JSON text."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, _arrow_type(lines, name)) for name in _columns(lines)])
    rows = _rows(lines)
    with pyarrow.parquet.ParquetWriter(out, schema) as writer:
        while batch := list(islice(rows, _BATCH_ROWS)):
            flat = [{name: _flat(name, value) for name, value in row.items()} for row in batch]
            writer.write_table(pyarrow.Table.from_pylist(flat, schema=schema))


def _arrow_type(lines: Path, column: str) -> Any:
    import pyarrow

    if column not in _TURNS:
        return pyarrow.string()
    turns = (turn for row in _rows(lines) for turn in row.get(column, ()))
    keys = dict.fromkeys(key for turn in turns for key in turn)
    weight = {"weight": pyarrow.float64()}
    return pyarrow.list_(pyarrow.struct([(k, weight.get(k, pyarrow.string())) for k in keys]))


def _flat(column: str, value: Any) -> Any:
    """A value without anything that a column of one type cannot hold."""
    if column not in _TURNS:
        return _cell(value)
    return [
        {key: item if key == "weight" else _cell(item) for key, item in turn.items()}
        for turn in value
    ]


WRITTEN: dict[str, Callable[[Path, Path], None]] = {
    ".jsonl": _write_jsonl,
    ".json": _write_json,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
