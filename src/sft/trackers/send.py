"""What `sft track` does: send a run to a tracker after the fact."""

from __future__ import annotations

from typing import Any

from sft.config import Config, load_config, parse_yaml
from sft.errors import ConfigError
from sft.runs.run_dir import RunDir
from sft.trackers.follow import send

_SECTIONS = ("trackers", "alerts")


def track(path: str, name: str, project: str | None = None) -> str:
    """Send to the tracker `name` what it has not got of a run. Returns what to tell the user.

    Raises:
        SFTError: there is no such run or tracker, or the service failed.
    """
    run = RunDir.find(path)
    count = send(run, name, _config_of(run, project))
    if name == "alerts":
        return f"alerts sent: {count:,}"
    return f"records sent to {name}: {count:,}"


def _config_of(run: RunDir, project: str | None) -> Config:
    """The trackers and alerts of a run; the defaults for a run that knows neither."""
    values: dict[str, Any] = {}
    try:
        saved = parse_yaml(run.config.read_text(encoding="utf-8"), str(run.config))
    except (OSError, UnicodeDecodeError, ConfigError):
        saved = None
    if isinstance(saved, dict) and isinstance(saved.get("config"), dict):
        values = {part: saved["config"][part] for part in _SECTIONS if part in saved["config"]}
    return load_config(values, {"trackers.project": project} if project else {})
