"""Copies of a run in which every text is hostile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.config import dump_yaml, parse_yaml
from sft.report.write import write_report
from sft.runs.run_dir import RunDir

# Words that the readers of a run decide by: with another one the text around it is not shown.
NAMES = {
    *("kind", "level", "status", "verdict", "guard", "signal", "probe", "part", "state"),
    *("stop_reason", "time", "command", "fingerprint"),
}
# Objects whose keys are names that somebody chose.
FREE_KEYS = {"files", "loss_by_source", "val_loss_by_source", "reasons", "versions", "languages"}
FILES = ("account", "preflight", "examples", "summary")
RECORDS = ("metrics", "samples", "findings", "events", "scores")


def poisoned(value: Any, text: str, name: str = "", everything: bool = False) -> Any:
    """A copy whose every text is between `text` and `text`; lists are cut after 12 items."""
    if isinstance(value, str):
        return value if name in NAMES and not everything else f"{text} {value} {text}"
    if isinstance(value, dict):
        free = name in FREE_KEYS
        return {
            (f"{text} {key}" if free else key): poisoned(item, text, key, everything)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [poisoned(item, text, name, everything) for item in value[:12]]
    return value


def file_name(text: str, number: int) -> str:
    """The hostile text as the name of a folder, as far as a file system takes it."""
    kept = text.replace("/", "\u2215").replace("\0", "").encode("utf-8", "ignore")[:200]
    return f"{number} {kept.decode('utf-8', 'ignore')}"


def poison_run(source: Path, folder: Path, text: str, number: int, everything: bool) -> Path:
    """A copy of the run `source` in `folder`, with hostile text in its name and all its files."""
    run = folder / file_name(text, number)
    shutil.copytree(source, run, ignore=shutil.ignore_patterns("checkpoints", "report.*"))
    for name in FILES:
        path = run / f"{name}.json"
        found = json.loads(path.read_text())
        path.write_text(json.dumps(poisoned(found, text, name, everything)))
    for name in RECORDS:
        poison_records(run / f"{name}.jsonl", text, everything)
    identity = parse_yaml((run / "config.yaml").read_text(), "config.yaml")
    poison_config(identity, text)
    (run / "config.yaml").write_text(dump_yaml(identity), encoding="utf-8", errors="replace")
    write_report(RunDir(run))
    return run


def poison_records(path: Path, text: str, everything: bool) -> None:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    if path.stem == "scores":  # rows are told apart by their id, which has to stay one
        changed = [record | {"id": f"{text} {record['id']}"} for record in records]
    else:
        changed = [poisoned(record, text, "", everything) for record in records]
    if path.stem == "findings":  # a guard of somebody's own
        own = {"guard": text, "signal": text, "verdict": "alarm"}
        changed += [record | own for record in changed[-2:]]
    if path.stem == "metrics":  # a metric of somebody's own
        changed = [record | {f"{text}_loss": 1.0} for record in changed]
    path.write_text("".join(json.dumps(record) + "\n" for record in changed))


def poison_config(identity: dict[str, Any], text: str) -> None:
    """Texts of the settings and of what the run says of itself; numbers stay."""
    shown = {key: poisoned(item, text, key) for key, item in identity.items()}
    reasons = dict.fromkeys(identity["reasons"], f"{text} because {text}")
    reasons |= {key: text for key in list(identity["config"])}
    identity.update(shown, reasons=reasons)


def groups(payloads: Sequence[str], count: int) -> list[str]:
    """The payloads joined into `count` texts."""
    size = -(-len(payloads) // count)
    return [" ".join(payloads[i : i + size]) for i in range(0, len(payloads), size)]
