"""Supervised fine-tuning that is right by construction, watched, and fast.

Layers: a room imports from layers to its right only, never from its own or to its left. The
`command.py` of each room, which is one sub-command, belongs to `cli`.

    cli > check, train, integrations > training > remedies, augment > evaluate, dashboard
        > probes, report > model, terminal, curate, trackers > data, runs
        > disk, config, guards > texts > errors
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sft.config import Config, load_config
    from sft.train import train
    from sft.training.finish import RunSummary

__all__ = ["Config", "RunSummary", "load_config", "train"]

_HOME = {
    "Config": "sft.config",
    "RunSummary": "sft.training.finish",
    "load_config": "sft.config",
    "train": "sft.train",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that `import sft` loads no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'sft' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Keeps `sft.train` the function, although importing the module sets it to the module."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "train" and isinstance(value, ModuleType):
            value = value.train
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
