"""What the guards say about a run folder: read its records, judge, and show. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sft.config import Config, load_config, read_config
from sft.errors import ConfigError, DataError, GuardAlarm
from sft.guards.base import GLYPHS, SEVERITY, STYLES, Finding, GuardSettings, Verdict
from sft.guards.history import History, history
from sft.guards.judge import judge, rank, verdicts
from sft.records.store import read_records
from sft.run_dir import RunDir
from sft.trackers.console import printable

WIDE = 78  # columns that all of a table of guards needs


def settings_of(config: Config) -> GuardSettings:
    """What guards may know of a resolved config."""
    guards, optim = config.guards, config.optim
    every = config.looks.every if config.looks.every != "auto" else 1
    steps = optim.max_steps or 1
    return GuardSettings(
        alpha=guards.alpha,
        margin=guards.margin,
        forgetting_budget=guards.forgetting_budget,
        num_looks=max(1, -(-steps // int(every))),
        num_steps=steps,
        warmup_steps=0 if optim.warmup_steps == "auto" else int(optim.warmup_steps),
        learning_rate=0.0 if optim.learning_rate == "auto" else float(optim.learning_rate),
    )


def history_of(run: RunDir, config: Config | None = None, num_steps: int | None = None) -> History:
    """Everything recorded in a run folder; `config` is its resolved one, read when not given."""
    saved = read_config(run.config) if config is None or num_steps is None else {}
    if config is None:
        if not isinstance(saved.get("config"), dict):
            raise ConfigError(f"{run.config}: has no `config:`; it was not written by a run")
        config = load_config(saved["config"])
    steps = num_steps or int(saved.get("num_steps") or config.optim.max_steps or 1)
    planned = config.with_values({"optim.max_steps": steps})
    return history(
        settings_of(planned),
        read_records(run.metrics),
        read_records(run.scores),
        read_records(run.samples),
        _preflight(run),
    )


def _preflight(run: RunDir) -> Mapping[str, Any]:
    """What was measured on the data; empty when nothing was."""
    if not run.preflight.is_file():
        return {}
    try:
        found = json.loads(run.preflight.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{run.preflight}: cannot be read ({error}); restore the file") from None
    if not isinstance(found, dict):
        raise DataError(f"{run.preflight}: expected an object, found {found!r:.60}")
    return found


def replay(records: History) -> list[Finding]:
    """The findings after every look, in order, from nothing but the records."""
    return [finding for step in records.look_steps for finding in judge(records.at(step))]


def newest(findings: Sequence[Finding]) -> list[Finding]:
    """Those of the last look."""
    last = max((finding.step for finding in findings), default=0)
    return [finding for finding in findings if finding.step == last]


def read_findings(run: RunDir) -> list[Finding]:
    """What was found while the run was training; empty when its guards were off."""
    return [Finding.from_record(record) for record in read_records(run.findings)]


def table(findings: Sequence[Finding], title: str = "guards", width: int = WIDE) -> Table:
    """One line per guard: verdict, number, interval, threshold, minimum detectable effect.

    In fewer than `WIDE` columns the figures stand below the verdict, without the last.
    """
    shown = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("guard", "verdict"):
        shown.add_column(title, overflow="fold", no_wrap=width >= WIDE)
    for title in ("measured (95 %)", "limit", "least seen") if width >= WIDE else ():
        shown.add_column(title, justify="right", no_wrap=True)
    for guard, finding in verdicts(findings).items():
        unit = finding.unit.replace(" per ", "/")
        what = f"{finding.signal.replace('_', ' ')}, {unit}".rstrip(", ")
        low, high = finding.interval or (None, None)
        spread = "" if low is None else f"\n{_number(low)} to {_number(high)}"
        name = Text(guard.replace("_", " ")).append(f"\n{what}", style="dim")
        said = f"{GLYPHS[finding.verdict]} {finding.verdict.replace('_', ' ')}"
        verdict = Text(said, style=STYLES[finding.verdict])
        if width < WIDE:
            limit = "" if finding.threshold is None else f"\nlimit {_number(finding.threshold)}"
            figure = "" if finding.statistic is None else f"\n{_number(finding.statistic)}{limit}"
            shown.add_row(name, verdict.append(figure, style="not bold default"))
            continue
        shown.add_row(
            name,
            verdict,
            Text(_number(finding.statistic)).append(spread, style="dim"),
            _number(finding.threshold),
            _number(finding.mde),
        )
    return shown


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"


def lines(findings: Sequence[Finding], least: Verdict = "watch") -> list[tuple[str, str]]:
    """Text and style of each finding at least as severe as `least`, the most severe first.

    Alarms come with causes before what they explain.
    """
    order = {id(finding): place for place, finding in enumerate(rank(findings))}
    chosen = [finding for finding in findings if _as_bad(finding.verdict, least)]
    chosen.sort(key=lambda f: (-SEVERITY[f.verdict], order.get(id(f), len(order))))
    return [(describe(finding), STYLES[finding.verdict]) for finding in chosen]


def describe(finding: Finding) -> str:
    """One finding as a sentence with its remedy."""
    text = f"{finding.guard.replace('_', ' ')}: {finding.verdict}: {finding.message}"
    return f"{text}\n  -> {finding.remedy}" if finding.remedy else text


def show_guards(
    run: str, *, every: bool, as_json: bool, fail_on: Verdict | None, out: TextIO
) -> None:
    """Replay the guards on a run folder, and write what they say to `out`.

    Raises:
        ConfigError: no such run, or it has no look to judge.
        GuardAlarm: a guard says `fail_on` or worse after the last look.
    """
    folder = RunDir.find(run)
    findings = replay(history_of(folder))
    if not findings:
        raise ConfigError(f"{folder.path}: no look was recorded yet, so there is nothing to judge")
    last = newest(findings)
    if as_json:
        for finding in findings:
            out.write(json.dumps(finding.record(), allow_nan=False) + "\n")
    else:
        console = Console(file=out, highlight=False)
        title = f"{printable(run)}: guards after step {last[0].step}"
        console.print(table(last, title, console.width))
        told = [f for f in last if every or f.primary or f.verdict == "alarm"]
        for text, style in lines(told, "pass" if every else "watch"):
            console.print(Text(printable(text), style=style), soft_wrap=True)
    worst = [f for f in verdicts(last).values() if fail_on and _as_bad(f.verdict, fail_on)]
    if worst:
        named = ", ".join(f"{f.guard} ({f.verdict})" for f in worst)
        raise GuardAlarm(f"{folder.path}: {named}")


def _as_bad(verdict: Verdict, limit: Verdict) -> bool:
    return SEVERITY[verdict] >= SEVERITY[limit]
