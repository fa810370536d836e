"""`sft track`."""

from __future__ import annotations

import click


@click.command()
@click.argument("run", type=click.Path())
@click.option("--to", "name", required=True, help="tensorboard, wandb, mlflow, trackio or alerts.")
@click.option("--project", help="Project (MLflow: experiment) there; default: the run's own.")
def track(run: str, name: str, project: str | None) -> None:
    """Send RUN, finished or not, to a tracker: whatever that one has not got yet."""
    from sft.trackers.send import track as send

    click.echo(send(run, name, project))
