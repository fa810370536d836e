"""`sft runs`, `sft compare` and `sft export-metrics`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


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
@click.argument("run_a", type=click.Path())
@click.argument("run_b", type=click.Path())
@click.option(
    "--probe",
    type=click.Choice(["val", "usage", "test", "retain"]),
    default="val",
    show_default=True,
    help="The rows to compare on.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def compare(run_a: str, run_b: str, probe: str, as_json: bool) -> None:
    """Is RUN_B better than RUN_A? Each held-out row is compared with itself.

    Reads the records of two finished runs; needs neither the models nor torch.
    """
    from sft.report.comparison_table import show_comparison
    from sft.runs.compare import compare as run

    show_comparison(run(run_a, run_b, probe), as_json=as_json, out=sys.stdout)


@click.command(name="export-metrics")
@click.argument("run", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="FILE.csv or FILE.parquet.")
@click.option("--scores", is_flag=True, help="The scores of single examples instead.")
@click.option("--force", is_flag=True, help="Write over a file that is there already.")
def export_metrics(run: str, out: str, scores: bool, force: bool) -> None:
    """Write the metrics of RUN as one table, a row for each step and each look."""
    from sft.runs.export_metrics import export_metrics as export
    from sft.texts.safe import printable

    click.echo(printable(export(run, out, scores=scores, force=force).account()))
