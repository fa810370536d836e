"""Rows for `sft curate`, and what it made of them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft.curate.stream.options import load_curate_config
from sft.curate.stream.run import curate, ledger_path, summary_path

WORDS = [
    f"{a}{b}{c}"
    for a in "bdfglmnprst"
    for b in ("a", "e", "i", "o", "ar")
    for c in ("n", "l", "ts")
]


def text(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def pair(prompt: str, answer: str) -> dict[str, Any]:
    return {"instruction": prompt, "output": answer}


def similar_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of which a third are like an earlier one, by a word or two, or by nothing."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        if rows and rng.random() < 0.33:
            row = dict(rng.choice(rows))
            parts = row["output"].split(" ")
            for _ in range(rng.choice((0, 1, 1, 2, 4))):
                parts[rng.randrange(len(parts))] = rng.choice(WORDS)
            rows.append({**row, "output": " ".join(parts)})
        else:
            rows.append(pair(text(rng, rng.randint(1, 12)), text(rng, rng.randint(1, 60))))
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@dataclass
class Made:
    """The new rows, the ledger and the summary."""

    rows: list[dict[str, Any]]
    ledger: list[dict[str, Any]]
    summary: dict[str, Any]
    files: tuple[bytes, bytes]

    def dropped(self, step: str | None = None) -> list[int]:
        """Lines that were dropped, by one step or by any."""
        return [
            int(entry["row"].rpartition(":")[2])
            for entry in self.ledger
            if entry["action"] == "dropped" and step in (None, entry["by"])
        ]


def run(
    data: Path | list[dict[str, Any]],
    folder: Path,
    /,
    progress: Any = lambda *_: None,
    chunk_rows: int = 7,
    name: str = "out",
    **options: Any,
) -> Made:
    source = data if isinstance(data, Path) else write(folder / "rows.jsonl", data)
    out = folder / f"{name}.jsonl"
    config = load_curate_config({"data": str(source), "out": str(out), **options})
    curate(config, progress, chunk_rows=chunk_rows)
    return made(out)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def made(out: Path) -> Made:
    summary = json.loads(summary_path(out).read_text(encoding="utf-8"))
    files = (out.read_bytes(), ledger_path(out).read_bytes())
    return Made(lines(out), lines(ledger_path(out)), summary, files)
