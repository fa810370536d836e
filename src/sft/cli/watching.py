"""Commands that look at runs, while they train and afterwards, and change nothing in them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(), metavar="[RUNS]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="[default: 8765, or the next free one]")
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option("--for-pid", type=int, hidden=True, help="End some time after this process.")
def watch(
    runs: Sequence[str], host: str, port: int | None, open_page: bool, for_pid: int | None
) -> None:
    """Show RUNS as a live page: curves, guards, samples, data, and comparisons.

    RUNS are run folders, or folders that hold them (default: runs); new ones appear by themselves.
    Needs neither torch nor a graphics card. Any --host but this machine's own asks for a token.
    """
    from sft.dashboard.command import watch as run

    run(runs, host, port, open_page=open_page, for_pid=for_pid)


@click.command()
@click.argument("run", type=click.Path())
@click.option("--to", "name", required=True, help="tensorboard, wandb, mlflow, trackio or alerts.")
@click.option("--project", help="Project (MLflow: experiment) there; default: the run's own.")
def track(run: str, name: str, project: str | None) -> None:
    """Send RUN, finished or not, to a tracker: whatever that one has not got yet."""
    from sft.trackers.command import track as send

    click.echo(send(run, name, project))


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(), metavar="[FOLDER]...")
@click.option("--json", "as_json", is_flag=True, help="A JSON list, with the settings of each run.")
def runs(folders: Sequence[str], as_json: bool) -> None:
    """List the runs in FOLDER (default: runs), those that changed last first.

    Reads run folders only, finished ones and others; needs neither a model nor torch.
    """
    from sft.report.runs_table import show_runs

    show_runs(folders, as_json=as_json, out=sys.stdout)


@click.command()
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(), help="Where it goes; default: report.html in RUN.")
def report(run: str, out: str | None) -> None:
    """Write the report of RUN, in whatever state it is: one HTML file that needs nothing else."""
    from pathlib import Path

    from sft.report.write import write_report
    from sft.run_dir import RunDir

    click.echo(write_report(RunDir(run), Path(out) if out else None))


@click.command(name="export-metrics")
@click.argument("run", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="FILE.csv or FILE.parquet.")
@click.option("--scores", is_flag=True, help="The scores of single examples instead.")
@click.option("--force", is_flag=True, help="Write over a file that is there already.")
def export_metrics(run: str, out: str, scores: bool, force: bool) -> None:
    """Write the metrics of RUN as one table, a row for each step and each look."""
    from sft.export_metrics import export_metrics as export
    from sft.trackers.console import printable

    click.echo(printable(export(run, out, scores=scores, force=force).account()))


COMMANDS = (watch, runs, report, export_metrics, track)
