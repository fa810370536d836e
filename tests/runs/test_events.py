"""`events.jsonl`: the history of a run, which nothing that goes wrong with it may stop."""

from datetime import datetime

import pytest

from sft.config.tracker_sections import EventKind
from sft.runs.events import KINDS, EventLog
from sft.runs.store import read_records


def test_an_event_has_its_time_and_whatever_is_given(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.add("alarm", "it forgets", level="error", step=12, guard="forgetting")
    log.add("note", "a\nline", path=tmp_path)
    first, second = read_records(log.path)
    assert {**first, "time": ""} == {
        "time": "",
        "kind": "alarm",
        "level": "error",
        "step": 12,
        "text": "it forgets",
        "guard": "forgetting",
    }
    assert datetime.fromisoformat(first["time"]).utcoffset().total_seconds() == 0
    assert (second["level"], second["text"], second["path"]) == ("info", "a\nline", str(tmp_path))


def test_what_is_held_is_written_in_order_on_release(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", held=True)
    log.add("started", "1")
    log.add("note", "2")
    assert not log.path.exists() and not log.released
    log.release()
    log.add("note", "3")
    assert [event["text"] for event in read_records(log.path)] == ["1", "2", "3"]


@pytest.mark.parametrize("held", [True, False])
def test_what_is_forgotten_leaves_no_trace_and_spares_earlier_attempts(tmp_path, held):
    path = tmp_path / "events.jsonl"
    if held:
        EventLog(path).add("finished", "before")
    log = EventLog(path, held=held)
    log.add("started", "again")
    log.forget()
    assert [event["text"] for event in read_records(path)] == (["before"] if held else [])


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    EventLog(tmp_path / "missing" / "events.jsonl").add("note", "lost")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    (tmp_path / "events.jsonl").symlink_to(elsewhere)
    EventLog(tmp_path / "events.jsonl").add("note", "not through a link")
    assert elsewhere.read_text() == ""


def test_alerts_know_the_same_kinds():
    assert set(EventKind.__args__) == set(KINDS)
