"""Sections of a configuration that say who is told of a run; they change no result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sft.config.section import Auto, Section

# The kinds of `sft.runs.events`, which this layer may not import.
EventKind = Literal[
    "started",
    "resumed",
    "phase",
    "note",
    "evaluation",
    "checkpoint",
    "watch",
    "alarm",
    "stopped",
    "interrupted",
    "failed",
    "finished",
]


class TrackersConfig(Section):
    """Services that get the metrics while they are recorded; none of them can delay training."""

    tensorboard: bool | Auto = Field(
        "auto",
        description="Event files in `trackers/tensorboard` of the run; `auto`: where TensorBoard "
        "is installed.",
    )
    wandb: bool = Field(False, description="Send to Weights & Biases.")
    mlflow: bool = Field(False, description="Send to MLflow, at `MLFLOW_TRACKING_URI`.")
    trackio: bool = Field(False, description="Write to the local store of Trackio.")
    custom: list[str] = Field(
        default_factory=list,
        description="Trackers of your own: `path.py:class`, or the name of an entry point in the "
        "group `sft.trackers` (docs/extending.md).",
    )
    project: str = Field(
        "sft", min_length=1, description="Project (MLflow: experiment) of the run."
    )
    name: str | None = Field(None, description="Name of the run there; default: of its folder.")


class AlertsConfig(Section):
    """Who is told at once when something happens."""

    webhook: str | None = Field(
        None,
        description="Address that gets each alert as JSON (Slack, Discord, your own); `$NAME` "
        "reads it from that environment variable, so that it is written nowhere.",
    )
    command: str | None = Field(
        None, description="Program that is started for each alert, without a shell."
    )
    on: list[EventKind] = Field(
        default_factory=lambda: ["alarm", "stopped", "failed", "finished"],  # type: ignore[arg-type]
        description="Kinds of events that are alerts.",
    )
