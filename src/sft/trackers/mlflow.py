"""MLflow. `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and its other variables apply."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from sft.runs.run_dir import RunDir
from sft.trackers.base import Tracker, summary_values

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_EVENTS = ("watch", "alarm", "stopped", "interrupted", "failed")
_MOST_METRICS = 1000  # of one request
_MOST_PARAMS = 100
_MOST_TEXT = 500  # characters; newer servers take more
_NOT_IN_NAMES = re.compile(r"[^\w. /-]", re.ASCII)


class Mlflow(Tracker):
    """One run of MLflow, which every attempt continues.

    A request that is repeated because its answer was lost changes nothing: the records have the
    same times again.
    """

    def start(self, run: RunDir, config: Mapping[str, Any], state: dict[str, Any]) -> None:
        """Begin or continue the run, in the experiment called as `trackers.project`."""
        self._client = MlflowClient()
        if "run_id" in state:
            self._id: str = state["run_id"]
            self._client.update_run(self._id, status="RUNNING")
            return
        project = config["project"]
        if project == "sft":
            project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or project
        known = self._client.get_experiment_by_name(project)
        experiment = known.experiment_id if known else self._client.create_experiment(project)
        created = self._client.create_run(experiment, run_name=config["name"])
        self._id = state["run_id"] = created.info.run_id
        params = [
            Param(_name(key), _short(value if isinstance(value, str) else json.dumps(value)))
            for key, value in config["settings"].items()
        ]
        self._log("params", params, _MOST_PARAMS)

    def record(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Metrics under the names of `metrics.jsonl`, at the step of the record."""
        metrics = [
            Metric(_name(name), value, round(record["time"] * 1000), record["step"])
            for record in records
            for name, value in record.items()
            if name not in ("step", "time")
        ]
        self._log("metrics", metrics, _MOST_METRICS)

    def event(self, event: Mapping[str, Any]) -> None:
        """A tag `sft.<kind>` (`sft.alarm.overfitting`) with the newest text of that kind."""
        kind = event.get("kind")
        if kind in _EVENTS:
            guard = event.get("guard")
            name = f"sft.{kind}.{guard}" if guard else f"sft.{kind}"
            text = f"step {event.get('step')}: {event.get('text')}"
            self._client.set_tag(self._id, _name(name), _short(text))

    def finish(self, status: str, summary: Mapping[str, Any] | None) -> None:
        """The summary as tags, and the status."""
        tags = [
            RunTag(_name(f"sft.{n}"), _short(str(v))) for n, v in summary_values(summary).items()
        ]
        self._log("tags", tags, _MOST_PARAMS)
        if status in _STATUS:
            self._client.set_terminated(self._id, _STATUS[status], round(time.time() * 1000))

    def _log(self, kind: str, items: Sequence[Any], most: int) -> None:
        """In requests of at most `most` items."""
        for start in range(0, len(items), most):
            self._client.log_batch(self._id, **{kind: items[start : start + most]})


def _name(name: str) -> str:
    """A name that MLflow takes; where something was replaced it stays unlike all others."""
    plain = _NOT_IN_NAMES.sub("_", name)[:230]
    if plain == name:
        return name
    return f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _short(text: str) -> str:
    return text[:_MOST_TEXT]
