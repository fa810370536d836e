"""One attempt at a run: how it began, how it ended, and a report of what there is by then."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sft.errors import CheckpointError, Interrupted, SFTError
from sft.runs.events import EventLog
from sft.runs.run_dir import RunDir
from sft.terminal.console import Console


@contextmanager
def attempt(run: RunDir, show: Console) -> Iterator[EventLog]:
    """Tell `events.jsonl` what becomes of the block, and write the report however it ends.

    What is raised inside goes on. An attempt that is refused or stopped before the block calls
    `release` leaves no trace: so it changes nothing.
    """
    log = begin(run, show)
    try:
        yield log
    except BaseException as error:
        if not log.released and isinstance(error, CheckpointError | Interrupted):
            log.forget()
            raise
        if isinstance(error, Interrupted):
            log.add("interrupted", str(error), level="warning")
        else:
            name = "" if isinstance(error, SFTError) else f"{type(error).__name__}: "
            log.add("failed", f"{name}{error}", level="error")
        log.release()
        report(run, show)
        raise
    log.add("finished", "the model is saved")
    report(run, show)


def begin(run: RunDir, show: Console) -> EventLog:
    """The log of an attempt that begins now; from now on `show` writes to it too."""
    log = EventLog(run.events, held=run.config.is_file() or run.events.is_file())
    show.log_to(log)
    host = socket.gethostname()
    log.add(
        "started",
        f"process {os.getpid()} on {host}",
        command=_command(),
        folder=os.getcwd(),
        host=host,
        pid=os.getpid(),
    )
    return log


def _command() -> str | None:
    """What was typed; None where sft is used from Python."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program not in ("sft", "__main__.py"):
        return None
    # The address of a webhook is a secret: who knows it can write there.
    words = [re.sub(r"((?:^|=)alerts\.\w+=).*", r"\1...", word) for word in sys.argv[1:]]
    return shlex.join(["sft", *words])


def report(run: RunDir, show: Console) -> None:
    """Write `report.html` of what there is by now.

    A report that cannot be written must not take the model down with it.
    """
    if not run.config.is_file():
        return  # it ended before anything was decided
    try:
        from sft.report.write import write_report

        path = write_report(run)
    except Exception as error:
        show.note(
            f"the report could not be written: {type(error).__name__}: {error}", level="error"
        )
    else:
        show.note(f"report: {path}")
