"""`sft track`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sft.config import Config
    from sft.runs.run_dir import RunDir


@click.command()
@click.argument("run", type=click.Path())
@click.option(
    "--to",
    "name",
    required=True,
    help="tensorboard, wandb, mlflow, trackio, alerts, or your own: ./my_tracker.py:MyTracker.",
)
@click.option("--project", help="Project (MLflow: experiment) there; default: the run's own.")
def track(run: str, name: str, project: str | None) -> None:
    """Send RUN, finished or not, to a tracker: whatever that one has not got yet."""
    from sft.runs.run_dir import RunDir
    from sft.trackers.session import send

    folder = RunDir.find(run)
    count = send(folder, name, _config_of(folder, project))
    click.echo(
        f"alerts sent: {count:,}" if name == "alerts" else f"records sent to {name}: {count:,}"
    )


def _config_of(run: RunDir, project: str | None) -> Config:
    """The trackers and alerts of a run; the defaults for a run that knows neither."""
    from sft.config import load_config
    from sft.runs.files import section
    from sft.trackers.session import saved_identity

    values = section(saved_identity(run), "config")
    own = {name: value for name, value in values.items() if name in ("trackers", "alerts")}
    return load_config(own, {"trackers.project": project} if project else {})
