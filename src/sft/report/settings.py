"""What the run was told to do, where each value came from, and how to do it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from sft.config import Config, SourceConfig
from sft.report.headline import resume_command
from sft.report.words import setting_text
from sft.runs.files import plain
from sft.runs.index import dotted
from sft.runs.masked import masked
from sft.runs.reading import Record, RunRecords, items, part

# A password in an address, and what looks like a key of a service: neither is for a report.
_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]{1,20}://)[^\s/@]*@", re.IGNORECASE)
_KEYS = re.compile(r"\b(?:hf|sk|ghp|gho|glpat|xox[a-z])[-_][A-Za-z0-9_-]{10,}")
HIDDEN = "(hidden)"
_SOURCE = SourceConfig.model_validate("-").model_dump(mode="json")
MOST_COMMANDS = 20


def setting_rows(records: RunRecords) -> list[dict[str, Any]]:
    """Every setting of the config: value, default, who chose it (`source`), and why.

    `source` is `default`, `auto`, `file`, `flag` or `python`; `chosen` where that was not recorded
    and the value is not the default.
    """
    values, defaults = dotted(records.config), dotted(Config().model_dump(mode="json"))
    reasons, sources = part(records.identity, "reasons"), part(records.identity, "sources")
    return [
        {
            "key": str(key),
            "value": setting_text(masked(str(key), _brief(value))),
            "default": setting_text(defaults[key]) if key in defaults else "(no such setting)",
            "source": _source(str(key), value, defaults, reasons, sources),
            "reason": str(reasons.get(key, "")),
        }
        for key, value in values.items()
    ]


def _brief(value: Any) -> Any:
    """Data sources without what they leave at its default."""
    if not isinstance(value, list):
        return value
    return [
        {k: v for k, v in item.items() if k == "path" or _SOURCE.get(k, item) != v}
        if isinstance(item, dict)
        else item
        for item in value
    ]


def _source(key: str, value: Any, defaults: Record, reasons: Record, sources: Record) -> str:
    if key in sources:
        return str(sources[key])
    if key in reasons:
        return "auto"
    return "default" if key in defaults and defaults[key] == value else "chosen"


def without_secrets(value: Any) -> Any:
    """`value`, and all text in it, without passwords in addresses and known forms of keys."""
    if isinstance(value, str):
        return _KEYS.sub(HIDDEN, _ADDRESS.sub(r"\1", value))
    if isinstance(value, dict):
        return {without_secrets(key): without_secrets(item) for key, item in value.items()}
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


def reproduction(records: RunRecords) -> dict[str, Any]:
    """Commands that make this run again, and what it was made of."""
    identity = records.identity
    fingerprint = part(identity, "fingerprint")
    config, again = str(records.run.config), f"{records.run.path}-again"
    files = part(fingerprint, "files") or part(records.account, "files")
    started = [e for e in records.events if e.get("kind") == "started"]
    return {
        "again": f"sft train {shlex.quote(config)} --run {shlex.quote(again)}",
        "resume": resume_command(records),
        "started": [str(e["command"]) for e in started if e.get("command")][:MOST_COMMANDS],
        "folder": str(started[0].get("folder") or "") if started else "",
        "host": str(started[0].get("host") or "") if started else "",
        "files": {str(path): str(digest) for path, digest in files.items()},
        "fingerprints": {
            str(name): str(digest)
            for name, digest in fingerprint.items()
            if isinstance(digest, str) and digest
        },
        "template": {
            str(name): setting_text(value) for name, value in part(identity, "template").items()
        },
        "versions": {
            str(name): setting_text(value) for name, value in part(identity, "versions").items()
        },
        "verified": str(records.summary.get("verified") or ""),
        "source": {"file": "config.yaml", "where": "fingerprint, template, versions"},
    }


def data_paths(records: RunRecords) -> list[str]:
    """The training data as the config names it."""
    found = items(part(records.config, "data"), "train")
    named = [plain(s.get("path") if isinstance(s, Mapping) else s) for s in found]
    return [str(path) for path in named if path]
