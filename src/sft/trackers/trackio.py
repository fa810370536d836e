"""Trackio: its local store, one SQLite file for each project (`TRACKIO_DIR`).

`trackio.log` returns before anything is stored, hides its errors, and prints to stdout. So this
writes with the function beneath it, which waits, raises, and knows a record that comes twice.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from trackio.sqlite_storage import SQLiteStorage

from sft.errors import ConfigError
from sft.runs.run_dir import RunDir
from sft.trackers.base import Tracker

_LEVELS = {"warning": "warn", "error": "error"}
_EVENTS = ("watch", "alarm", "stopped", "interrupted", "failed", "finished")


class Trackio(Tracker):
    """One run of Trackio, which every attempt continues."""

    def start(self, run: RunDir, config: Mapping[str, Any], state: dict[str, Any]) -> None:
        """Nothing is written before the first record.

        Raises:
            ConfigError: a Space or a server is asked for; `trackio sync` sends a project there.
        """
        for variable in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            if os.environ.get(variable):
                raise ConfigError(
                    f"{variable} is set, but sft writes to the local store of Trackio; unset it, "
                    "and send the project with `trackio sync` afterwards"
                )
        SQLiteStorage.validate_project_name(config["project"])
        state.setdefault("run_id", uuid.uuid4().hex)
        self._where = {
            "project": config["project"],
            "run": config["name"],
            "run_id": state["run_id"],
        }
        self._settings: dict[str, Any] | None = dict(config["settings"])

    def record(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Metrics under the names of `metrics.jsonl`, at the step of the record."""
        SQLiteStorage.bulk_log(
            **self._where,
            metrics_list=[
                {name: value for name, value in record.items() if name not in ("step", "time")}
                for record in records
            ],
            steps=[record["step"] for record in records],
            timestamps=[
                datetime.fromtimestamp(record["time"], UTC).isoformat() for record in records
            ],
            log_ids=[self._digest(*record.items()) for record in records],
            config=self._settings,
        )
        self._settings = None

    def event(self, event: Mapping[str, Any]) -> None:
        """An alert in Trackio."""
        kind = event.get("kind")
        if kind not in _EVENTS:
            return
        step = event.get("step")
        SQLiteStorage.bulk_alert(
            **self._where,
            titles=[str(kind)],
            texts=[str(event.get("text", ""))],
            levels=[_LEVELS.get(str(event.get("level")), "info")],
            steps=[step if isinstance(step, int) else None],
            timestamps=[str(event.get("time"))],
            alert_ids=[self._digest(kind, event.get("time"), event.get("text"))],
        )

    def _digest(self, *parts: Any) -> str:
        return hashlib.sha256(repr((self._where["run_id"], parts)).encode()).hexdigest()[:32]
