"""Findings about rows as a whole: unusable, too long, cut, none held out."""

from __future__ import annotations

from collections.abc import Sequence

from sft.curate.finding import DataFinding, Severity, count
from sft.data.account import DataSet
from sft.data.tokenize import RowFate

# Above this share of rows that are too long, the limit is more likely wrong than the rows.
MANY = 0.05


def row_findings(data: DataSet, policy: str) -> list[DataFinding]:
    """Rows that cannot be used, are too long, or were cut; and too few to measure with.

    `policy` is `data.on_bad_row`: with `error`, training would not start.
    """
    findings = []
    if data.num_bad:
        bad = [fate for fate in data.fates if fate.status == "bad"]
        first = f"; the first: {bad[0].reason} [{bad[0].origin}]" if bad else ""
        severity: Severity = "error" if policy == "error" else "warning"
        message = f"{data.num_bad:,} of {data.num_rows:,} rows cannot be used{first}"
        fix = "correct them, or leave them out: --set data.on_bad_row=skip"
        places = _places(bad)
        findings.append(DataFinding("unusable", severity, data.num_bad, places, message, fix))
    if dropped := [f for f in data.fates if f.status == "dropped" and " tokens, " in f.reason]:
        share = len(dropped) / data.num_rows
        severity = "warning" if share > MANY else "info"
        message = f"{count(len(dropped))} ({share:.1%}) longer than data.max_seq_len, left out"
        fix = f"--set data.max_seq_len={_longest(dropped)} keeps all, if the model's limit allows"
        places = _places(dropped)
        findings.append(DataFinding("too_long", severity, len(dropped), places, message, fix))
    if cut := [fate for fate in data.fates if fate.status == "truncated"]:
        message = (
            f"{count(len(cut), 'answer')} cut at data.max_seq_len, which teach how an answer "
            "begins, and not how it ends"
        )
        fix = f"--set data.max_seq_len={_longest(cut)}, or --set data.overflow=drop"
        findings.append(DataFinding("truncated", "warning", len(cut), _places(cut), message, fix))
    if not data.val:
        message = "no row is held back, so overfitting could not be seen"
        fix = "--set data.val_fraction=0.1, or give --val FILE"
        findings.append(DataFinding("no_validation", "warning", 0, (), message, fix))
    return findings


def _places(fates: Sequence[RowFate]) -> tuple[str, ...]:
    return tuple(str(fate.origin) for fate in fates)


def _longest(fates: Sequence[RowFate]) -> int:
    return max(int(fate.reason.split()[0]) for fate in fates)
