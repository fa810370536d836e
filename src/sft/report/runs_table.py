"""`sft runs`: the runs of some folders as a table, newest change first. Needs no torch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sft.guards.base import GLYPHS
from sft.report.guards_table import STYLES
from sft.runs.index import RunRow, list_runs, named_folders
from sft.terminal.console import duration
from sft.texts.safe import printable

STATES: dict[str, tuple[str, str]] = {
    "preparing": ("…", "cyan"),
    "training": ("▶", "cyan"),
    "measuring": ("◎", "cyan"),
    "saving": ("↓", "cyan"),
    "finished": ("✓", "green"),
    "stalled": ("‖", "yellow"),
    "interrupted": ("■", "yellow"),
    "failed": ("✗", "bold red"),
    "killed": ("↯", "bold red"),
    "unknown": ("○", "dim"),
}
LETTERS = {
    "overfitting": "O",
    "format_collapse": "C",
    "distribution_mismatch": "M",
    "forgetting": "F",
    "health": "H",
}
WIDE = 74  # columns that all of the table needs, besides the names of runs
_EXPLAINED = ("stalled", "interrupted", "failed", "killed", "unknown")
_UNKNOWN = "-"


def show_runs(names: Sequence[str], *, as_json: bool, out: TextIO) -> None:
    """Write the runs of the folders `names` (default: `runs`) to `out`.

    Raises:
        ConfigError: a folder is not there.
    """
    folders = named_folders(names)
    rows = list_runs(folders)
    if as_json:
        out.write(json.dumps([row.record() for row in rows], allow_nan=False) + "\n")
        return
    console = Console(file=out, highlight=False)
    if not rows:
        where = ", ".join(printable(str(folder)) for folder in folders)
        console.print(Text(f"no runs in {where}; `sft train` makes one"), soft_wrap=True)
        return
    now = time.time()
    narrow = console.width < WIDE + 6
    console.print(_narrow(rows, now) if narrow else _wide(rows, now))
    for row in rows:
        if row.state in _EXPLAINED and row.detail:
            reason = Text(printable(f"{row.name}: {row.detail}"), style=STATES[row.state][1])
            console.print(reason, soft_wrap=not console.is_terminal)
    if any(row.verdicts for row in rows):
        console.print(_legend(rows))


def _wide(rows: Iterable[RunRow], now: float) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("step", "best val", "guards", "in steps", "changed"):
        table.add_column(name, justify="left" if name == "guards" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(printable(row.name)),
            _state(row),
            _steps(row),
            _loss(row),
            verdict_marks(row.verdicts),
            _UNKNOWN if row.seconds is None else duration(row.seconds),
            ago(row.updated, now),
        )
    return table


def _narrow(rows: Iterable[RunRow], now: float) -> Table:
    """Each run in two lines: its name and state, and what is known of it."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for row in rows:
        name = Text(printable(row.name), style="bold", overflow="fold").append("  ")
        table.add_row(name.append_text(_state(row)))
        known = [
            "" if row.step is None else f"{_steps(row)} ",
            "" if row.best_val_loss is None else f"val {_loss(row)} ",
            "" if row.updated is None else f"{ago(row.updated, now)} ago ",
        ]
        marks = _worries(row.verdicts) if row.verdicts else Text()
        if any(known):
            table.add_row(Text(f"  {''.join(known)}").append_text(marks))
    return table


def verdict_marks(verdicts: Mapping[str, str]) -> Text:
    """The glyph of each guard's verdict, in its colour, before the letter of the guard."""
    marks = Text()
    for guard in [*LETTERS, *sorted(verdicts.keys() - LETTERS.keys())]:
        verdict = verdicts.get(guard)
        if verdict is not None:
            letter = LETTERS.get(guard) or printable(guard[:1]).upper()
            style = STYLES.get(verdict, "dim")
            marks.append(f"{GLYPHS.get(verdict, '?')}{letter}", style=style)
    return marks if marks else Text(_UNKNOWN)


def _worries(verdicts: Mapping[str, str]) -> Text:
    """The marks of what did not pass, or that all did."""
    worries = {guard: verdict for guard, verdict in verdicts.items() if verdict != "pass"}
    if verdicts and not worries:
        return Text(f"{GLYPHS['pass']} all", style=STYLES["pass"])
    return verdict_marks(worries)


def _legend(rows: Iterable[RunRow]) -> Text:
    """What the glyphs and letters that were used stand for."""
    used = {guard: verdict for row in rows for guard, verdict in row.verdicts.items()}
    verdicts = {verdict for row in rows for verdict in row.verdicts.values()}
    glyphs = [
        f"{glyph} {name.replace('_', ' ')}" for name, glyph in GLYPHS.items() if name in verdicts
    ]
    guards = [
        f"{letter} {name.removeprefix('distribution_').replace('_', ' ')}"
        for name, letter in LETTERS.items()
        if name in used
    ]
    return Text("  ".join(glyphs) + "\n" + "  ".join(guards), style="dim")


def _state(row: RunRow) -> Text:
    glyph, style = STATES.get(row.state, STATES["unknown"])
    return Text(f"{glyph} {row.state}", style=style)


def _steps(row: RunRow) -> str:
    if row.step is None:
        return _UNKNOWN
    return f"{row.step:,}" + (f"/{row.num_steps:,}" if row.num_steps else "")


def _loss(row: RunRow) -> str:
    return _UNKNOWN if row.best_val_loss is None else f"{row.best_val_loss:.4f}"


def ago(then: float | None, now: float) -> str:
    """How long ago: `5 s`, `12 min`, `3 h`, `40 d`."""
    if then is None:
        return _UNKNOWN
    seconds = max(0.0, now - then)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
