"""The terminal: one live line with loss, sparkline, validation, learning rate, speed and time left.

Written to stderr, so that stdout holds results only. Plain lines where stderr is no terminal, or
one that a line should not be drawn on over and over: with NO_COLOR, TERM=dumb, or CI set.
"""

from __future__ import annotations

import io
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from sft.runs.events import EventLog, Level
from sft.runs.metrics import METRICS
from sft.terminal.progress_line import (
    BARS,
    ProgressLine,
    duration,
    rough_duration,
    seconds_left,
    sparkline,
)
from sft.terminal.redirect import is_terminal, redirect
from sft.texts.safe import printable

__all__ = ["BARS", "Console", "duration", "printable", "sparkline"]

# In the order of what can be spared least on a narrow terminal.
EVAL_METRICS = sorted((m.live, m.name) for m in METRICS.values() if m.of == "evaluation" and m.live)
_STYLES: dict[Level, str] = {"info": "", "warning": "yellow", "error": "bold red"}
_LONG = 120.0  # seconds
_LINE_EVERY = 10.0  # seconds, in a log
_QUIET_LOG = 30.0  # seconds without a line, in a log, before one tells what is being done


class _Stream:
    """A stream whose terminal, reader or disk may go away: the run goes on without it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._lost_is_fine():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lost_is_fine():
            self._stream.flush()

    @contextmanager
    def _lost_is_fine(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # What is still buffered goes there too, or the exit code would tell of it.
            with suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console:
    """Shows a run. `stream` is stderr when None; a `quiet` one shows warnings and the end only."""

    def __init__(self, stream: Any = None, *, quiet: bool = False) -> None:
        out: Any = _Stream(stream or sys.stderr or io.StringIO())  # None: closed by `2>&-`
        self._out = RichConsole(file=out, highlight=False)
        self._draws = _can_draw(self._out, out)
        self._quiet = quiet
        self._line = ProgressLine(self._out)
        self._redirected: ExitStack | None = None  # while a line is drawn
        self._estimated = False
        self._drawn_at = 0.0
        self._printed_at = time.monotonic()  # the last line of a log
        self._log: EventLog | None = None
        self._logged_phase = ""

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._out.width

    def log_to(self, log: EventLog) -> None:
        """From now on every line that stays is an event of `log` too."""
        self._log = log

    def log(
        self, kind: str, text: str, *, level: Level = "info", step: int | None = None, **more: Any
    ) -> None:
        """An event for the log; nothing is shown."""
        if self._log is not None:
            self._log.add(kind, text, level=level, step=step, **more)

    def print(self, text: str, *, level: Level = "info", always: bool = False) -> None:
        """A line that stays, in the colour of its level; nothing is logged.

        A quiet console shows warnings, errors, and what is to be shown `always`.
        """
        self._print(text, "bold" if always else _STYLES[level], always or level != "info")

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def note(
        self,
        text: str,
        *,
        level: Level = "info",
        always: bool = False,
        kind: str = "note",
        step: int | None = None,
        **more: Any,
    ) -> None:
        """An event of its `kind` (see `sft.runs.events`) that is printed and logged."""
        self.print(text, level=level, always=always)
        self.log(kind, text, level=level, step=step, **more)

    def warn(self, text: str) -> None:
        """A warning, printed and logged."""
        self.note(text, level="warning")

    def _print(self, text: str, style: str = "", always: bool = False) -> None:
        """A line that stays; on a terminal broken between words, indented as it begins."""
        if self._quiet and not always:
            return
        self._printed_at = time.monotonic()
        text = printable(text)
        if self._draws:
            text = "\n".join(map(self._wrapped, text.splitlines()))
        self._out.print(Text(text, style=style), soft_wrap=True)

    def _wrapped(self, line: str) -> str:
        """Broken between words; a word longer than the line, such as a path, can be copied."""
        indent = len(line) - len(line.lstrip(" "))
        hanging = " " * (indent + 3 * line.startswith("-> ", indent))
        return textwrap.fill(
            line,
            self._out.width,
            subsequent_indent=hanging,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )

    def speak(self) -> None:
        """What follows is the end, which a quiet console shows too."""
        self._quiet = False

    def progress(self, what: str, done: int = 0, total: int = 0) -> None:
        """What is being done now, before and between steps."""
        text = f"{what} {done:,}/{total:,}" if total else what
        if what != self._logged_phase:
            self._logged_phase = what
            self.log("phase", what)
        if self._draws:
            self._line.phase = text
            self._refresh(force=not total or done == total)
        elif not total or done == total or time.monotonic() - self._printed_at > _QUIET_LOG:
            self._print(text)

    def block(self, rows: Mapping[str, str]) -> None:
        """Facts, each under its name: one below the other on a terminal, as lines in a log."""
        if not self._draws:
            for name, text in rows.items():
                self._print(f"{name}: {text}")
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        for name, text in rows.items():
            grid.add_row(Text(f"  {name}", style="dim"), Text(printable(text), overflow="fold"))
        self.table(grid)

    def start(self, num_steps: int) -> None:
        """Training begins: `num_steps` in the whole run."""
        self._line.begin(num_steps)

    def step(self, record: Mapping[str, Any]) -> None:
        """One optimizer step."""
        self._line.step(record)
        self._line.phase = self._logged_phase = ""
        self._estimate()
        if self._draws:
            self._refresh(force=False)
            return
        late = time.monotonic() - self._drawn_at > _LINE_EVERY
        if record["step"] <= 3 or self._line.task.finished or late:
            self._print(self._line.plain())
            self._drawn_at = time.monotonic()

    def _estimate(self) -> None:
        """Say once how long a long run will take, as soon as that is known."""
        left = None if self._estimated else seconds_left(self._line.task)
        if left is not None:
            self._estimated = True
            if left >= _LONG:
                text = f"about {rough_duration(left)} to go, with evaluations and checkpoints"
                self._print(text, "dim")

    def evaluate(self, record: Mapping[str, Any]) -> None:
        """A validation score."""
        self._line.evaluate(record)
        self._line.phase = ""
        metrics = [f"{n} {record[n]:.4f}" for _, n in EVAL_METRICS if record.get(n) is not None]
        text = f"step {record['step']:>6,}  " + "  ".join(metrics)
        self.log("evaluation", text, step=record["step"])
        while self._draws and len(text) > self._out.width and len(metrics) > 1:
            text = text.removesuffix(f"  {metrics.pop()}")
        self._print(text, "cyan")

    def table(self, table: Table) -> None:
        """A finished table."""
        self._stop()
        if not self._quiet:
            self._out.print(table)

    def _refresh(self, force: bool) -> None:
        if self._quiet:
            return
        if self._redirected is None:
            self._line.start()
            self._out.show_cursor(True)  # or a process that is killed leaves a terminal without
            self._redirected = redirect(self._print)
        if force or time.monotonic() - self._drawn_at > 0.1:
            self._drawn_at = time.monotonic()
            self._line.refresh()

    def _stop(self) -> None:
        if self._redirected is not None:
            self._redirected.close()
            self._redirected = None
            self._line.stop()


def _can_draw(console: RichConsole, stream: Any) -> bool:
    """Can a line be drawn over and over, and does nothing ask for plain text?"""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    plain = in_ci or os.environ.get("NO_COLOR", "") != ""
    return is_terminal(stream) and console.is_interactive and not plain
