"""The JSON and YAML of a run folder, whatever it holds; and values built from a file, kept."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, TypeVar, cast

from sft.config import read_config
from sft.errors import DataError, SFTError
from sft.runs.run_dir import RunDir

T = TypeVar("T")
Record = dict[str, Any]
Stamp = tuple[int, int, int]  # bytes, time of change in ns, inode

_MOST_JSON = 512 << 20


def stamp(path: Path) -> Stamp | None:
    """What changes when the file or folder changes; None when there is none.

    Neither is a pipe or a device: reading one may never end.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not (S_ISREG(status.st_mode) or S_ISDIR(status.st_mode)):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


class Cache:
    """The newest `most` values that were built from files, each until one of its files changes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, tuple[tuple[Stamp | None, ...], Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, paths: Sequence[Path], build: Callable[[], T]) -> T:
        """The value of `key`: the old one while `paths` are as they were, else a new one."""
        # Stamped before they are read: what is written meanwhile is seen the next time.
        now = tuple(stamp(path) for path in paths)
        with self._lock:
            stamps, value = self._values.get(key, ((), None))
        if stamps != now:
            value = build()
        with self._lock:
            self._values[key] = (now, value)
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return cast(T, value)


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def decode_json(text: bytes) -> Any:
    """The JSON value in `text`; `NaN` and `Infinity`, which JSON does not have, are None.

    Raises:
        ValueError, RecursionError: it is not JSON, or nested too deeply.
    """
    return _DECODER.decode(text.decode("utf-8", "surrogatepass"))


def parse_object(text: bytes) -> Record | None:
    """A JSON object; None for anything else."""
    try:
        value = decode_json(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def json_object(path: Path) -> Record:
    """The object in a file of JSON; empty when there is no file.

    Raises:
        DataError: it holds something else.
    """
    status = stamp(path)
    if status is None:
        return {}
    if status[0] > _MOST_JSON:
        raise DataError(f"{path}: {status[0]:,} bytes, more than a run writes; restore the file")
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    value = parse_object(data)
    if value is None:
        raise DataError(f"{path}: expected a JSON object, found {data[:40]!r}; restore the file")
    return value


_IDENTITIES = Cache(256)


def identity(run: RunDir) -> Record:
    """What `config.yaml` says: `config`, `num_steps`, `fingerprint`...; empty when not written yet.

    Raises:
        ConfigError: it cannot be read as YAML.
    """
    if stamp(run.config) is None:
        return {}
    return _IDENTITIES.get(run.config, [run.config], lambda: read_config(run.config))


def readable(
    read: Callable[[Any], Record], source: Any, problems: list[str] | None = None
) -> Record:
    """`read(source)`; what is wrong with it is one of the `problems`, and it is empty then."""
    try:
        return read(source)
    except SFTError as error:
        if problems is not None:
            problems.append(str(error))
        return {}


def section(values: Any, *keys: str) -> Record:
    """The part of a nested dictionary at `keys`; empty where there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


def items(record: Any, name: str) -> list[Any]:
    """A list in a record; empty where there is none, or something else."""
    values = record.get(name) if isinstance(record, Mapping) else None
    return list(values) if isinstance(values, list | tuple) else []


def objects(record: Any, name: str) -> list[Record]:
    """The objects in a list of a record."""
    return [item for item in items(record, name) if isinstance(item, dict)]


def number(value: Any) -> float | None:
    """`value` as a finite number, else None: what records and configs of others may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        as_float = float(value)
    except OverflowError:
        return None
    return as_float if math.isfinite(as_float) else None


def whole(value: Any) -> int | None:
    """`value` as a whole number of reasonable size, else None."""
    known = number(value)
    return None if known is None or known != int(known) or abs(known) > 2**53 else int(known)


def plain(value: Any) -> Any:
    """`value` as JSON that every browser reads: no NaN, no infinity, no half surrogate pair."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {plain(str(name)): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int) else plain(str(value))
