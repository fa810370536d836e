"""From a source (file, folder or Hugging Face data set) to rows with their place."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sft.config import SourceConfig
from sft.data.rows.conversation import Origin
from sft.data.rows.csv_rows import csv_rows
from sft.data.rows.files import COMPRESSED, EXTENSIONS, kind_of, open_text, sha256_of
from sft.data.rows.json_document import json_document
from sft.data.rows.json_rows import json_lines
from sft.data.rows.lines import Numbered, text_rows
from sft.data.rows.parquet_rows import arrow_row, first_line, parquet_rows
from sft.data.rows.problems import BadRows, RowError
from sft.errors import ConfigError, DataError, did_you_mean
from sft.texts.safe import one_line

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


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
    paths = local_files(source.path, texts=source.format == "text")
    for path in paths or (None,):
        name, line = str(path) if path else source.path, 0
        if path:
            files[name] = sha256_of(path)
        for line, values in read_file(path) if path else _read_hub(source, files):
            yield Origin(name, line), values
        if not line:
            raise DataError(f"{name}: holds no rows")


def local_files(path_text: str, texts: bool = False) -> list[Path]:
    """The files that `path_text` stands for; empty when it is a Hugging Face data set id.

    With `texts`, a .txt file is data; else one in a folder is taken for a note about it.
    """
    path = Path(path_text).expanduser()
    _refuse_odd_name(path_text)
    try:
        path.lstat()
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a NUL in the name
        if path.is_symlink():
            raise ConfigError(
                f"{path}: a link to {os.readlink(path)}, which is not there"
            ) from None
    except OSError as error:
        # A loop of links, a name that is too long, a folder that may not be entered.
        raise ConfigError(f"{path_text:.300}: cannot be read ({error.strerror})") from None
    else:
        return _folder_files(path, texts) if path.is_dir() else [_known(path, texts)]
    if kind_of(path, texts=True) or not _HUB_ID.fullmatch(path_text):
        raise ConfigError(f"{path}: no such file.{_near_file(path)}")
    return []


def _refuse_odd_name(path: str) -> None:
    """Names end up in messages, on the terminal and in `account.json`."""
    if one_line(path) != path:
        raise ConfigError(
            f"{path!r:.300}: the name holds control characters, or bytes that are not UTF-8; "
            "rename the file"
        )


def _known(path: Path, texts: bool) -> Path:
    if not kind_of(path, texts) and kind_of(path, texts=True):
        raise ConfigError(
            f"{path}: plain text, which has no prompts and answers. To train on all of it, give "
            f"this source as {{path: {path}, format: text}}"
        )
    if not kind_of(path, texts):
        raise ConfigError(
            f"{path}: a file's name must end in one of {', '.join(EXTENSIONS)}, "
            f"so that it is known how to read it; text may be compressed ({', '.join(COMPRESSED)})"
        )
    return path


def _folder_files(folder: Path, texts: bool) -> list[Path]:
    try:
        files = sorted(
            path
            for path in folder.rglob("*")
            if kind_of(path, texts)
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        next(folder.iterdir(), None)  # rglob passes over a folder that may not be read
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    if not files:
        raise DataError(f"{folder}: the folder holds no {', '.join(EXTENSIONS)} file")
    for path in files:
        _refuse_odd_name(str(path))
    return files


def _near_file(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" Nor is there a folder {path.parent}."
    return did_you_mean(path.name, names)


def read_file(path: Path) -> Iterator[Numbered]:
    """The rows of a file by their lines, in the form that its name tells."""
    kind = kind_of(path, texts=True)
    if kind == ".parquet":
        yield from parquet_rows(path)
    elif kind == ".json":
        yield from json_document(partial(open_text, path), str(path))
    else:
        with open_text(path) as file:
            if kind == ".jsonl":
                yield from json_lines(file)
            elif kind == ".txt":
                yield from text_rows(file)
            else:
                yield from csv_rows(file, str(path), "," if kind == ".csv" else "\t")


def _read_hub(source: SourceConfig, files: dict[str, str]) -> Iterator[Numbered]:
    # Whatever goes wrong in there is about the network, the id or the files of the data set,
    # and is raised as one of some thirty types of four packages.
    try:
        revision = hub_revision(source.path)
        dataset = _load_hub(source, revision)
        files[source.path] = f"{source.path}@{revision or 'revision unknown'}"
        yield from enumerate(map(arrow_row, dataset), start=1)
    except Exception as error:
        raise DataError(
            f"{source.path}: no such file, so it was taken for a Hugging Face data set id, "
            f"and reading that failed: {first_line(error)}"
        ) from error


def hub_revision(name: str) -> str | None:
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
