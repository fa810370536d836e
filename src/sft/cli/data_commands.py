"""Commands of the data desk: what is wrong with the data, and how it is changed."""

from __future__ import annotations

from typing import Any

import click

from sft.cli.options import build_config, run_options


@click.command()
@click.argument("source", required=False, metavar="[CONFIG|DATA]")
@run_options
@click.option("--rows", type=click.IntRange(0), default=3, show_default=True, help="Rows to show.")
@click.option("--row", help="Show this row: file:line, or line.")
def check(source: str | None, rows: int, row: str | None, **flags: Any) -> None:
    """Show what would be trained: every row's fate, lengths, and trained tokens in colour."""
    built = build_config(source, flags)
    from rich.console import Console as RichConsole

    from sft.check.terminal import check as run
    from sft.trackers.console import Console

    with Console() as show:
        run(built, rows, row, RichConsole(highlight=False), show)


COMMANDS = (check,)
