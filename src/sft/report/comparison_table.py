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


def show_comparison(comparison: Comparison, *, as_json: bool, out: TextIO) -> None:
    """Write the comparison to `out`, as a table with a verdict or as one JSON object."""
    if as_json:
        out.write(json.dumps(comparison.record(), allow_nan=False) + "\n")
        return
    console = Console(file=out, highlight=False)
    console.print(table(comparison))
    style = STYLES[comparison.verdict]
    console.print(Text(printable(sentence(comparison)), style=style), soft_wrap=True)
    for note in comparison.notes:
        console.print(Text(f"note: {printable(note)}", style="dim"), soft_wrap=True)


def table(comparison: Comparison) -> Table:
    """Both runs and their difference."""
    result = Table(
        title=Text(f"{comparison.probe}: {comparison.n:,} rows, each compared with itself"),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    result.add_column("")
    for name in ("step", "nats/token", "95 %"):
        result.add_column(name, justify="right", no_wrap=True)
    names = [Path(run).name for run in (comparison.run_a, comparison.run_b)]
    if names[0] == names[1]:
        names = [comparison.run_a, comparison.run_b]
    a, b = (Text(f"{side}  {printable(name)}") for side, name in zip("AB", names, strict=True))
    result.add_row(a, str(comparison.step_a), f"{comparison.loss_a:.4f}")
    result.add_row(b, str(comparison.step_b), f"{comparison.loss_b:.4f}")
    low, high = comparison.interval
    result.add_row(
        "B - A",
        "",
        Text(f"{comparison.difference:+.4f}", style="bold"),
        f"{low:+.4f} to {high:+.4f}",
    )
    return result


def sentence(comparison: Comparison) -> str:
    """The verdict in one sentence, with what could not have been seen."""
    if comparison.interval == (0.0, 0.0):
        return "no difference: every row has the same loss in both"
    least = (
        "with so few rows none could be detected"
        if comparison.mde is None
        else f"a difference of {comparison.mde:.4f} would be detected four times in five"
    )
    if comparison.verdict == "no difference seen":
        return (
            f"no difference seen (p = {min(comparison.p_better, comparison.p_worse):.2g}; {least})"
        )
    p = comparison.p_better if comparison.verdict == "better" else comparison.p_worse
    size = f"{abs(comparison.difference):.4f} nats per token"
    return f"B is {comparison.verdict} than A by {size} (p = {p:.2g}; {least})"
