"""`sft check` as a command: examine, print, write the page, and say how bad it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole

from sft.check.desk import Wishes, examine
from sft.check.page import write_page
from sft.check.terminal import show_report, verdict
from sft.config import Config
from sft.curate.finding import SEVERITIES, DataFinding
from sft.errors import DataError
from sft.terminal.console import Console


def check(
    config: Config, wishes: Mapping[str, Any], *, html: str | None, as_json: bool, fail_on: str
) -> None:
    """Print the report to stdout, or with `as_json` its findings as a JSON list.

    Raises:
        DataError: a finding is as severe as `fail_on`, or more.
    """
    with Console() as show:
        report = examine(config, Wishes(**wishes, every_view=html is not None), show)
        if html:
            write_page(report, Path(html))
    if as_json:
        json.dump([finding.record() for finding in report.findings], sys.stdout, indent=1)
        print()
    else:
        num_views = len(report.views) if wishes["row"] or wishes["search"] else wishes["rows"]
        show_report(report, num_views, RichConsole(highlight=False))
        if html:
            print(f"page: {html}")
    worst = _severe(report.findings, fail_on)
    if worst:
        raise DataError(f"{verdict(worst)} in the data; --fail-on never exits with 0 all the same")


def _severe(findings: Sequence[DataFinding], fail_on: str) -> list[DataFinding]:
    """The findings that are as severe as `fail_on`, or more."""
    if fail_on == "never":
        return []
    limit = SEVERITIES.index(fail_on)
    return [finding for finding in findings if SEVERITIES.index(finding.severity) <= limit]
