"""What `sft check` prints: findings, account, lengths, facts, and rows in colour."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sft.check.report import CheckReport, RowView
from sft.curate.finding import DataFinding, verdict
from sft.data.lengths import Lengths
from sft.runs.account import AccountLine
from sft.terminal.console import BARS
from sft.texts.safe import printable

NUM_REASONS = 8
NUM_PLACES = 3
NUM_LISTED = 10  # topics, suspicious rows, groups of uncovered prompts
TRAINED, PARTLY, MASKED = "bold green", "yellow", "bright_black"
KINDS = {"trained": TRAINED, "partly": PARTLY, "masked": MASKED}
COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def print_report(report: CheckReport, num_views: int, out: RichConsole) -> None:
    """Print everything; `num_views` rows last, findings before them, where the eye rests."""
    parts: list[RenderableType | None] = [
        _account(report.account, report.num_rows),
        _lengths(report.lengths) if report.lengths else None,
        _pairs("Plan", {**report.facts, **report.estimate}),
        _diversity(report),
        _usage(report.usage) if report.usage else None,
        _suspicious(report.suspicious) if report.suspicious is not None else None,
        _findings(report.findings),
    ]
    for part in filter(None, parts):
        out.print(part)
        out.print()
    for note in report.notes:
        out.print(Text(f"note: {printable(note)}", style="bright_black"))
    if num_views and report.views:
        out.print(Text.assemble("\nTokens: ", ("trained", TRAINED), ", ", ("shown only", MASKED)))
    for view in report.views[:num_views]:
        out.print(token_text(view), soft_wrap=True)


def _findings(findings: Sequence[DataFinding]) -> RenderableType:
    title = f"Findings: {verdict(findings) or 'nothing found that is wrong'}"
    if not findings:
        return Text(title, style="bold")
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("check", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("what, where, and what to do", overflow="fold")
    for finding in findings:
        what = Text(printable(finding.message))
        if finding.rows:
            what.append(f"\n{printable(shortened(finding.rows))}", style="bright_black")
        if finding.fix:
            what.append("\nfix: ", style="bold").append(printable(finding.fix))
        number = f"{finding.count:,}" if finding.count else ""
        table.add_row(Text(finding.check, style=COLOURS[finding.severity]), number, what)
    return table


def shortened(places: Sequence[str]) -> str:
    """The first places; a file that was just named is not named again: `a.jsonl:3, 9, ...`."""
    parts, last = [], ""
    for place in places[:NUM_PLACES]:
        file, _, line = place.rpartition(":")
        parts.append(line if file == last else place)
        last = file
    return ", ".join(parts) + ", ..." * (len(places) > NUM_PLACES)


def _account(lines: Sequence[AccountLine], num_rows: int) -> Table:
    table = Table(title=f"{num_rows:,} rows read", title_justify="left")
    table.add_column("rows", justify="right", overflow="fold")
    for column in ("became", "why, and where"):
        table.add_column(column, overflow="fold")
    for status, group in itertools.groupby(lines, lambda line: line.status):
        same = list(group)
        reasons = [_reason(line) for line in same if line.reason]
        # Text, because a str is markup, and a file may be named `data[/x].jsonl`.
        why = Text(printable("\n".join(reasons[:NUM_REASONS])))
        table.add_row(f"{sum(line.count for line in same):,}", status, why)
    return table


def _reason(line: AccountLine) -> str:
    reason = f"{line.count:,} x {line.reason}"
    if not line.places:
        return reason
    return f"{reason} ({shortened(line.places)}{', ...' * (line.count > len(line.places))})"


def _lengths(lengths: Lengths) -> Table:
    table = Table(title="Tokens per example", title_justify="left")
    names = ("", "min", "median", "95 %", "max", "sum", "distribution")
    for name in names:
        table.add_column(name, justify="left" if name in ("", "distribution") else "right")
    rows = (
        ("all", lengths.all_counts, lengths.all_quantiles, lengths.num_tokens),
        ("trained", lengths.trained_counts, lengths.trained_quantiles, lengths.num_trained),
    )
    for name, counts, quantiles, total in rows:
        most = max(*counts, 1)
        bars = "".join(BARS[round(7 * c / most)] if c else " " for c in counts)
        table.add_row(name, *(f"{q:,}" for q in quantiles), f"{total:,}", f"|{bars}|")
    table.caption = (
        f"{lengths.num_trained / lengths.num_tokens:.0%} of the tokens are trained; "
        f"data.max_seq_len is {lengths.max_seq_len:,}; "
        f"the distribution runs from 0 to {lengths.edges[-1]:,.0f} tokens"
    )
    return table


def _pairs(title: str, rows: Mapping[str, str]) -> Table:
    table = Table(
        title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    for name, value in rows.items():
        table.add_row(Text(printable(name), style="bold"), Text(printable(value)))
    return table


def _diversity(report: CheckReport) -> RenderableType | None:
    if not report.diversity:
        return None
    topics = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for topic in report.topics[:NUM_LISTED]:
        share = f"{topic['share']:.0%}"
        topics.add_row(f"{topic['rows']:,}", share, Text(printable(str(topic["name"]))))
    return Group(_pairs("Diversity", report.diversity), Text("topics", style="bold"), topics)


def _usage(usage: Mapping[str, Any]) -> Table:
    missing = len(usage["uncovered"])
    rows = {"covered": f"{usage['n'] - missing:,} of {usage['n']:,} prompts"}
    texts = {row["id"]: row["text"] for row in usage["uncovered"]}
    for group in usage["groups"][:NUM_LISTED]:
        first = group["ids"][0]
        rows[f"not: {group['label']}"] = f"{len(group['ids']):,}, such as {texts[first][:60]!r}"
    rows |= {fact["name"]: fact["message"] for fact in usage["facts"] if fact["differs"]}
    return _pairs("Usage", rows)


def _suspicious(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Suspicious rows", title_justify="left")
    for name in ("row", "loss", "without prompt", "why"):
        table.add_column(
            name, justify="left" if name in ("row", "why") else "right", overflow="fold"
        )
    for row in rows[:NUM_LISTED]:
        table.add_row(
            Text(printable(row["row"])), f"{row['loss']:.2f}", f"{row['alone']:.2f}", row["reason"]
        )
    number = f"{len(rows):,} rows stand out" if rows else "no scored row stands out"
    table.caption = f"{number}; losses of the base model in nats per token"
    return table


def token_text(view: RowView) -> Text:
    """A row: trained tokens green, masked ones grey, special tokens underlined."""
    text = Text().append(
        f"\n{printable(view.id)}  {view.num_tokens} tokens, {view.num_trained} trained\n",
        style="bold",  # of the heading only
    )
    for piece in view.pieces:
        text.append(printable(piece.text), KINDS[piece.kind] + " underline" * piece.special)
    if view.serving:
        text.append(f"\nserving differs: {printable(view.serving)}", style="bold red")
    return text
