"""TensorBoard: event files in `trackers/tensorboard` of the run.

Scalars are 32-bit floats there. Their wall time is that of `Position`: when the run began, plus the
time it trained.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from sft.runs.run_dir import RunDir
from sft.runs.state import seconds_of
from sft.trackers.base import Tracker, summary_values

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+.!|~$&-])")
_EVENTS = ("started", "resumed", "watch", "alarm", "stopped", "interrupted", "failed", "finished")


class TensorBoard(Tracker):
    """Writes one event file for each attempt; TensorBoard reads them as one run."""

    def start(self, run: RunDir, config: Mapping[str, Any], state: dict[str, Any]) -> None:
        """Begin a file, with the settings of the run as text."""
        folder = run.trackers / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        state["files"] = state.get("files", 0) + 1  # they are read in the order of their names
        began = int(time.time())
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        path = folder / f"events.out.tfevents.{began}.{host}.{os.getpid()}.{state['files']}"
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115  # closed by `finish`
        self._step = 0
        self._write([Event(wall_time=began, file_version="brain.Event:2")])
        if state["files"] == 1 and config["settings"]:
            values = {name: json.dumps(value) for name, value in config["settings"].items()}
            self._write([_text("config", _table("setting", values))])

    def record(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Scalars under the names of `metrics.jsonl`."""
        self._step = max(self._step, records[-1]["step"])
        self._write(
            Event(
                wall_time=record["time"],
                step=record["step"],
                summary=Summary(
                    value=[
                        Summary.Value(tag=name, simple_value=value)
                        for name, value in record.items()
                        if name not in ("step", "time")
                    ]
                ),
            )
            for record in records
        )

    def event(self, event: Mapping[str, Any]) -> None:
        """Text under `events/<kind>`."""
        kind = event.get("kind")
        if kind in _EVENTS:
            step = event.get("step")
            at = step if isinstance(step, int) else self._step
            text = _plain(str(event.get("text", "")))
            self._write([_text(f"events/{kind}", text, at, seconds_of(dict(event)))])

    def finish(self, status: str, summary: Mapping[str, Any] | None) -> None:
        """The summary as text."""
        values = summary_values(summary)
        if values:
            self._write([_text("summary", _table("summary", values), self._step)])
        self._file.close()

    def abandon(self) -> None:
        """Nothing waits for a file; it is closed, so that its disk can be let go."""
        self._file.close()

    def _write(self, events: Iterable[Event]) -> None:
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        for event in events:
            writer.write(event.SerializeToString())
        if self._file.write(buffer.getbuffer()) != buffer.tell():
            raise OSError("the disk took only a part of it")


def _table(title: str, values: Mapping[str, Any]) -> str:
    rows = [f"| {_plain(name)} | {_plain(str(value))} |" for name, value in values.items()]
    return "\n".join([f"| {title} | value |", "|---|---|", *rows])


def _text(tag: str, text: str, step: int = 0, wall_time: float | None = None) -> Event:
    """Markdown, as the text page of TensorBoard reads it."""
    tensor = TensorProto(
        dtype=DT_STRING,
        string_val=[text.encode("utf-8", "replace")],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    value = Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
    return Event(wall_time=wall_time or time.time(), step=step, summary=Summary(value=[value]))


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", text).replace("\n", " ")
