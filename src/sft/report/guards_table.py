"""What the guards say, as a table and as sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sft.errors import ConfigError, GuardAlarm
from sft.guards.base import GLYPHS, SEVERITY, Finding, Verdict, describe, verdicts
from sft.guards.indicators import learned_nothing
from sft.guards.judge import rank
from sft.runs.history import config_of, history_of, newest, own_guards, replay
from sft.runs.run_dir import RunDir
from sft.texts.numbers import figure
from sft.texts.safe import printable

STYLES: Mapping[str, str] = {
    "pass": "green",
    "watch": "yellow",
    "alarm": "bold red",
    "insufficient": "yellow",
    "not_measured": "dim",
}
WIDE = 78  # columns that all of a table of guards needs


def table(
    findings: Sequence[Finding], title: str = "guards", width: int = WIDE, *, praise: bool = True
) -> Table:
    """One line per guard: verdict, number, interval, threshold, minimum detectable effect (MDE).

    In fewer than `WIDE` columns the figures stand below the verdict, without the last. Without
    `praise` a pass is not green: a run that learned nothing passes easily.
    """
    styles = STYLES if praise else {**STYLES, "pass": "dim"}
    result = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("guard", "verdict"):
        result.add_column(title, overflow="fold", no_wrap=width >= WIDE)
    for title in ("measured (95 %)", "limit", "MDE") if width >= WIDE else ():
        result.add_column(title, justify="right", no_wrap=True)
    for guard, finding in verdicts(findings).items():
        unit = finding.unit.replace(" per ", "/")
        what = f"{finding.signal.replace('_', ' ')}, {unit}".rstrip(", ")
        low, high = finding.interval or (None, None)
        spread = "" if low is None else f"\n{_number(low)} to {_number(high)}"
        name = Text(guard.replace("_", " ")).append(f"\n{what}", style="dim")
        label = f"{GLYPHS[finding.verdict]} {finding.verdict.replace('_', ' ')}"
        verdict = Text(label, style=styles[finding.verdict])
        if width < WIDE:
            limit = "" if finding.threshold is None else f"\nlimit {_number(finding.threshold)}"
            value = "" if finding.statistic is None else f"\n{_number(finding.statistic)}{limit}"
            result.add_row(name, verdict.append(value, style="not bold default"))
            continue
        result.add_row(
            name,
            verdict,
            Text(_number(finding.statistic)).append(spread, style="dim"),
            _number(finding.threshold),
            _number(finding.mde),
        )
    return result


def _number(value: float | None) -> str:
    return "-" if value is None else figure(value)


def lines(findings: Sequence[Finding], least: Verdict = "watch") -> list[tuple[str, Verdict]]:
    """Text and verdict of each finding at least as severe as `least`, the most severe first.

    Alarms come with causes before what they explain.
    """
    order = {id(finding): place for place, finding in enumerate(rank(findings))}
    chosen = [finding for finding in findings if _as_bad(finding.verdict, least)]
    chosen.sort(key=lambda f: (-SEVERITY[f.verdict], order.get(id(f), len(order))))
    return [(describe(finding), finding.verdict) for finding in chosen]


def show_guards(
    run: str, *, every: bool, as_json: bool, fail_on: Verdict | None, out: TextIO
) -> None:
    """Replay the guards on a run folder, and write what they say to `out`.

    Raises:
        ConfigError: no such run, or it has no evaluation to judge.
        GuardAlarm: a guard says `fail_on` or worse after the last evaluation.
    """
    folder = RunDir.find(run)
    config = config_of(folder)
    records = history_of(folder, config)
    findings = replay(records, own_guards(config))
    if not findings:
        raise ConfigError(
            f"{folder.path}: no evaluation was recorded yet, so there is nothing to judge"
        )
    last = newest(findings)
    if as_json:
        for finding in findings:
            out.write(json.dumps(finding.record(), allow_nan=False) + "\n")
    else:
        console = Console(file=out, highlight=False)
        title = f"{printable(run)}: guards after step {last[0].step}"
        if headline := learned_nothing(records):
            console.print(Text(headline, style="bold yellow"), soft_wrap=True)
        console.print(table(last, title, console.width, praise=not headline))
        chosen = [f for f in last if every or f.primary or f.verdict == "alarm"]
        for text, verdict in lines(chosen, "pass" if every else "watch"):
            console.print(Text(printable(text), style=STYLES[verdict]), soft_wrap=True)
    worst = [f for f in verdicts(last).values() if fail_on and _as_bad(f.verdict, fail_on)]
    if worst:
        names = ", ".join(f"{f.guard} ({f.verdict})" for f in worst)
        raise GuardAlarm(f"{folder.path}: {names}")


def _as_bad(verdict: Verdict, limit: Verdict) -> bool:
    return SEVERITY[verdict] >= SEVERITY[limit]
