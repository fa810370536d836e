"""`sft guards` and `sft report`."""

from __future__ import annotations

import sys
from typing import Any

import click


@click.command()
@click.argument("run", type=click.Path())
@click.option("--all", "every", is_flag=True, help="Every signal, also those that pass.")
@click.option("--json", "as_json", is_flag=True, help="Findings of all evaluations as JSON lines.")
@click.option(
    "--fail-on",
    type=click.Choice(["watch", "alarm"]),
    help="Exit with code 8 if any guard says this or worse after the last evaluation.",
)
def guards(run: str, **options: Any) -> None:
    """Judge the records of RUN again: overfitting, format collapse, mismatch, forgetting.

    Reads the run folder only; needs neither the model nor torch.
    """
    from sft.report.guards_table import show_guards

    show_guards(run, out=sys.stdout, **options)


@click.command()
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(), help="Where it goes; default: report.html in RUN.")
def report(run: str, out: str | None) -> None:
    """Write the report of RUN, in whatever state it is: one HTML file that needs nothing else."""
    from pathlib import Path

    from sft.report.write import write_report
    from sft.runs.run_dir import RunDir

    click.echo(write_report(RunDir(run), Path(out) if out else None))
