"""Tokenised rows on disk, mapped into memory: a data set may be larger than the memory.

    ids.bin      int32    [num_tokens]      all examples end to end
    weights.bin  float32  [num_tokens]      loss weight of predicting the next token
    index.bin    record   [num_examples]    where an example ends, and which row it is of
    meta.json    names, checksums, and what the writer wants to remember

Labels are not stored: where the weight is above 0 the label is the next token.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sft.data.rows.conversation import Origin
from sft.data.tokenize import IGNORE_INDEX, Example
from sft.disk import sync_path, write_synced

FORMAT = 1
META = "meta.json"

_INDEX = np.dtype(
    [
        ("end", "<i8"),
        ("line", "<i8"),
        ("num_bytes", "<i8"),
        ("file", "<i4"),
        ("suffix", "<i4"),
        ("source", "<i4"),
    ]
)
_TYPES = {"ids.bin": np.dtype("<i4"), "weights.bin": np.dtype("<f4"), "index.bin": _INDEX}


class StoreDamaged(Exception):
    """A store is not as it was written; the message says which file."""


class NotStorable(Exception):
    """An example whose labels are not its next tokens, or whose id is not of its row."""


class StoreWriter:
    """Writes a store into `folder`, which is new. What is added is not kept in memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.num_examples = 0
        self.num_tokens = 0
        self._files: dict[str, BinaryIO] = {n: open(folder / n, "wb") for n in _TYPES}  # noqa: SIM115
        self._digests = {name: hashlib.sha256() for name in _TYPES}
        self._names: dict[str, int] = {}
        self._suffixes: dict[str, int] = {}

    def add(self, examples: Iterable[Example]) -> None:
        """Append `examples`.

        Raises:
            NotStorable: one of them is more than ids and weights.
        """
        index, ids, weights = [], [], []
        for example in examples:
            place = str(example.origin)
            stored = _labels(example.input_ids, example.weights)
            if not (example.id.startswith(place) and np.array_equal(stored, example.labels)):
                raise NotStorable(example.id)
            suffix = example.id.removeprefix(place)
            self.num_tokens += example.num_tokens
            index.append(
                (
                    self.num_tokens,
                    example.origin.line,
                    example.num_bytes,
                    self._names.setdefault(example.origin.source, len(self._names)),
                    self._suffixes.setdefault(suffix, len(self._suffixes)),
                    example.source,
                )
            )
            ids.append(example.input_ids)
            weights.append(example.weights)
        self.num_examples += len(index)
        if index:
            self._write("ids.bin", np.concatenate(ids))
            self._write("weights.bin", np.concatenate(weights))
            self._write("index.bin", np.array(index, dtype=_INDEX))

    def _write(self, name: str, values: NDArray[Any]) -> None:
        data = values.astype(_TYPES[name]).tobytes()
        self._files[name].write(data)
        self._digests[name].update(data)

    def close(self, meta: Mapping[str, Any]) -> None:
        """Finish the store: it survives a power loss, and `meta` comes last."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        written = {
            **meta,
            "format": FORMAT,
            "num_examples": self.num_examples,
            "num_tokens": self.num_tokens,
            "names": list(self._names),
            "suffixes": list(self._suffixes),
            "sha256": {name: digest.hexdigest() for name, digest in self._digests.items()},
        }
        write_synced(self.folder / META, json.dumps(written, allow_nan=False) + "\n")
        sync_path(self.folder)


class TokenStore:
    """A store, mapped read-only. `meta` is what was given to `StoreWriter.close`, and more."""

    def __init__(self, folder: Path) -> None:
        """Open and verify a store.

        Raises:
            StoreDamaged: a file is missing, or its checksum is not that of `meta.json`.
        """
        self.meta = read_meta(folder)
        self.ids: NDArray[np.int32] = self._mapped(folder, "ids.bin")
        self.weights: NDArray[np.float32] = self._mapped(folder, "weights.bin")
        index = self._mapped(folder, "index.bin")
        self.index = index
        self.ends: NDArray[np.int64] = index["end"]
        self.names: list[str] = self.meta["names"]
        self.suffixes: list[str] = self.meta["suffixes"]

    def _mapped(self, folder: Path, name: str) -> NDArray[Any]:
        path, kind = folder / name, _TYPES[name]
        try:
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != self.meta["sha256"][name]:
                    raise StoreDamaged(f"{name} is not what was written")
            if not path.stat().st_size:  # an empty file cannot be mapped
                return np.empty(0, dtype=kind)
            # As a plain array: slices of a memmap object cost ten times as much.
            return np.asarray(np.memmap(path, dtype=kind, mode="r"))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise StoreDamaged(f"{name} cannot be read ({error})") from None

    def examples(self) -> list[Example]:
        """All examples, in the order they were added; about 100 bytes of memory each."""
        return [StoredExample(self, at) for at in range(len(self.index))]


class StoredExample(Example):
    """An example whose arrays are read from its store each time they are asked for."""

    __slots__ = ("_at", "_store")
    _at: int
    _store: TokenStore

    def __init__(self, store: TokenStore, at: int) -> None:
        object.__setattr__(self, "_store", store)
        object.__setattr__(self, "_at", at)

    @property  # type: ignore[misc]
    def __class__(self) -> type[Example]:  # type: ignore[override]
        """For `dataclasses.replace`, which makes a plain example of this one."""
        return Example

    @property
    def _range(self) -> slice:
        ends, at = self._store.ends, self._at
        return slice(int(ends[at - 1]) if at else 0, int(ends[at]))

    @property
    def id(self) -> str:
        """The place of its row, and what tells the examples of one row apart."""
        return f"{self.origin}{self._store.suffixes[self._store.index['suffix'][self._at]]}"

    @property
    def origin(self) -> Origin:
        """The row it was made of."""
        record = self._store.index[self._at]
        return Origin(self._store.names[record["file"]], int(record["line"]))

    @property
    def source(self) -> int:
        """Index of the source of its row."""
        return int(self._store.index["source"][self._at])

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the trained text."""
        return int(self._store.index["num_bytes"][self._at])

    @property
    def input_ids(self) -> NDArray[np.int64]:
        """Token ids, `[seq_len]`."""
        return self._store.ids[self._range].astype(np.int64)

    @property
    def weights(self) -> NDArray[np.float32]:
        """Loss weights, `[seq_len]`: a read-only view of the file."""
        return self._store.weights[self._range]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Next tokens where trained, `[seq_len]`."""
        return _labels(self.input_ids, self.weights)

    @property
    def num_tokens(self) -> int:
        """Length of the sequence; reads no token."""
        part = self._range
        return int(part.stop - part.start)

    @property
    def num_trained(self) -> int:
        """Number of supervised tokens."""
        return int((self.weights > 0).sum())


def _labels(ids: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.where(weights > 0, np.append(ids[1:], 0), IGNORE_INDEX)


def read_meta(folder: Path) -> dict[str, Any]:
    """`meta.json` of a store.

    Raises:
        StoreDamaged: it cannot be read, or is of another format.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise StoreDamaged(f"format {meta['format']}, and {FORMAT} is known")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{META} cannot be read ({error})") from None
    return dict(meta)
