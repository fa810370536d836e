"""From a source (file, folder or Hugging Face data set) to rows with their place."""

from __future__ import annotations

import csv
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sft.config import SourceConfig
from sft.data.conversation import Origin
from sft.data.json_rows import Numbered, check_text, json_document, json_lines
from sft.data.lines import MAX_ROW_BYTES, decode_line, numbered_lines, refuse_other_encodings
from sft.data.problems import BadRows, RowError
from sft.errors import ConfigError, DataError, did_you_mean

EXTENSIONS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_PARQUET_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class Row:
    """The values of one row, by column, and where it came from."""

    values: dict[str, Any]
    origin: Origin


def read_rows(source: SourceConfig, report: BadRows, files: dict[str, str]) -> Iterator[Row]:
    """The rows of `source`, in order; a row that cannot be read goes to `report` instead.

    `files` is filled with what was read: the SHA-256 of each file, or the revision of a hub
    data set. `source.max_rows` counts unreadable rows too.
    """
    for origin, values in itertools.islice(_numbered(source, files), source.max_rows):
        if isinstance(values, RowError):
            report.add(origin, str(values))
        else:
            yield Row(values, origin)


def _numbered(
    source: SourceConfig, files: dict[str, str]
) -> Iterator[tuple[Origin, dict[str, Any] | RowError]]:
    paths = local_files(source.path)
    for path in paths:
        files[str(path)] = _sha256(path)
        yield from _placed(_read_file(path), str(path))
    if not paths:
        yield from _placed(_read_hub(source, files), source.path)


def _placed(
    rows: Iterator[Numbered], name: str
) -> Iterator[tuple[Origin, dict[str, Any] | RowError]]:
    empty = True
    for line, values in rows:
        empty = False
        yield Origin(name, line), values
    if empty:
        raise DataError(f"{name}: holds no rows")


def local_files(path_text: str) -> list[Path]:
    """The files that `path_text` stands for; empty when it is a Hugging Face data set id."""
    path = Path(path_text).expanduser()
    if path.is_dir():
        return _folder_files(path)
    known = path.suffix.lower() in EXTENSIONS
    if path.exists():
        if not known:
            raise ConfigError(
                f"{path}: a file's name must end in one of {', '.join(EXTENSIONS)}, "
                "so that it is known how to read it"
            )
        return [path]
    if known or not _HUB_ID.fullmatch(path_text):
        raise ConfigError(f"{path}: no such file.{_near_file(path)}")
    return []


def _folder_files(folder: Path) -> list[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"{folder}: the folder holds no {', '.join(EXTENSIONS)} file")
    return files


def _near_file(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" Nor is there a folder {path.parent}."
    return did_you_mean(path.name, names)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _read_file(path: Path) -> Iterator[Numbered]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from _read_parquet(path)
        return
    try:
        with path.open("rb") as file:
            refuse_other_encodings(file.read(4), str(path))
            file.seek(0)
            if kind == ".jsonl":
                yield from json_lines(file)
            elif kind == ".json":
                yield from json_document(file.read(), str(path))
            else:
                yield from _read_csv(file, str(path), "," if kind == ".csv" else "\t")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _read_csv(file: BinaryIO, name: str, delimiter: str) -> Iterator[Numbered]:
    """Rows of a table with a header; a row's line is the one it begins on."""
    # The limit is the process's, and its default of 128 KB is less than one long document.
    csv.field_size_limit(MAX_ROW_BYTES)
    wrong: list[RowError] = []
    reader = csv.reader(_csv_lines(file, wrong), delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    while (cells := _csv_cells(reader, wrong)) is not None:
        if header and cells:
            yield line, _csv_row(header, cells)
        elif cells:
            header = _csv_header(cells, f"{name}:{line}")
        line = reader.line_num + 1


def _csv_cells(reader: Iterator[list[str]], wrong: list[RowError]) -> list[str] | RowError | None:
    """The next row's cells; none of them for a blank line, and None at the end."""
    wrong.clear()
    try:
        cells = next(reader, None)
    except csv.Error as error:
        return RowError(f"not valid CSV ({error})")
    return wrong[0] if wrong else cells


def _csv_lines(file: BinaryIO, wrong: list[RowError]) -> Iterator[str]:
    """Text lines; a line that is not clean is noted, and passed on with its quotes intact."""
    for number, line in numbered_lines(file):
        try:
            yield decode_line(line)
        except RowError as error:
            wrong.append(RowError(f"line {number}, {error}"))
            yield line.decode(errors="replace") if line else "-\n"


def _csv_header(cells: list[str] | RowError, place: str) -> list[str]:
    if isinstance(cells, RowError):
        raise DataError(f"{place}: the header cannot be read: {cells}")
    twice = sorted({cell for cell in cells if cells.count(cell) > 1})
    if twice:
        raise DataError(f"{place}: column {twice[0]!r} is given twice in the header")
    return cells


def _csv_row(header: list[str], cells: list[str] | RowError) -> dict[str, Any] | RowError:
    if isinstance(cells, RowError):
        return cells
    if len(cells) != len(header):
        return RowError(f"expected {len(header)} cells, as in the header, found {len(cells)}")
    return dict(zip(header, cells, strict=True))


def _read_parquet(path: Path) -> Iterator[Numbered]:
    """Rows of a Parquet file; a row's line is its number."""
    import pyarrow
    import pyarrow.parquet

    numbers = itertools.count(1)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
                for index in range(batch.num_rows):
                    yield next(numbers), _parquet_row(batch, index)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({_first_line(error)})") from None


def _parquet_row(batch: Any, index: int) -> dict[str, Any] | RowError:
    try:
        values = batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        return RowError(f"byte 0x{error.object[error.start]:02X} is not UTF-8")
    return arrow_row(values)


def arrow_row(values: dict[str, Any]) -> dict[str, Any] | RowError:
    """A row from Arrow without the keys that Arrow added.

    All structs of a column have the same keys there, so a key that one tool call has is null
    in every other. A column that is null stays: it says that the column exists.
    """
    try:
        check_text(values)
    except RowError as error:
        return error
    return {key: _without_nulls(value) for key, value in values.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _read_hub(source: SourceConfig, files: dict[str, str]) -> Iterator[Numbered]:
    # Whatever goes wrong in there is about the network, the id or the files of the data set,
    # and is raised as one of some thirty types of four packages.
    try:
        revision = _hub_revision(source.path)
        dataset = _load_hub(source, revision)
        files[source.path] = f"{source.path}@{revision or 'revision unknown'}"
        yield from enumerate(map(arrow_row, dataset), start=1)
    except Exception as error:
        raise DataError(
            f"{source.path}: no such file, so it was taken for a Hugging Face data set id, "
            f"and reading that failed: {_first_line(error)}"
        ) from error


def _hub_revision(name: str) -> str | None:
    """The commit that is newest now; None when the hub cannot be asked."""
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().dataset_info(name, timeout=10).sha
    except Exception:  # offline, for one: the data set may still be in the cache
        return None


def _load_hub(source: SourceConfig, revision: str | None) -> Iterable[dict[str, Any]]:
    import datasets

    rows: Iterable[dict[str, Any]] = datasets.load_dataset(
        source.path,
        name=source.subset,
        split=source.split,
        streaming=source.streaming,
        revision=revision,
    )
    return rows


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]:.300}" if lines else type(error).__name__
