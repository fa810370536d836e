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
        findings.append(
            _finding(
                "unusable",
                "error" if policy == "error" else "warning",
                bad,
                f"{data.num_bad:,} of {data.num_rows:,} rows cannot be used{first}",
                "correct them, or leave them out: --set data.on_bad_row=skip",
                data.num_bad,
            )
        )
    if dropped := [f for f in data.fates if f.status == "dropped" and " tokens, " in f.reason]:
        share = len(dropped) / data.num_rows
        findings.append(
            _finding(
                "too_long",
                "warning" if share > MANY else "info",
                dropped,
                f"{count(len(dropped))} ({share:.1%}) longer than data.max_seq_len, left out",
                f"--set data.max_seq_len={_longest(dropped)} keeps all, if the model's limit "
                "allows",
            )
        )
    if cut := [fate for fate in data.fates if fate.status == "truncated"]:
        findings.append(
            _finding(
                "truncated",
                "warning",
                cut,
                f"{count(len(cut), 'answer')} cut at data.max_seq_len, which teach how an answer "
                "begins, and not how it ends",
                f"--set data.max_seq_len={_longest(cut)}, or --set data.overflow=drop",
            )
        )
    if not data.val:
        findings.append(
            _finding(
                "no_validation",
                "warning",
                [],
                "no row is held back, so overfitting could not be seen",
                "--set data.val_fraction=0.1, or give --val FILE",
            )
        )
    return findings


def _finding(
    check: str,
    severity: Severity,
    fates: Sequence[RowFate],
    message: str,
    fix: str,
    number: int | None = None,
) -> DataFinding:
    places = tuple(str(fate.origin) for fate in fates)
    return DataFinding(
        check, severity, len(places) if number is None else number, places, message, fix
    )


def _longest(fates: Sequence[RowFate]) -> int:
    return max(int(fate.reason.split()[0]) for fate in fates)
