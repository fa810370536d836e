"""`sft report`: the report of a run, written from its folder alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sft.disk import write_text
from sft.errors import ConfigError
from sft.report.card import card
from sft.report.html import render
from sft.report.report_json import report_json
from sft.runs.run_dir import RunDir
from sft.runs.run_records import RunRecords, read_run


def write_report(run: RunDir, out: Path | None = None) -> Path:
    """Write the report of `run`, whatever state it is in, and return where the page lies.

    Without `out`: `report.html` and `report.json` in the run folder, and for a finished run the
    card of its model. With `out`: that file and the JSON beside it; the run folder is not touched.

    Raises:
        ConfigError: no such run, or `out` is a folder or in none.
        DiskError: it cannot be written.
    """
    run = RunDir.find(run.path)
    page, figures = (run.report, run.report_json) if out is None else _beside(out)
    records = read_run(run)
    facts = report_json(records)
    write_text(figures, _json(facts))
    write_text(page, render(facts))
    if out is None and _has_card(records, facts):
        write_text(run.card, card(facts))
    return page


def _beside(out: Path) -> tuple[Path, Path]:
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; give the name of a file, such as report.html")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    figures = out.with_suffix(".json")
    if figures == out:
        raise ConfigError(f"--out {out}: is where its figures go; give a name such as report.html")
    return out, figures


def _has_card(records: RunRecords, facts: dict[str, Any]) -> bool:
    """Is there a model that this run chose, and something true to say of it?"""
    return records.chosen is not None and records.run.model.is_dir() and bool(facts["answer"])


def _json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
