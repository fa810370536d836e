"""Two runs beside each other, as a table with a verdict or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sft.runs.compare import Comparison
from sft.texts.safe import printable

STYLES = {"better": "green", "worse": "bold red", "no difference seen": "yellow"}


def show_comparison(found: Comparison, *, as_json: bool, out: TextIO) -> None:
    """Write the comparison to `out`, as a table with a verdict or as one JSON object."""
    if as_json:
        out.write(json.dumps(found.record(), allow_nan=False) + "\n")
        return
    console = Console(file=out, highlight=False)
    console.print(table(found))
    style = STYLES[found.verdict]
    console.print(Text(printable(sentence(found)), style=style), soft_wrap=True)
    for note in found.notes:
        console.print(Text(f"note: {printable(note)}", style="dim"), soft_wrap=True)


def table(found: Comparison) -> Table:
    """Both runs and their difference."""
    shown = Table(
        title=Text(f"{found.probe}: {found.n:,} rows, each compared with itself"),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("")
    for name in ("step", "nats/token", "95 %"):
        shown.add_column(name, justify="right", no_wrap=True)
    names = [Path(run).name for run in (found.run_a, found.run_b)]
    if names[0] == names[1]:
        names = [found.run_a, found.run_b]
    a, b = (Text(f"{side}  {printable(name)}") for side, name in zip("AB", names, strict=True))
    shown.add_row(a, str(found.step_a), f"{found.loss_a:.4f}")
    shown.add_row(b, str(found.step_b), f"{found.loss_b:.4f}")
    low, high = found.interval
    shown.add_row(
        "B - A", "", Text(f"{found.difference:+.4f}", style="bold"), f"{low:+.4f} to {high:+.4f}"
    )
    return shown


def sentence(found: Comparison) -> str:
    """The verdict in one sentence, with what could not have been seen."""
    if found.interval == (0.0, 0.0):
        return "no difference: every row has the same loss in both"
    least = (
        "with so few rows none could be detected"
        if found.mde is None
        else f"a difference of {found.mde:.4f} would be detected four times in five"
    )
    if found.verdict == "no difference seen":
        return f"no difference seen (p = {min(found.p_better, found.p_worse):.2g}; {least})"
    p = found.p_better if found.verdict == "better" else found.p_worse
    size = f"{abs(found.difference):.4f} nats per token"
    return f"B is {found.verdict} than A by {size} (p = {p:.2g}; {least})"
