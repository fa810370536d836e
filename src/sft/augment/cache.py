"""Answers that were paid for once: JSON lines, known by the SHA-256 of what was asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft.runs.store import RecordStore, read_records


def request_key(asked: Mapping[str, Any]) -> str:
    """SHA-256 of everything the answer depends on: address or model, messages, settings."""
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Cache:
    """Appends each answer as it comes, so that a stopped command loses none; threads may share it.

    Keys, addresses and prompts are not in the file, which is made with the first answer.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            DataError: a line is not one of ours.
        """
        self._path = path
        self._known = {r["key"]: r for r in read_records(path) if isinstance(r.get("key"), str)}
        self._store: RecordStore | None = None
        self._lock = threading.Lock()

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The answer to what was asked under `key`, with its `text`."""
        return self._known.get(key)

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer."""
        record = {"key": key, **answer}
        with self._lock:
            self._known[key] = record
            self._store = self._store or RecordStore(self._path)
            self._store.append(record)

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._store:
            self._store.sync()
            self._store.close()
