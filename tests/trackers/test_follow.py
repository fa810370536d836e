"""Trackers follow the files of a run: nothing lost, nothing twice, and training never waits."""

import json
import os
import socket
import time
from datetime import UTC, datetime

import pytest

from sft.config import load_config
from sft.errors import ConfigError, SFTError
from sft.runs.events import EventLog
from sft.runs.run_dir import RunDir
from sft.trackers import TRACKERS
from sft.trackers import follow as following
from sft.trackers.base import Tracker, numbers, printable_event, summary_values
from sft.trackers.follow import Followers
from sft.trackers.session import public_settings, send
from tracked import begin, cut_back, end, eval_record, new_run, sft, write_steps

STEPS = [(0, "evaluation"), *((s, k) for s in range(1, 13) for k in ("step", "evaluation"))]
WHOLE = [(s, k) for s, k in STEPS if k == "step" or s % 4 == 0]


class Kept(Tracker):
    """A service that keeps what it gets over all attempts, and can be told to fail or hang."""

    def __init__(self):
        self.records, self.events, self.ends, self.states = [], [], [], []
        self.failures = []  # exceptions that the next calls of `record` raise
        self.hangs = False
        self.settings = None

    def start(self, run, config, state):
        state["attempts"] = state.get("attempts", 0) + 1
        self.states.append(dict(state))
        self.settings = config

    def record(self, records):
        while self.hangs:
            time.sleep(0.02)
        if self.failures:
            raise self.failures.pop(0)
        self.records += records

    def event(self, event):
        self.events.append(event)

    def finish(self, status, summary):
        self.ends.append((status, summary))

    def abandon(self):
        self.hangs = False

    @property
    def sent(self):
        return [(r["step"], "evaluation" if "eval_seconds" in r else "step") for r in self.records]


@pytest.fixture
def service(monkeypatch):
    kept = Kept()
    monkeypatch.setitem(TRACKERS, "tensorboard", lambda: kept)
    monkeypatch.setattr("sft.trackers.installed.missing", lambda name: None)
    monkeypatch.setattr(following, "POLL", 0.01)
    return kept


@pytest.fixture
def told():
    return []


def attempt(run, config, told, *, first=1, last=12, ending="finished"):
    """What `train` does, from the moment when a run is continued."""
    with Followers(run, config, told.append) as followers:
        begin(run)
        followers.start()
        write_steps(run, first, last)
        end(run, ending)


def test_all_that_is_written_arrives_once_and_in_order(tmp_path, service, told):
    run, config = new_run(tmp_path / "run")
    EventLog(run.events).add("alarm", "bad\x1b[31m", level="warning", step=4, guard="overfitting")
    attempt(run, config, told)
    assert service.sent == WHOLE
    assert service.records[1]["loss_by_source/a"] == 2.0
    assert [event["kind"] for event in service.events] == [
        "started",
        "alarm",
        "started",
        "finished",
    ]
    assert service.events[1]["text"] == "bad�[31m"
    assert service.ends[0][0] == "finished"
    assert service.ends[0][1]["best_step"] == 8
    assert told == []


def test_records_arrive_while_the_run_goes_on(tmp_path, service, told):
    run, config = new_run(tmp_path / "run")
    with Followers(run, config, lambda text: None) as followers:
        followers.start()
        write_steps(run, 1, 4)
        deadline = time.monotonic() + 5
        while len(service.records) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert service.sent == WHOLE[:6]


@pytest.mark.parametrize("ending", ["failed", "interrupted"])
def test_the_service_learns_how_it_ended(tmp_path, service, told, ending):
    run, config = new_run(tmp_path / "run")
    attempt(run, config, told, last=4, ending=ending)
    assert service.ends == [(ending, None)]


def test_a_resumed_run_sends_nothing_twice(tmp_path, service, told):
    run, config = new_run(tmp_path / "run")
    attempt(run, config, told, last=7, ending="interrupted")
    cut_back(run, 4)
    attempt(run, config, told, first=5)
    assert service.sent == WHOLE
    assert [state["attempts"] for state in service.states] == [1, 2]
    assert told == []


def test_a_file_that_was_cut_back_and_grew_unseen_is_read_anew(tmp_path, service, told):
    run, config = new_run(tmp_path / "run")
    attempt(run, config, told, last=7, ending="interrupted")
    cut_back(run, 4)
    write_steps(run, 5, 12, stretch=1.234567)  # without a tracker; lines of another length
    assert send(run, "tensorboard", config) == len(WHOLE) - 9
    assert service.sent == WHOLE


def test_an_error_is_told_once_and_tried_again(tmp_path, service, told, monkeypatch):
    run, config = new_run(tmp_path / "run")
    service.failures = [OSError("no route\nto \x1b[31mhost"), ValueError("again")]
    monkeypatch.setattr(following, "LONGEST_PAUSE", 0.05)
    with Followers(run, config, told.append) as followers:
        followers.start()
        write_steps(run, 1, 12)
        deadline = time.monotonic() + 5
        while len(service.records) < len(WHOLE) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert service.sent == WHOLE
    assert told == ["tensorboard: OSError: no route to �[31mhost; training goes on, retrying"]


def test_an_outage_is_told_at_the_end_and_sent_later(tmp_path, service, told, monkeypatch):
    monkeypatch.setattr(following, "WAIT", 0.3)
    run, config = new_run(tmp_path / "run")
    service.hangs = True
    began = time.monotonic()
    attempt(run, config, told)
    assert time.monotonic() - began < 5
    later = f"`sft track {run.path} --to tensorboard` sends them"
    assert told == [f"{len(WHOLE)} records were not sent to tensorboard; {later}"]
    time.sleep(0.1)  # the thread that was given up wakes up, and must keep no place
    service.records.clear()
    assert send(run, "tensorboard", config) == len(WHOLE)
    assert service.sent == WHOLE
    assert send(run, "tensorboard", config) == 0
    assert len(service.ends) == 1


def test_a_service_that_confirms_at_the_end_only_gets_all_of_it_again(tmp_path, service, told):
    run, config = new_run(tmp_path / "run")
    service.confirms = False
    write_steps(run, 1, 7)

    def hang(*_):
        raise TimeoutError("still uploading")

    service.finish, finish = hang, service.finish
    with pytest.raises(SFTError, match=r"still uploading; 0 of 9 were sent"):
        send(run, "tensorboard", config)
    service.finish = finish
    assert send(run, "tensorboard", config) == 9
    assert service.sent == WHOLE[:9] * 2  # it drops what it has by itself


def test_what_was_taken_before_an_error_is_not_sent_again(tmp_path, service, monkeypatch):
    monkeypatch.setattr("sft.trackers.position.BATCH", 5)
    run, config = new_run(tmp_path / "run")
    write_steps(run, 1, 12)
    end(run)
    take = service.record

    def fail_after_five(records):
        if service.records:
            raise ConnectionError("gone")
        take(records)

    service.record = fail_after_five
    with pytest.raises(SFTError, match=r"ConnectionError: gone; 5 of 16 were sent"):
        send(run, "tensorboard", config)
    service.record = take
    assert send(run, "tensorboard", config) == 11
    assert service.sent == WHOLE


def test_two_processes_do_not_send_the_same_run(tmp_path, service, told):
    run, config = new_run(tmp_path / "run")
    with Followers(run, config, lambda text: None) as followers:
        followers.start()
        write_steps(run, 1, 1)
        deadline = time.monotonic() + 5
        while not service.records and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(ConfigError, match="by another process"):
            send(run, "tensorboard", config)


def test_an_attempt_that_is_refused_leaves_no_trace(tmp_path, service):
    run, config = new_run(tmp_path / "run", {"alerts.command": "true"})
    time.sleep(0.002)
    before = sorted(run.path.rglob("*"))
    with pytest.raises(SFTError), Followers(run, config, lambda text: None):
        raise SFTError("refused before it began")
    assert sorted(run.path.rglob("*")) == before


def test_a_torn_line_waits_until_it_is_whole(tmp_path, service, told):
    run, config = new_run(tmp_path / "run")
    write_steps(run, 1, 2)
    with open(run.metrics, "a") as file:
        file.write('{"step": 3, "loss"')
    assert send(run, "tensorboard", config) == 3
    with open(run.metrics, "a") as file:
        file.write(": 1.5}\n")
    assert send(run, "tensorboard", config) == 1
    assert service.records[-1]["loss"] == 1.5


def test_what_the_state_file_holds_can_be_anything(tmp_path, service):
    run, config = new_run(tmp_path / "run")
    write_steps(run, 1, 2)
    run.trackers.mkdir()
    for text in ("", "[1", "[]", '{"metrics": 3, "events": [], "state": "x"}'):
        (run.trackers / "tensorboard.json").write_text(text)
        assert send(run, "tensorboard", config) == 3


def test_times_are_the_begin_of_the_run_and_the_time_it_trained(tmp_path, service):
    run, config = new_run(tmp_path / "run")
    write_steps(run, 1, 5)
    send(run, "tensorboard", config)
    times = {(r["step"], "eval_seconds" in r): r["time"] for r in service.records}
    began = times[(0, True)] - 0.25
    assert abs(began - time.time()) < 60
    assert times[(4, False)] - began == pytest.approx(0.25 + 2.0)
    assert times[(5, False)] - began == pytest.approx(0.5 + 2.5)


def test_a_run_without_events_or_config_is_sent_too(tmp_path, service):
    run = RunDir(tmp_path / "old")
    run.path.mkdir()
    run.config.write_text("config: [1]\n")
    write_steps(run, 1, 4)
    assert send(run, "tensorboard", load_config({})) == 6
    assert service.ends == [("interrupted", None)]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": now}
    run.lock.write_text(json.dumps(holder))
    write_steps(run, 5, 5)
    assert send(run, "tensorboard", load_config({})) == 1
    assert service.ends[1] == ("running", None)


def test_no_secret_is_among_the_settings(tmp_path):
    settings = {"alerts.webhook": "https://host/SECRET", "alerts.command": "notify SECRET"}
    run, _ = new_run(tmp_path / "run", settings)
    flat = public_settings(run)
    assert flat["optim.epochs"] is not None
    assert "SECRET" not in json.dumps(flat)


def test_asking_for_what_is_not_installed_is_an_error_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("sft.trackers.installed.find_spec", lambda name: None)
    run, config = new_run(tmp_path / "run", {"trackers.mlflow": True})
    match = r"trackers.mlflow: mlflow is not installed; pip install 'sft\[mlflow\]'"
    with pytest.raises(ConfigError, match=match), Followers(run, config, lambda text: None):
        pass
    run, config = new_run(tmp_path / "auto")
    with Followers(run, config, lambda text: None) as followers:
        followers.start()  # `auto` follows with nothing
    assert not run.trackers.exists()


def test_a_library_that_is_too_old_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("sft.trackers.installed.find_spec", lambda name: object())
    monkeypatch.setattr("sft.trackers.installed.metadata.version", lambda name: "1.27.0")
    with pytest.raises(ConfigError, match=r"mlflow 1.27.0 is too old \(3.0 or newer is needed\)"):
        send(RunDir(tmp_path), "mlflow", load_config({}))


def test_numbers_of_a_record():
    record = {
        "step": 3,
        "loss": None,
        "loss_nonfinite": "inf",
        "note": "text",
        "flag": True,
        "nothing": None,
        "huge": 10**400,
        "loss_by_source": {"a\x1b": 1, "b": None, "b_nonfinite": "nan"},
    }
    found = numbers(record)
    assert found.pop("loss_by_source/b") != 0.0
    assert found == {"step": 3.0, "loss": float("inf"), "loss_by_source/a�": 1.0}


def test_texts_of_an_event_and_a_summary_are_short_and_harmless():
    event = printable_event({"kind": "note", "text": "\ud800\x07" + "x" * 5000, "step": 1})
    assert event["text"].startswith("��x")
    assert len(event["text"]) == 2000
    assert summary_values(
        {"stopped": "\x1b]0;x", "guards": [{"guard": "g", "verdict": "alarm"}]}
    ) == {
        "stopped": "�]0;x",
        "guard/g": "alarm",
    }
    assert summary_values({"guards": 3, "best": []}) == summary_values(None) == {}


def test_the_command_line_names_the_tracker_that_was_meant(tmp_path):
    run, _ = new_run(tmp_path / "run")
    run.metrics.write_text(json.dumps(eval_record(0)) + "\n")
    code, out, err = sft("track", run.path, "--to", "wanbd")
    assert (code, out) == (2, "")
    assert "Did you mean 'wandb'?" in err
    code, out, err = sft("track", run.path, "--to", "alerts")
    assert (code, out) == (2, "")
    assert "neither alerts.webhook nor alerts.command" in err
