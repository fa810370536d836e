"""Which trackers a configuration asks for, and whether their libraries are there."""

from __future__ import annotations

from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec

from sft.config import Config
from sft.errors import ConfigError, did_you_mean
from sft.trackers import TRACKERS

# name: the packages that may bring its library, and the oldest version that is known to do
_PACKAGES: dict[str, tuple[tuple[str, ...], tuple[int, int]]] = {
    "tensorboard": (("tensorboard",), (2, 16)),
    "wandb": (("wandb",), (0, 27)),
    "mlflow": (("mlflow-skinny", "mlflow"), (3, 0)),
    "trackio": (("trackio",), (0, 30)),
}


def asked_for(config: Config) -> list[str]:
    """Names of the trackers that follow a run of `config`.

    Raises:
        ConfigError: one is asked for and its library is missing or too old.
    """
    names = []
    for name in TRACKERS:
        wanted = getattr(config.trackers, name, None)
        if name == "alerts":
            if config.alerts.webhook or config.alerts.command:
                names.append(name)
        elif wanted == "auto":
            if missing(name) is None:
                names.append(name)
        elif wanted:
            need(name)
            names.append(name)
    return names


def need(name: str) -> None:
    """Raise `ConfigError` unless there is a tracker of this name and its library."""
    if name not in TRACKERS:
        known = ", ".join(TRACKERS)
        raise ConfigError(f"{name}: no such tracker.{did_you_mean(name, TRACKERS)} Known: {known}.")
    problem = missing(name)
    if problem:
        raise ConfigError(f"trackers.{name}: {problem}; pip install 'sft[{name}]'")


def missing(name: str) -> str | None:
    """Why the tracker cannot be used here; None when it can."""
    if name not in _PACKAGES:
        return None
    packages, oldest = _PACKAGES[name]
    if find_spec(name) is None:
        return f"{name} is not installed"
    for package in packages:
        with suppress(metadata.PackageNotFoundError, ValueError):
            version = metadata.version(package)
            major, minor = (int(part) for part in version.split(".")[:2])
            if (major, minor) < oldest:
                return f"{name} {version} is too old ({oldest[0]}.{oldest[1]} or newer is needed)"
            return None
    return None
