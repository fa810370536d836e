"""Run folders whose every text is hostile."""

from __future__ import annotations

import re
import shutil
from itertools import count
from pathlib import Path

import yaml

from check.payloads import PAYLOADS
from report.run_folders import edit, finished_run
from sft.runs.run_dir import RunDir
from sft.texts.safe import visible

# What the report reads as a name of its own: other values are left out, or shown as they are.
OWN = {"probe", "kind", "verdict", "level", "status", "time", "stop_reason", "unit", "part"}
# Objects whose keys come from outside.
FREE = {"files", "measures", "versions", "template", "fingerprint", "reasons", "val_loss_by_source"}
# What a page must not change by: the letters of a payload. Backticks make code, spaces break.
_LETTERS = re.compile(r"[^\s:#`]")


class Poison:
    """Puts a payload at both ends of each text, the next one each time; or letters like it."""

    def __init__(self, offset: int, *, harmless: bool = False) -> None:
        self._turn, self._harmless = count(offset), harmless

    def payload(self) -> str:
        """The next one."""
        payload = PAYLOADS[next(self._turn) % len(PAYLOADS)]
        return _LETTERS.sub("x", visible(payload)) if self._harmless else payload

    def __call__(self, value, name=""):
        """A copy of `value` in which all text is hostile."""
        if isinstance(value, str):
            return value if name in OWN else f"{self.payload()} {value} {self.payload()}"
        if isinstance(value, dict):
            return {
                (self(key) if name in FREE else key): self(item, key) for key, item in value.items()
            }
        if isinstance(value, list) and len(value) == 3 and name == "pieces":
            return [self(value[0]), *value[1:]]
        return [self(item, name) for item in value] if isinstance(value, list) else value

    def text(self) -> str:
        """A payload that may stand in YAML, and in the name of a file."""
        return re.sub("[\x00-\x1f\ud800-\udfff/\u2028\u2029]", "_", self.payload())[:60]


def poisoned_run(folder: Path, offset: int = 0, *, harmless: bool = False) -> RunDir:
    """A finished run with payloads in its rows, answers, config, findings, events and names."""
    poison = Poison(offset, harmless=harmless)
    made = finished_run(folder / "clean", evaluated=True)
    run = RunDir(shutil.move(made.path, folder / f"run {poison.text()}"))
    for path in sorted(run.path.glob("*.json*")):
        if path != run.metrics and path != run.scores:
            edit(path, poison)
    run.evaluation("held_out").rename(run.path / f"eval-{poison.text()}.json")
    saved = yaml.safe_load(run.config.read_text())
    saved["config"]["model"]["name"] = f"{poison.text()} model"
    saved["config"]["data"]["train"][0]["path"] = f"{poison.text()} path"
    for part in ("reasons", "sources", "template", "versions"):
        saved[part] = {key: f"{poison.text()} {value}" for key, value in saved[part].items()}
        saved[part] |= {poison.text(): "free"} if part in FREE else {}
    saved["fingerprint"]["files"] = {f"{poison.text()} file": poison.text()}
    run.config.write_text(yaml.safe_dump(saved))
    return run
