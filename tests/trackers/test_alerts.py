"""Alerts: a real server and a real program are told what was asked for, once."""

import json
import sys
import time
from typing import get_args

import pytest

from sft.config import load_config
from sft.config.tracker_sections import EventKind
from sft.errors import ConfigError, SFTError
from sft.runs.events import KINDS, EventLog
from sft.trackers import alerts
from sft.trackers.follow import Followers
from sft.trackers.session import send
from tracked import begin, end, new_run, webhook

PROGRAM = """
import json, os, sys
told = {name: value for name, value in os.environ.items() if name.startswith("SFT_")}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([told, json.load(sys.stdin), sys.argv[2:]]) + "\\n")
sys.exit(len(sys.argv) - 2)
"""


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    monkeypatch.setattr("sft.trackers.installed.find_spec", lambda name: None)


@pytest.fixture
def program(tmp_path):
    """A command that notes what it is told, and the notes."""
    script, notes = tmp_path / "told.py", tmp_path / "notes.jsonl"
    script.write_text(PROGRAM)

    def read():
        lines = notes.read_text().splitlines() if notes.exists() else []
        return [json.loads(line) for line in lines]

    return f"{sys.executable} {script} '{notes}'", read


def alarm(run, text="it overfits", step=4):
    EventLog(run.events).add("alarm", text, level="error", step=step, guard="overfitting")


def attempt(run, config, told=None):
    tell = (lambda text: None) if told is None else told.append
    with Followers(run, config, tell) as followers:
        begin(run)
        followers.start()
        alarm(run)
        end(run)


def test_every_kind_of_event_can_be_asked_for():
    assert set(get_args(EventKind)) == set(KINDS)
    with pytest.raises(ConfigError, match=r"alerts.on.0: .*'alarm'"):
        load_config({}, {"alerts.on": ["alarms"]})


def test_a_webhook_gets_the_events_that_were_asked_for(tmp_path):
    with webhook() as (url, bodies):
        run, config = new_run(tmp_path / "run", {"alerts.webhook": url})
        alarm(run, "of yesterday")  # before alerts were asked for
        time.sleep(0.002)
        attempt(run, config)
    assert [body["kind"] for body in bodies] == ["alarm", "finished"]
    assert bodies[0] == {
        "text": "run: alarm at step 4: it overfits",
        "content": "run: alarm at step 4: it overfits",
        "allowed_mentions": {"parse": []},
        "run": "run",
        "kind": "alarm",
        "step": 4,
        "level": "error",
    }


def test_a_program_gets_the_event(tmp_path, program):
    command, read = program
    run, config = new_run(tmp_path / "run", {"alerts.command": command, "alerts.on": ["alarm"]})
    attempt(run, config)
    [[environment, event, rest]] = read()
    assert environment == {
        "SFT_EVENT": "alarm",
        "SFT_TEXT": "it overfits",
        "SFT_RUN": str(run.path),
        "SFT_STEP": "4",
        "SFT_LEVEL": "error",
    }
    assert event["guard"] == "overfitting"
    assert rest == []


def test_the_address_is_read_from_the_environment(tmp_path, monkeypatch):
    with webhook() as (url, bodies):
        monkeypatch.setenv("HOOK", url)
        run, config = new_run(tmp_path / "run", {"alerts.webhook": "$HOOK"})
        attempt(run, config)
    assert len(bodies) == 2
    kept = [path.read_text() for path in run.path.rglob("*") if path.is_file()]
    assert not any("secret" in text for text in kept)
    monkeypatch.delenv("HOOK")
    with pytest.raises(ConfigError, match="HOOK is not set"), Followers(run, config, print):
        pass


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "hooks.example/x", "https:"])
def test_other_schemes_are_refused(tmp_path, url):
    run, config = new_run(tmp_path / "run", {"alerts.webhook": url})
    with pytest.raises(ConfigError, match="https://"), Followers(run, config, print):
        pass


def test_a_failure_is_tried_three_times(tmp_path, monkeypatch):
    monkeypatch.setattr(alerts.time, "sleep", lambda seconds: None)
    with webhook(500, 503) as (url, bodies):
        alerts.post(url, {"text": "x"})
        assert len(bodies) == 3
    with webhook(500, 500, 500) as (url, bodies), pytest.raises(alerts.AlertError, match="500"):
        alerts.post(url, {"text": "x"})


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(monkeypatch, code):
    monkeypatch.setattr(alerts.time, "sleep", lambda seconds: None)
    with (
        webhook(*[code] * alerts.TRIES) as (url, bodies),
        pytest.raises(alerts.AlertError, match=f"answered {code}"),
    ):
        alerts.post(url, {"text": "x"})
    assert bodies == [{"text": "x"}] * alerts.TRIES


def test_what_fails_is_told_without_the_address_and_sent_later(tmp_path, program, monkeypatch):
    monkeypatch.setattr("sft.trackers.follow.WAIT", 1.0)
    command, read = program
    with webhook(*[500] * 50) as (url, bodies):
        run, config = new_run(tmp_path / "run", {"alerts.webhook": url, "alerts.command": command})
        told = []
        attempt(run, config, told)
        assert "2 alerts were not sent" in told[-1]
        assert "secret" not in "".join(told)
        assert read() == []
        time.sleep(1.5)  # what was still on its way
        bodies.clear()
    with webhook() as (url, bodies):
        again = load_config({}, {"alerts.webhook": url, "alerts.command": command})
        assert send(run, "alerts", again) == 2
    assert [body["kind"] for body in bodies] == ["alarm", "finished"]
    assert [environment["SFT_EVENT"] for environment, _, _ in read()] == ["alarm", "finished"]


def test_a_program_that_fails_is_not_started_twice_for_one_alert(tmp_path, program):
    command, read = program
    run, config = new_run(tmp_path / "run", {"alerts.command": f"{command} fails"})
    alarm(run)
    end(run)
    for count in (1, 2):
        with pytest.raises(SFTError, match="failed with code 1"):
            send(run, "alerts", config)
        assert len(read()) == count
    assert send(run, "alerts", config) == 1  # both were told; the last one failed
    assert len(read()) == 2


def test_a_program_that_hangs_is_killed_with_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(alerts, "COMMAND_TIMEOUT", 0.5)
    note = tmp_path / "note"
    run, _ = new_run(tmp_path / "run")
    words = ["sh", "-c", f"(sleep 1.2; echo late > {note}) & sleep 60"]
    began = time.monotonic()
    with pytest.raises(alerts.AlertError, match="killed after"):
        alerts.start_program(words, {"kind": "alarm"}, run)
    assert time.monotonic() - began < 5
    time.sleep(1.2)
    assert not note.exists()


@pytest.mark.parametrize("command", ["", " ", "'open quote"])
def test_a_command_that_is_none_is_an_error_at_once(tmp_path, command):
    with pytest.raises(ConfigError, match=r"alerts\.command"):
        alerts.arguments_of(command)


def test_no_shell_reads_the_command(tmp_path):
    run, _ = new_run(tmp_path / "run")
    with pytest.raises(alerts.AlertError, match="cannot be started"):
        alerts.start_program(alerts.arguments_of(f"'touch {tmp_path}/x; true'"), {}, run)
    assert not (tmp_path / "x").exists()


def test_text_of_the_run_calls_nobody():
    body = alerts.message({"kind": "alarm", "text": "<!channel> @everyone & <b>"}, "run")
    assert body["text"] == "run: alarm: &lt;!channel&gt; @everyone &amp; &lt;b&gt;"
    assert body["allowed_mentions"] == {"parse": []}


def test_a_failure_before_the_first_step_is_alerted(tmp_path):
    with webhook() as (url, bodies):
        run, config = new_run(tmp_path / "run", {"alerts.webhook": url})
        with pytest.raises(SFTError), Followers(run, config, print):
            begin(run)
            EventLog(run.events).add("failed", "no such file", level="error")
            raise SFTError("no such file")
    assert [body["kind"] for body in bodies] == ["failed"]
