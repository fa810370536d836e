"""`sft train`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sft.config.flags import build_config, run_options
from sft.training.interrupt import pressed

if TYPE_CHECKING:
    from sft.runs.run_dir import RunDir
    from sft.terminal.console import Console


@click.command()
@click.argument("config", required=False)
@run_options
@click.option("--watch", is_flag=True, help="Show the run as a live page too; prints its address.")
@click.option("--quiet", is_flag=True, help="Show only warnings and the end.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def train(config: str | None, watch: bool, quiet: bool, as_json: bool, **flags: Any) -> None:
    """Train a model, or continue an interrupted run: the same command resumes it.

    CONFIG is a YAML file; flags win over it. Without one, --data says what to train on.
    """
    built = build_config(config, flags)
    from sft.terminal.console import Console
    from sft.train import train as run

    if pressed:  # and swallowed by a library that was being imported
        raise KeyboardInterrupt
    show = Console(quiet=quiet)
    summary = run(built, show, on_open=_show_page) if watch else run(built, show)
    click.echo(json.dumps(asdict(summary)) if as_json else summary.model_dir)


def _show_page(run: RunDir, show: Console) -> None:
    from sft.dashboard.serve import start_watching

    show.note(f"watch: {start_watching(run.path)}", always=True)
