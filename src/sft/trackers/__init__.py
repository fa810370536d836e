"""Where records are shown while a run goes on: the terminal, services, alerts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sft.trackers.base import Tracker


def _tensorboard() -> Tracker:
    from sft.trackers.tensorboard import TensorBoard

    return TensorBoard()


def _wandb() -> Tracker:
    from sft.trackers.wandb import Wandb

    return Wandb()


def _mlflow() -> Tracker:
    from sft.trackers.mlflow import Mlflow

    return Mlflow()


def _trackio() -> Tracker:
    from sft.trackers.trackio import Trackio

    return Trackio()


def _alerts() -> Tracker:
    from sft.trackers.alerts import Alerts

    return Alerts()


# A tracker's library is loaded when it is made, and not before.
TRACKERS: dict[str, Callable[[], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
    "alerts": _alerts,
}
