"""What the guards say about a run folder: read its records, judge, and show. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sft.config import Config, load_config, read_config, with_values
from sft.config.guard_section import GUARD_GROUP
from sft.config.plugins import load_named
from sft.errors import ConfigError
from sft.guards.base import Finding, GuardSettings
from sft.guards.history import History, history
from sft.guards.judge import Guard, judge
from sft.runs.files import json_object
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records


def settings_of(config: Config) -> GuardSettings:
    """What guards may know of a resolved config."""
    guards, optim = config.guards, config.optim
    every = config.eval.every if config.eval.every != "auto" else 1
    steps = optim.max_steps or 1
    return GuardSettings(
        alpha=guards.alpha,
        margin=guards.margin,
        forgetting_budget=guards.forgetting_budget,
        num_evals=max(1, -(-steps // int(every))),
        num_steps=steps,
        warmup_steps=0 if optim.warmup_steps == "auto" else int(optim.warmup_steps),
        learning_rate=0.0 if optim.learning_rate == "auto" else float(optim.learning_rate),
    )


def history_of(run: RunDir, config: Config | None = None, num_steps: int | None = None) -> History:
    """Everything recorded in a run folder; `config` is its resolved one, read when not given."""
    saved = read_config(run.config) if config is None or num_steps is None else {}
    config = config or _config_in(run, saved)
    steps = num_steps or int(saved.get("num_steps") or config.optim.max_steps or 1)
    planned = with_values(config, {"optim.max_steps": steps})
    return history(
        settings_of(planned),
        read_records(run.metrics),
        read_records(run.scores),
        read_records(run.samples),
        json_object(run.preflight),
    )


def config_of(run: RunDir) -> Config:
    """The resolved config of a run.

    Raises:
        ConfigError: it is not there, or was not written by a run.
    """
    return _config_in(run, read_config(run.config))


def _config_in(run: RunDir, saved: Mapping[str, Any]) -> Config:
    if not isinstance(saved.get("config"), dict):
        raise ConfigError(f"{run.config}: has no `config:`; it was not written by a run")
    return load_config(saved["config"])


def own_guards(config: Config) -> dict[str, Guard]:
    """The user's own guards (`guards.custom`) by name; runs the files that are named there.

    Raises:
        ConfigError: one cannot be loaded, or cannot be called.
    """
    guards: dict[str, Guard] = {}
    for custom in config.guards.custom:
        loaded: Any = load_named(custom.guard, GUARD_GROUP, {})
        try:
            guards[custom.name] = loaded() if isinstance(loaded, type) else loaded
        except TypeError as error:
            raise ConfigError(
                f"guards.custom: {custom.guard}: {error}; it is made without arguments"
            ) from None
        if not callable(guards[custom.name]):
            raise ConfigError(
                f"guards.custom: {custom.guard}: expected a function of a History, or a class "
                f"with __call__, found {type(guards[custom.name]).__name__}"
            )
    return guards


def replay(records: History, own: Mapping[str, Guard] | None = None) -> list[Finding]:
    """The findings after every evaluation, in order, from nothing but the records."""
    own = own or {}
    return [finding for step in records.eval_steps for finding in judge(records.at(step), own)]


def newest(findings: Sequence[Finding]) -> list[Finding]:
    """Those of the last evaluation."""
    last = max((finding.step for finding in findings), default=0)
    return [finding for finding in findings if finding.step == last]


def read_findings(run: RunDir) -> list[Finding]:
    """What was found while the run was training; empty when its guards were off."""
    return [Finding.from_record(record) for record in read_records(run.findings)]
