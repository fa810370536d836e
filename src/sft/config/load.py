"""From a file, flags and assignments to a `Config`, or one error that lists every problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sft.config.data_sections import SourceConfig
from sft.config.schema import Config
from sft.config.yaml_text import parse_yaml
from sft.errors import ConfigError, did_you_mean

# Sections and keys (`section.key`) of earlier versions -> their names now.
RENAMED = {"looks": "eval"}


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a YAML (or JSON) configuration file into a plain dictionary."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise ConfigError(f"{path}: cannot be read: it is not a regular file")
        if path.stat().st_size > 1_000_000:
            raise ConfigError(f"{path}: larger than 1 MB; a configuration is a page of text")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # not UTF-8, or a NUL in the name
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections such as `model:`, found {values!r:.60}")
    return values


def read_run_options(path: str | Path) -> dict[str, Any]:
    """The sections in a configuration file; of `config.yaml` in a run folder, those it ran with."""
    values = read_config(path)
    inner = values.get("config")
    return inner if isinstance(inner, dict) and "fingerprint" in values else values


def load_config(
    values: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    origins: tuple[str, str] = ("python", "python"),
) -> Config:
    """Build a `Config`; raises one `ConfigError` that lists every problem found.

    `origins` says where `values` and `overrides` come from, for `Config.sources`.
    """
    sources = {
        f"{section}.{key}": origins[0]
        for section, part in values.items()
        if isinstance(part, Mapping)
        for key in part
    }
    return _build(values, overrides, sources | dict.fromkeys(overrides or (), origins[1]))


def _build(
    values: Mapping[str, Any], overrides: Mapping[str, Any] | None, sources: Mapping[str, str]
) -> Config:
    tree = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for key, value in (overrides or {}).items():
        section, _, name = key.partition(".")
        if not name:
            raise ConfigError(f"{key}: expected section.key, such as optim.learning_rate")
        part = tree.setdefault(section, {})
        if not isinstance(part, dict):
            raise ConfigError(f"{section}: expected keys, found {part!r:.60}")
        part[name] = value
    try:
        return Config.from_sources(tree, sources)
    except ValidationError as error:
        # A value that may be of two types has a problem with each: one line for both.
        problems: dict[str, list[str]] = {}
        for problem in error.errors():
            where, message = _explain(dict(problem))
            problems.setdefault(where, []).append(message)
        raise ConfigError("\n".join(w + "; or ".join(m) for w, m in problems.items())) from None


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy with dotted keys replaced, such as `{"optim.learning_rate": 1e-4}`."""
    return _build(config.model_dump(mode="json"), values, config.sources)


def _explain(problem: dict[str, Any]) -> tuple[str, str]:
    """Where it is (`optim.epochs: `), and what is wrong."""
    parts = [str(part) for part in problem["loc"]]
    if len(parts) > 2 and isinstance(problem["loc"][2], str):
        del parts[2]  # pydantic's name of the type that was tried
    where = ".".join(parts)
    if problem["type"] == "extra_forbidden":
        if where in RENAMED:
            return f"{where}: ", _renamed(where, problem.get("input"))
        known = _known_keys(parts[:-1])
        hint = did_you_mean(parts[-1], known)
        return f"{where}: ", f"unknown key.{hint} Known: {', '.join(known)}."
    message, value = problem["msg"].removeprefix("Value error, "), problem.get("input")
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
        message += f" (found {value!r:.60})" if where else ""
    return (f"{where}: " if where else ""), message


def _renamed(old: str, value: Any) -> str:
    """`looks is called eval now: eval.every`, with the keys that were given in it."""
    new = RENAMED[old]
    keys = [f"{new}.{key}" for key in value] if isinstance(value, Mapping) else []
    return f"{old} is called {new} now" + (f": {', '.join(keys)}" if keys else "")


def _known_keys(parts: Sequence[str]) -> list[str]:
    """The keys allowed where `parts` leads, such as `["data", "train", "0"]`."""
    if len(parts) > 1:
        return list(SourceConfig.model_fields)
    section = Config.model_fields.get(parts[0]) if parts else None
    if section is None or not isinstance(section.annotation, type):
        return list(Config.model_fields)
    return list(section.annotation.model_fields)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split `section.key=value`; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected section.key=value")
    return key.strip(), parse_yaml(value, f"--set {key}") if value.strip() else None
