"""The same question about one run folder, asked of everyone who answers it."""

import io
import json

from sft.dashboard.page_data import PAGE_DATA
from sft.report.guards_table import show_guards
from sft.report.report_json import report_json
from sft.report.runs_table import show_runs
from sft.runs.run_records import read_run


def page(run, name):
    """What the live page is given, as its browser reads it."""
    return json.loads(json.dumps(PAGE_DATA[name](run, {}), allow_nan=False))


def report(run):
    """`report.json`."""
    return json.loads(json.dumps(report_json(read_run(run)), allow_nan=False))


def runs_json(run):
    """The row of `sft runs --json`."""
    out = io.StringIO()
    show_runs([str(run.path)], as_json=True, out=out)
    (row,) = json.loads(out.getvalue())
    return row


def guards_json(run):
    """The lines of `sft guards --json`."""
    out = io.StringIO()
    show_guards(str(run.path), every=True, as_json=True, fail_on=None, out=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]
