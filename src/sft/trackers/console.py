"""The terminal: one live line with loss, sparkline, validation, rate, speed and time left.

Written to stderr, so that stdout holds results only. When stderr is no terminal, plain lines.
"""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sft.records.events import EventLog, Level

BARS = "▁▂▃▄▅▆▇█"
LOOK_METRICS = ("val_loss", "val_perplexity", "val_accuracy", "usage_loss", "retain_loss")
SPARK_WIDTH = 24
WIDE = 80  # columns; the line of a narrower terminal has no sparkline
# Control and bidirectional-override characters, which text from data must not send to a terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` without characters that could steer the terminal."""
    return _CONTROL.sub("�", text)


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """The values as bars, averaged into at most `width` of them."""
    finite = [value for value in values if value == value and abs(value) != float("inf")]
    if not finite:
        return ""
    size = -(-len(finite) // width)
    means = [
        sum(finite[i : i + size]) / len(finite[i : i + size]) for i in range(0, len(finite), size)
    ]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in means)


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


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
    """Shows a run. `stream` is stderr when None."""

    def __init__(self, stream: Any = None) -> None:
        out: Any = _Stream(stream or sys.stderr or io.StringIO())  # None: closed by `2>&-`
        self._out = RichConsole(file=out, highlight=False)
        self._live: Live | None = None
        self._losses: list[float] = []
        self._look: Mapping[str, Any] = {}
        self._last: Mapping[str, Any] = {}
        self._phase = ""
        self._num_steps = 0
        self._step_seconds: deque[float] = deque(maxlen=20)
        self._shown_at = 0.0
        self._log: EventLog | None = None
        self._logged_phase = ""

    def log_to(self, log: EventLog) -> None:
        """From now on every line that stays is an event of `log` too."""
        self._log = log

    def log(
        self, kind: str, text: str, *, style: str = "", step: int | None = None, **more: Any
    ) -> None:
        """An event that is not shown here; `style` is what it would be shown in."""
        if self._log is not None:
            level: Level = "error" if "red" in style else "info"
            level = "warning" if "yellow" in style else level
            self._log.add(kind, text, level=level, step=step, **more)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def note(
        self,
        text: str,
        style: str = "",
        *,
        kind: str = "note",
        step: int | None = None,
        **more: Any,
    ) -> None:
        """One line that stays, and an event of its `kind` (see `sft.records.events`)."""
        self._print(text, style)
        self.log(kind, text, style=style, step=step, **more)

    def _print(self, text: str, style: str = "") -> None:
        self._out.print(Text(printable(text), style=style), soft_wrap=True)

    def progress(self, what: str, done: int = 0, total: int = 0) -> None:
        """What is being done now, before and between steps."""
        text = f"{what} {done:,}/{total:,}" if total else what
        if what != self._logged_phase:
            self._logged_phase = what
            self.log("phase", what)
        if self._out.is_terminal:
            self._phase = text
            self._refresh(force=not total or done == total)
        elif not total or done == total:
            self._print(text)

    def start(self, num_steps: int) -> None:
        """Training begins; `num_steps` is the length of the whole run."""
        self._num_steps = num_steps
        self._phase = ""

    def step(self, record: Mapping[str, Any], seconds: float) -> None:
        """One optimizer step, which took `seconds`."""
        self._last = record
        self._losses.append(record["loss"])
        self._step_seconds.append(seconds)
        self._phase = ""
        if self._out.is_terminal:
            self._refresh(force=False)
        elif self._worth_a_line(record["step"]):
            self._print(self._line().plain)

    def look(self, record: Mapping[str, Any]) -> None:
        """A validation score."""
        self._look = record
        self._phase = ""
        shown = [f"{n} {record[n]:.4f}" for n in LOOK_METRICS if record.get(n) is not None]
        step = record["step"]
        self.note(f"step {step:>6,}  " + "  ".join(shown), "cyan", kind="look", step=step)

    def table(self, table: Table) -> None:
        """A finished table."""
        self._stop()
        self._out.print(table)

    def _worth_a_line(self, step: int) -> bool:
        return step <= 3 or step == self._num_steps or time.monotonic() - self._shown_at > 10

    def _line(self) -> Text:
        self._shown_at = time.monotonic()
        if self._phase or not self._last:
            return Text(self._phase, style="dim")
        record = self._last
        spark = sparkline(self._losses) if self._out.width >= WIDE else ""
        parts = [
            f"step {record['step']:,}/{self._num_steps:,}",
            f"loss {record['loss']:.4f} {spark}".rstrip(),
            f"lr {record['learning_rate']:.2g}",
            f"{record['tokens_per_second']:,.0f} tok/s",
        ]
        if self._look.get("val_loss") is not None:
            parts.insert(2, f"val {self._look['val_loss']:.4f}")
        left = self._num_steps - record["step"]
        if left > 0:
            each = sum(self._step_seconds) / len(self._step_seconds)
            parts.append(f"ETA {duration(left * each)}")
        return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")

    def _refresh(self, force: bool) -> None:
        if self._live is None:
            self._live = Live(console=self._out, auto_refresh=False, transient=True)
            self._live.start()
        if force or time.monotonic() - self._shown_at > 0.1:
            self._live.update(self._line(), refresh=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
