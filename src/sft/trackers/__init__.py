"""Services that follow a run: a tracker is one file here, and one line in `TRACKERS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sft.trackers.base import Tracker


@dataclass(frozen=True, slots=True)
class Library:
    """Makes a tracker of `sft.trackers`; its file, and with it its library, is loaded then.

    `packages` are those that may bring the library, `oldest` is the version that is known to do.
    """

    module: str
    kind: str
    packages: tuple[str, ...] = ()
    oldest: tuple[int, int] = (0, 0)

    def __call__(self) -> Tracker:
        """A new tracker."""
        tracker: Tracker = getattr(import_module(f"sft.trackers.{self.module}"), self.kind)()
        return tracker


TRACKERS: dict[str, Callable[[], Tracker]] = {
    "tensorboard": Library("tensorboard", "TensorBoard", ("tensorboard",), (2, 16)),
    "wandb": Library("wandb", "Wandb", ("wandb",), (0, 27)),
    "mlflow": Library("mlflow", "Mlflow", ("mlflow-skinny", "mlflow"), (3, 0)),
    "trackio": Library("trackio", "Trackio", ("trackio",), (0, 30)),
    "alerts": Library("alerts", "Alerts"),
}
