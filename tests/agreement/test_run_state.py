"""How a run stands: the page, the list of runs, the report and the trackers."""

import json
import os
import socket
from datetime import UTC, datetime, timedelta

import pytest

from agreement.tellers import page, report, runs_json
from report.run_folders import append, finished_run, unfinished_run
from sft.runs.state import ending_of, run_state

NOW = datetime.now(UTC)


def held(run, pid=None):
    holder = {
        "pid": pid or os.getpid(),
        "host": socket.gethostname(),
        "started": NOW.isoformat(timespec="seconds"),
    }
    run.lock.write_text(json.dumps(holder))
    return run


def event(run, kind, text=""):
    time = (NOW + timedelta(seconds=1)).isoformat(timespec="milliseconds")
    append(run.events, {"time": time, "kind": kind, "level": "info", "step": None, "text": text})
    return run


def dead_pid():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


# How the folder is made; the state; what a tracker is told.
CASES = {
    "training": (lambda p: held(unfinished_run(p, steps=6)), "training", "running"),
    "let go": (lambda p: unfinished_run(p, steps=6), "interrupted", "interrupted"),
    "killed": (lambda p: held(unfinished_run(p, steps=6), dead_pid()), "killed", "interrupted"),
    "failed": (lambda p: event(unfinished_run(p), "failed", "no space"), "failed", "failed"),
    "finished": (finished_run, "finished", "finished"),
    "failed, its process still writing the report": (
        lambda p: event(event(held(unfinished_run(p)), "failed", "no space"), "note", "report"),
        "failed",
        "failed",
    ),
    "interrupted, its process still sending": (
        lambda p: event(held(unfinished_run(p, steps=6)), "interrupted", "by Ctrl-C"),
        "interrupted",
        "interrupted",
    ),
    "failed before, and going on": (
        lambda p: event(event(held(unfinished_run(p, steps=6)), "failed"), "started"),
        None,  # one of those of a running run
        "running",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_teller_says_the_same(tmp_path, name):
    make, expected, status = CASES[name]
    run = make(tmp_path / "mine")
    state = run_state(run)
    row, snapshot, facts = runs_json(run), page(run, "snapshot"), report(run)["run"]
    tellers = {
        "page": (snapshot["state"]["state"], snapshot["state"]["detail"]),
        "sft runs": (row["state"], row["detail"]),
        "report": (facts["state"], facts["detail"]),
    }
    assert tellers == dict.fromkeys(tellers, (state.state, state.detail))
    assert expected in (None, state.state)
    assert ending_of(run)[0] == status
    assert facts["finished"] == (status == "finished")
