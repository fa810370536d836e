"""What the run was told to do, where each value came from, and how to do it again."""

from __future__ import annotations

import re
from typing import Any

from sft.config import SourceConfig
from sft.runs.files import section
from sft.runs.run_records import RunRecords
from sft.runs.settings import defaults, rerun_command, resume_command, settings_of
from sft.texts.numbers import setting_text

# A password in an address, and what looks like a key of a service: neither is for a report.
_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]{1,20}://)[^\s/@]*@", re.IGNORECASE)
_KEYS = re.compile(r"\b(?:hf|sk|ghp|gho|glpat|xox[a-z])[-_][A-Za-z0-9_-]{10,}")
HIDDEN = "(hidden)"
_SOURCE = SourceConfig.model_validate("-").model_dump(mode="json")
MOST_COMMANDS = 20


def setting_rows(records: RunRecords) -> list[dict[str, Any]]:
    """Every setting of the config: value, default, who chose it (`source`), and why."""
    return [
        {
            "key": setting.key,
            "value": setting_text(_brief(setting.value)),
            "default": setting_text(setting.default)
            if setting.key in defaults()
            else "(no such setting)",
            "source": setting.source,
            "reason": setting.reason,
        }
        for setting in settings_of(records.identity)
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


def without_keys(value: Any) -> Any:
    """`value`, and all text in it, without passwords in addresses and known forms of keys."""
    if isinstance(value, str):
        return _KEYS.sub(HIDDEN, _ADDRESS.sub(r"\1", value))
    if isinstance(value, dict):
        return {without_keys(key): without_keys(item) for key, item in value.items()}
    return [without_keys(item) for item in value] if isinstance(value, list) else value


def reproduction(records: RunRecords) -> dict[str, Any]:
    """Commands that make this run again, and what it was made of."""
    identity = records.identity
    fingerprint = section(identity, "fingerprint")
    files = section(fingerprint, "files") or section(records.account, "files")
    started = [e for e in records.events if e.get("kind") == "started"]
    return {
        "again": rerun_command(records.run),
        "resume": resume_command(records.run),
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
            str(name): setting_text(value) for name, value in section(identity, "template").items()
        },
        "versions": {
            str(name): setting_text(value) for name, value in section(identity, "versions").items()
        },
        "verified": str(records.summary.get("verified") or ""),
        "source": {"file": "config.yaml", "where": "fingerprint, template, versions"},
    }
