"""Weights & Biases. `WANDB_MODE`, `WANDB_BASE_URL` and the other variables of wandb apply.

wandb has a process of its own that uploads; only the end of `finish` says that all is there. So
each record has a number, and after an interruption those that the server lacks are sent again.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import wandb

from sft.runs.run_dir import RunDir
from sft.trackers.base import Tracker, summary_values

_ALERTS = {"alarm": "WARN", "stopped": "WARN", "failed": "ERROR"}
_SERVICE = b"wandb-core"


class Wandb(Tracker):
    """One run of wandb, which every attempt continues."""

    confirms = False

    def start(self, run: RunDir, config: Mapping[str, Any], state: dict[str, Any]) -> None:
        """Begin or continue the run; raises when the server does not answer."""
        self._state = state
        state.setdefault("id", uuid.uuid4().hex[:12])
        self._rows = state.setdefault("rows", 0)
        settings = wandb.Settings(
            silent=True,  # no text between our lines, and no question for a key
            console="off",
            finish_timeout=config["wait"] or 0.0,
            finish_timeout_raises=True,
        )
        wandb.setup(settings=settings)
        run.trackers.mkdir(exist_ok=True)
        from_environment = config["project"] == "sft" and "WANDB_PROJECT" in os.environ
        self._run = wandb.init(
            project=None if from_environment else config["project"],
            name=None if "WANDB_NAME" in os.environ else config["name"],
            dir=None if "WANDB_DIR" in os.environ else str(run.trackers),
            id=state["id"],
            resume="allow",
            reinit="create_new",
            config=dict(config["settings"]),
            settings=settings,
        )
        self._run.define_metric("*", step_metric="step")

    def record(self, records: Sequence[Mapping[str, Any]]) -> None:
        """One row of wandb's history for each record; `step` is a column and the x axis.

        wandb's own step only grows, but an evaluation comes after the step it belongs to.
        """
        for record in records:
            if self._rows >= self._run.starting_step:  # else the server has it already
                self._run.log({n: v for n, v in record.items() if n != "time"}, step=self._rows)
            self._rows += 1

    def event(self, event: Mapping[str, Any]) -> None:
        """Alerts of wandb, for what needs one."""
        kind = str(event.get("kind"))
        if kind in _ALERTS:
            text = f"step {event.get('step')}: {event.get('text')}"
            self._run.alert(title=f"sft: {kind}", text=text, level=_ALERTS[kind])

    def finish(self, status: str, summary: Mapping[str, Any] | None) -> None:
        """Wait until everything is uploaded."""
        self._run.summary.update({**summary_values(summary), "status": status})
        self._run.finish(exit_code=0 if status in ("finished", "running") else 1)
        self._state["rows"] = self._rows

    def abandon(self) -> None:
        """End wandb's process: at our own exit wandb would wait for its uploads, maybe for ever.

        What it has is in files under `trackers/wandb`, too.
        """
        ours = _services() - _FOREIGN
        # Its hook at our exit would only tell, with a traceback, that the process is gone.
        unhook = getattr(getattr(wandb.setup(), "_connection", None), "_cleanup", None)
        if ours and callable(unhook):
            unhook()
        for process in ours:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)


def _services() -> set[int]:
    """wandb's processes that this one started (Linux; elsewhere none are found)."""
    processes = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and _SERVICE in (folder / "cmdline").read_bytes():
                processes.add(int(folder.name))
    return processes


_FOREIGN = _services()  # of code that used wandb before us
