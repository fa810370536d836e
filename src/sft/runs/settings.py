"""The settings of a run: what each is, who chose it, and the commands that run it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from sft.config import Config
from sft.runs.files import Record, section
from sft.runs.run_dir import RunDir

_PLAIN = re.compile(r"[a-z_-]{0,16}|\$\w+")  # `alarm`, `$HOOK`; not a token


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, without secrets; `default` is None where there is no such setting any more.

    `source` is `auto` where sft decided the value, for `reason`; else `file`, `flag` or `python`
    where a user gave it, or `default`. A run of old did not record who gave a value: `given`.
    """

    key: str
    value: Any
    default: Any
    source: str
    reason: str


def settings_of(saved: Record) -> list[Setting]:
    """Every setting of a run, from what its `config.yaml` holds."""
    reasons, sources = section(saved, "reasons"), saved.get("sources")
    return [
        Setting(
            key=str(key),
            value=without_secrets(str(key), value),
            default=defaults().get(key),
            source=_source(key, value, reasons, sources),
            reason=str(reasons.get(key, "")),
        )
        for key, value in dotted(section(saved, "config")).items()
    ]


def _source(key: str, value: Any, reasons: Record, sources: Any) -> str:
    if key in reasons:  # also where a user wrote `auto` into a file, or gave it by a flag
        return "auto"
    if isinstance(sources, dict):
        return str(sources.get(key, "default"))
    return "default" if key in defaults() and defaults()[key] == value else "given"


@cache
def defaults() -> dict[str, Any]:
    """The default of every setting, by dotted key."""
    return dotted(Config().model_dump(mode="json"))


def dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted key; lists stay whole."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= dotted(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def data_paths(saved: Record) -> list[str]:
    """The paths of the training data, each in the config as a text or an object with `path`."""
    sources = section(saved, "config", "data").get("train")
    listed = sources if isinstance(sources, list) else [sources] if sources else []
    paths = [source.get("path") if isinstance(source, dict) else source for source in listed]
    return [str(path) for path in paths if path]


def rerun_command(run: RunDir) -> str:
    """What makes the same run again, in a folder of its own."""
    return f"{resume_command(run)} --run {shlex.quote(f'{run.path}-again')}"


def resume_command(run: RunDir) -> str:
    """What continues a run that has not finished."""
    return f"sft train {shlex.quote(str(run.config))}"


def without_secrets(key: str, value: Any) -> Any:
    """The value of the setting `key`; an address or a command of `alerts` without its secrets.

    Of an address the host stays (`https://host/...`), of a command its first word.
    """
    return _hidden(value) if key.startswith("alerts.") else value


def _hidden(value: Any) -> Any:
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    if isinstance(value, dict):
        return {name: _hidden(item) for name, item in value.items()}
    if not isinstance(value, str) or _PLAIN.fullmatch(value):
        return value
    if "://" in value:
        try:
            address = urlsplit(value)
            return f"{address.scheme}://{address.hostname}/..."
        except ValueError:
            return "..."
    words = value.split()
    return f"{words[0]} ..." if words and "/" not in words[0] else "..."
