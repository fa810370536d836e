"""`sft check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sft.config.flags import build_config, is_config_file, run_options


@click.command()
@click.argument("source", required=False, metavar="[CONFIG|DATA]")
@run_options
@click.option("--rows", type=click.IntRange(0), default=3, show_default=True, help="Rows to show.")
@click.option("--row", help="Show this row: file:line, or line.")
@click.option("--search", help="Show rows that hold this text.")
@click.option("--benchmark", "benchmarks", multiple=True, help="Texts not to train on; repeatable.")
@click.option(
    "--rehearse/--no-rehearse",
    default=None,
    help="Run one micro-batch, which tells time and memory  [default: with a config file]",
)
@click.option(
    "--score", type=click.IntRange(0), default=0, help="Rows to score with the base model."
)
@click.option(
    "--html",
    is_flag=False,
    flag_value="check.html",
    type=click.Path(dir_okay=False),
    help="Write a page too  [without a name: check.html]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list only.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "never"]),
    default="error",
    show_default=True,
    help="Exit with code 3 if a finding is this severe or worse.",
)
def check(source: str | None, html: str | None, as_json: bool, fail_on: str, **flags: Any) -> None:
    """Tell what is wrong with the data, and what would be trained, before a single step.

    Reads every row as `sft train` would: its fate, its tokens, its copies, leaks and faults.
    """
    names = ("rows", "row", "search", "benchmarks", "rehearse", "score")
    chosen = {name: flags.pop(name) for name in names}
    config = build_config(source, flags)
    if chosen["rehearse"] is None:
        chosen["rehearse"] = is_config_file(source)

    from rich.console import Console as RichConsole

    from sft.check.examine import CheckOptions, examine
    from sft.check.page import write_page
    from sft.check.terminal import print_report
    from sft.curate.finding import as_severe_as, verdict
    from sft.errors import DataError
    from sft.terminal.console import Console

    with Console() as console:
        report = examine(config, CheckOptions(**chosen, page=html is not None), console)
        if html:
            write_page(report, Path(html))
    if as_json:
        click.echo(json.dumps([finding.record() for finding in report.findings], indent=1))
    else:
        num_views = len(report.views) if chosen["row"] or chosen["search"] else chosen["rows"]
        print_report(report, num_views, RichConsole(highlight=False))
        if html:
            click.echo(f"page: {html}")
    if severe := as_severe_as(fail_on, report.findings):
        raise DataError(f"{verdict(severe)} in the data; --fail-on never exits with 0 all the same")
