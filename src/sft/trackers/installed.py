"""Which trackers a configuration asks for, and whether they can be used here."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from sft.config import Config
from sft.config.plugins import load_named
from sft.errors import ConfigError
from sft.trackers import TRACKERS, Library
from sft.trackers.base import Tracker

GROUP = "sft.trackers"  # of entry points


def asked_for(config: Config) -> list[str]:
    """The trackers that follow a run of `config`: names in `TRACKERS`, or what the user brings.

    Raises:
        ConfigError: one is asked for and cannot be used.
    """
    names = []
    for name in TRACKERS:
        setting = getattr(config.trackers, name, None)
        if name == "alerts":
            setting = bool(config.alerts.webhook or config.alerts.command)
        elif setting == "auto":
            setting = missing(name) is None
        if setting:
            maker(name)
            names.append(name)
    for spec in config.trackers.custom:
        try:
            maker(spec)
        except ConfigError as error:
            raise ConfigError(f"trackers.custom: {error}") from None
        if label(spec) in map(label, names):
            raise ConfigError(f"trackers.custom: '{spec}': there is another called {label(spec)}")
        names.append(spec)
    return names


def maker(name: str) -> Callable[[], Tracker]:
    """Makes the tracker of this name: of `TRACKERS`, an entry point, or `path.py:class`.

    Raises:
        ConfigError: there is none, its library is missing, or it is no tracker.
    """
    make = load_named(name, GROUP, TRACKERS)
    if name in TRACKERS:
        if problem := missing(name):
            raise ConfigError(f"trackers.{name}: {problem}; pip install 'sft[{name}]'")
        return make
    if not isinstance(make, type) or not issubclass(make, Tracker):
        raise ConfigError(f"'{name}': expected a subclass of sft.trackers.base.Tracker")
    return make


def label(name: str) -> str:
    """What its files are called, and it itself in messages: `my_tracker.MyTracker` of a file."""
    path, colon, kind = name.rpartition(":")
    if colon:
        name = f"{Path(path).stem}.{kind}"
    return re.sub(r"[^\w.-]", "_", name)


def missing(name: str) -> str | None:
    """Why the library of a tracker of ours cannot be used; None when it can."""
    library = TRACKERS[name]
    if not isinstance(library, Library) or not library.packages:
        return None
    if find_spec(name) is None:
        return f"{name} is not installed"
    for package in library.packages:
        with suppress(metadata.PackageNotFoundError, ValueError):
            version = metadata.version(package)
            if tuple(int(part) for part in version.split(".")[:2]) < library.oldest:
                oldest = ".".join(map(str, library.oldest))
                return f"{name} {version} is too old ({oldest} or newer is needed)"
            return None
    return None
