import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from sft.runs.events import EventLog
from sft.runs.run_dir import RunDir
from sft.runs.state import run_state, step_seconds
from sft.runs.store import RecordStore

CONFIG = "config:\n  eval:\n    every: 4\n  optim:\n    max_steps: null\nnum_steps: 12\n"


def append(path, *records):
    with RecordStore(path) as store:
        for record in records:
            store.append(record)


def step(number, seconds=1.0):
    return {"step": number, "loss": 2.0, "seconds": number * seconds}


def evaluation(number):
    return {"step": number, "epoch": 0.1, "val_loss": 2.0, "eval_seconds": 3.0}


def hold(run, *, pid=None, host=None, started=None):
    """A lock file as a process leaves it that was killed."""
    holder = {
        "pid": os.getpid() if pid is None else pid,
        "host": host or socket.gethostname(),
        "started": (started or datetime.now(UTC)).isoformat(timespec="seconds"),
    }
    run.lock.write_text(json.dumps(holder))


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "mine")
    run.path.mkdir()
    run.config.write_text(CONFIG)
    return run


def test_a_run_that_is_held_by_this_process(run):
    run.checkpoints.mkdir()
    with RunDir.open(run.path):
        found = run_state(run)
        assert (found.state, found.step, found.num_steps) == ("preparing", None, 12)
        assert (found.pid, found.host) == (os.getpid(), socket.gethostname())
        assert abs(found.updated - time.time()) < 60
        append(run.metrics, evaluation(0), step(1), step(2))
        found = run_state(run)
        assert (found.state, found.step) == ("training", 2)
        append(run.metrics, step(3), step(4))
        assert run_state(run).state == "measuring"
        append(run.metrics, evaluation(4), *(step(number) for number in range(5, 13)))
        assert run_state(run).state == "measuring"
        append(run.metrics, evaluation(12))
        assert run_state(run).state == "saving"
    assert run_state(run).state == "interrupted"


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        ("loading the model", "preparing"),
        ("evaluating", "measuring"),
        ("answering", "measuring"),
        ("saving the model", "saving"),
        ("verifying the model", "saving"),
    ],
)
def test_a_phase_counts_until_something_newer_is_recorded(run, phase, state):
    hold(run)
    append(run.metrics, step(1))
    EventLog(run.events).add("phase", phase)
    EventLog(run.events).add("note", "a line of the terminal")
    found = run_state(run)
    assert (found.state, found.detail) == (state, phase)
    append(run.metrics, step(2))
    later = time.time() + 1
    os.utime(run.metrics, (later, later))
    assert run_state(run).state == "training"


def test_an_attempt_that_continues_is_preparing_although_it_is_silent(run):
    append(run.metrics, step(1), step(2))
    EventLog(run.events).add("interrupted", "stopped by SIGINT")
    long_ago = time.time() - 1000
    os.utime(run.metrics, (long_ago, long_ago))
    run.events.write_text(run.events.read_text().replace(str(datetime.now(UTC).year), "2020", 1))
    hold(run)
    assert run_state(run).state == "preparing"


@pytest.mark.parametrize(("seconds", "limit"), [(1.0, 60.0), (30.0, 150.0)])
def test_stalled_is_five_times_the_longest_step_and_a_minute_at_least(run, seconds, limit):
    hold(run)
    append(run.metrics, step(1, seconds), step(2, seconds))
    now = run_state(run).updated
    assert run_state(run, now + limit - 1).state == "training"
    found = run_state(run, now + limit + 1)
    assert found.state == "stalled"
    assert "nothing was written for" in found.detail


def test_reading_and_saving_may_be_silent_for_longer(run):
    hold(run)
    EventLog(run.events).add("phase", "tokenising")
    now = run_state(run).updated
    assert run_state(run, now + 300).state == "preparing"
    found = run_state(run, now + 700)
    assert (found.state, "tokenising" in found.detail) == ("stalled", True)


def test_a_summary_means_finished(run):
    append(run.metrics, step(1))
    run.summary.write_text(json.dumps({"steps": 1, "stopped": "val_loss rose"}))
    found = run_state(run)
    assert (found.state, found.detail) == ("finished", "ended early: val_loss rose")
    hold(run)  # `sft blend` holds it
    assert run_state(run).state == "finished"


def test_a_report_written_later_is_no_sign_of_life(run):
    append(run.metrics, step(1))
    before = run_state(run).updated
    later = time.time() + 100
    run.report.write_text("<html>")
    for path in (run.report, run.path):
        os.utime(path, (later, later))
    assert run_state(run).updated == before


def test_an_old_run_without_num_steps_has_those_of_its_summary(run):
    run.config.write_text("config: {}\n")
    run.summary.write_text(json.dumps({"steps": 7, "stopped": None}))
    assert run_state(run).num_steps == 7


@pytest.mark.parametrize("kind", ["failed", "interrupted", "finished"])
def test_the_end_that_was_recorded(run, kind):
    append(run.metrics, step(1))
    log = EventLog(run.events)
    log.add("started", "process 1")
    log.add(kind, "why it ended")
    log.add("note", "report: report.html")
    run.lock.write_text("")
    found = run_state(run)
    assert (found.state, found.detail, found.pid) == (kind, "why it ended", None)
    log.add("started", "process 2")
    assert run_state(run).state == "interrupted"  # it left no word


def test_a_process_that_was_killed(run):
    code = (
        "import sys, time\nfrom sft.runs.run_dir import RunDir\n"
        "with RunDir.open(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        assert run_state(run).state == "preparing"
        child.send_signal(signal.SIGKILL)
        # Dead, but not yet waited for: a zombie has a pid too.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert run_state(run).state == "killed"
    found = run_state(run)
    assert (found.state, found.pid) == ("killed", child.pid)
    assert "without a word" in found.detail


def test_a_pid_that_another_process_has_by_now(run):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        hold(run, pid=child.pid)
        assert run_state(run).state == "preparing"
        hold(run, pid=child.pid, started=datetime.now(UTC) - timedelta(days=1))
        assert run_state(run).state == "killed"
        child.stdin.close()


def test_a_run_on_another_machine_is_judged_by_what_it_writes(run):
    hold(run, host="elsewhere", pid=2**22 - 1)
    append(run.metrics, step(1))
    now = run_state(run).updated
    assert run_state(run, now).state == "training"
    found = run_state(run, now + 3600)
    assert (found.state, found.host) == ("stalled", "elsewhere")
    assert "cannot be told from this machine" in found.detail


def test_a_run_of_another_trainer_is_finished_without_a_model(run):
    append(run.metrics, evaluation(0), step(4), evaluation(4), step(12), evaluation(12))
    assert run_state(run).state == "finished"
    run.checkpoints.mkdir()
    assert run_state(run).state == "interrupted"


def test_no_lock_is_taken_and_nothing_is_changed(run, monkeypatch):
    def refuse(*_args):
        raise AssertionError("a reader takes no lock")

    monkeypatch.setattr(fcntl, "flock", refuse)
    hold(run)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run.path.iterdir())
    run_state(run)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in run.path.iterdir()) == before


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"config.yaml": CONFIG},
        {"config.yaml": "config: [\n"},
        {"config.yaml": "- 1\n", "run.lock": "{", "metrics.jsonl": "", "summary.json": "[]"},
        {"metrics.jsonl": 'null\n{"step": "x"}\n{"step": 1e999, "loss": NaN}\n{"st'},
        {"events.jsonl": '{"time": 5, "kind": "failed"}\n{"kind": ["a"]}\n' + "x" * 1_000_000},
        {"run.lock": '{"pid": -1, "host": 5, "started": {}}'},
        {"run.lock": '{"pid": 99999999999999999999, "host": "' + socket.gethostname() + '"}'},
    ],
)
def test_odd_folders_have_a_state(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = run_state(RunDir(tmp_path))
    running = bool(files.get("run.lock", "").endswith("}"))
    ended = ("unknown", "failed", "interrupted")
    assert found.state in (("preparing", "killed") if running else ended)


def test_what_is_no_file_is_not_read(run):
    for path in (run.events, run.metrics, run.summary):
        os.mkfifo(path)  # opening one waits for a writer
    assert run_state(run).state == "unknown"
    assert run_state(RunDir(run.path / "not there")).detail == "the folder is gone"


def test_seconds_of_a_step_where_not_every_step_is_recorded():
    assert step_seconds([step(1), step(2), {"step": 3}, step(6)]) == [1.0, 1.0]
    # After a resume the time so far begins again at that of the checkpoint.
    assert step_seconds([step(5), step(3), step(4)]) == [1.0]
