"""Flags shared by commands, and how they and the config file become one `Config`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sft.config import Config


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that describe a run, shared by `train` and `check`."""
    options = [
        click.option("--model", help="Hub id, local folder, or `starter` (the default)."),
        click.option("--data", multiple=True, help="File, folder or data set id; repeatable."),
        click.option("--val", multiple=True, help="Validation data; default: split off."),
        click.option("--usage", multiple=True, help="Real prompts, answers optional; measured."),
        click.option("--run", "run_dir", type=click.Path(), help="Run folder."),
        click.option("--max-steps", type=int, help="Stop after so many optimizer steps."),
        click.option("--seed", type=int, help="Seed of split, order and dropout."),
        click.option("--method", help="full, lora or frozen."),
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Any other knob, such as optim.learning_rate=1e-4; repeatable.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def is_config_file(source: str | None) -> bool:
    """Whether `source` is a YAML file, and not data."""
    return source is not None and Path(source).suffix.lower() in (".yaml", ".yml")


def build_config(source: str | None, flags: dict[str, Any]) -> Config:
    """Merge the config file, the flags and `--set`; the later one wins.

    `source` is a YAML file, or a data file, folder or data set id.
    """
    from sft.config import load_config, parse_assignment, read_run_options

    values: dict[str, Any] = {}
    if source and is_config_file(source):
        values = read_run_options(source)
    elif source:
        flags = {**flags, "data": (source, *flags["data"])}
    named = {
        "model.name": flags["model"],
        "data.train": list(flags["data"]) or None,
        "data.val": list(flags["val"]) or None,
        "data.usage": list(flags["usage"]) or None,
        "run.dir": flags["run_dir"],
        "optim.max_steps": flags["max_steps"],
        "run.seed": flags["seed"],
        "method.kind": flags["method"],
    }
    overrides = {key: value for key, value in named.items() if value is not None}
    overrides |= dict(parse_assignment(text) for text in flags["assignments"])
    return load_config(values, overrides, origins=("file", "flag"))
