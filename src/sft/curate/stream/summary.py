"""What a run of `sft curate` came to: counts that add up, and what it was made with."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.curate.stream.feature_pass import PASS as FEATURES
from sft.curate.stream.row_steps import RowRules
from sft.curate.stream.store import Store
from sft.curate.stream.write import LEDGER, OUT, Plan, fates
from sft.data.rows.files import sha256_of
from sft.disk import disk_errors
from sft.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Summary:
    """`FILE.summary.json`: plain JSON types.

    `steps` has, for each step in its order, how many rows it dropped and changed and how many are
    left after it; `rows_read` less all that were dropped is `rows_written`.
    """

    record: dict[str, Any]

    @classmethod
    def read(cls, out: Path, fingerprint: Mapping[str, Any], unfinished: bool) -> Summary | None:
        """The summary of `out` if it was made with the same; None when there is no such file.

        Raises:
            ConfigError: the file is there, and of something else.
        """
        if not out.exists() or unfinished:
            return None
        path = summary_path(out)
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            if all(record.get(name) == value for name, value in fingerprint.items()):
                return cls({**record, "again": True})
        raise ConfigError(
            f"{out}: exists, and was not made from these rows with these options. Delete it, or "
            "give another --out"
        )


def ledger_path(out: Path) -> Path:
    """`FILE.ledger.jsonl` for `FILE.jsonl`."""
    return out.with_name(f"{out.stem}.ledger.jsonl")


def summary_path(out: Path) -> Path:
    """`FILE.summary.json` for `FILE.jsonl`."""
    return out.with_name(f"{out.stem}.summary.json")


def summarise(
    store: Store,
    plan: Plan,
    rules: RowRules,
    edited: int,
    notes: Mapping[str, Any],
    out: Path | None,
) -> Summary:
    """The summary of what is in the work folder; `out` is None when no file is written.

    `notes` are further entries of it.
    """
    left = read = (store.finished(FEATURES) or {})["rows"]
    counts = Counter(step for _, step, _ in fates(store))
    dropped = [(name, counts[name]) for name in ("unreadable", *rules.names())]
    dropped += [(name, len(result.rows)) for name, result in plan.dropped.items()]
    steps = []
    for name, number in dropped:
        left -= number
        steps.append({"step": name, "dropped": number, "changed": 0, "left": left})
    if plan.edited:
        steps.append({"step": "openers", "dropped": 0, "changed": edited, "left": left})
    record: dict[str, Any] = {
        "rows_read": read,
        "rows_written": left if out else 0,
        "rows_left": left,
        "rows_changed": edited,
        "steps": steps,
        **store.state["fingerprint"],
        **notes,
        "peak_memory_bytes": _peak(resource.RUSAGE_SELF),
        "peak_memory_bytes_of_a_worker": _peak(resource.RUSAGE_CHILDREN),
    }
    if out:
        record["output"] = {"path": str(out), "sha256": sha256_of(store.path(OUT))}
    return Summary(record)


def _peak(who: int) -> int:
    """The largest resident memory so far; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def publish(store: Store, summary: Summary, out: Path) -> None:
    """Put summary, ledger and, last, the new file into their places, and delete the work folder."""
    with disk_errors(out.parent):
        new = store.path("summary")
        new.write_text(json.dumps(summary.record, indent=1, ensure_ascii=False) + "\n", "utf-8")
        for name, target in (
            ("summary", summary_path(out)),
            (LEDGER, ledger_path(out)),
            (OUT, out),
        ):
            if store.path(name).exists():
                with store.path(name).open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(store.path(name), target)
    store.remove()


def render(summary: Summary) -> Table:
    """The table that is printed at the end."""
    from rich.table import Table

    record = summary.record
    table = Table(title=None, box=None, pad_edge=False)
    table.add_column("step")
    for name in ("dropped", "changed", "left"):
        table.add_column(name, justify="right")
    table.add_row("read", "", "", f"{record['rows_read']:,}")
    for step in record["steps"]:
        if step["step"] != "unreadable" or step["dropped"]:
            numbers = [f"{step[name]:,}" for name in ("dropped", "changed", "left")]
            table.add_row(step["step"].replace("_", " "), *numbers)
    return table


def sentences(summary: Summary) -> list[str]:
    """What is printed below the table."""
    record = summary.record
    lines = []
    if "effective_rows" in record:
        lines.append(f"weights: as much as {record['effective_rows']:,.0f} rows of equal weight")
    if record.get("again"):
        lines.append("made before from the same rows with the same options; nothing was done")
    seconds, memory = record["seconds"], record["peak_memory_bytes"] / 1e6
    rate = record["rows_read"] / max(seconds, 1e-9)
    lines.append(f"{seconds:,.1f} s, {rate:,.0f} rows/s, {memory:,.0f} MB at most")
    if "output" in record:
        out = Path(record["output"]["path"])
        lines.append(f"{out}: {record['rows_written']:,} rows; {ledger_path(out)} says why")
    else:
        lines.append("nothing was written (--dry-run)")
    return lines
