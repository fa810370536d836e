"""What Trackio's own store holds of a run."""

import json
import sqlite3

import pytest

from sft.runs.events import EventLog
from sft.trackers.installed import missing
from tracked import SIX, end, new_run, sft, step_record, write_steps

if missing("trackio"):
    pytest.skip(missing("trackio"), allow_module_level=True)


def rows(store, sql):
    with sqlite3.connect(store / "sft.db") as database:
        return database.execute(sql).fetchall()


def test_every_value_is_there_once(tmp_path):
    store = tmp_path / "store"
    run, config = new_run(tmp_path / "run")
    write_steps(run, 1, 7)
    first = sft("track", run.path, "--to", "trackio", TRACKIO_DIR=str(store))
    assert first == (0, "records sent to trackio: 9\n", first[2])
    text = (run.trackers / "trackio.json").read_text()
    write_steps(run, 8, 12)
    EventLog(run.events).add("alarm", "it overfits", level="error", step=12)
    end(run)
    for _ in range(2):  # the second time as if the first had not been confirmed
        code, out, _ = sft("track", run.path, "--to", "trackio", TRACKIO_DIR=str(store))
        assert (code, out) == (0, "records sent to trackio: 7\n")
        (run.trackers / "trackio.json").write_text(text)
    found = [
        (step, json.loads(metrics))
        for step, metrics in rows(store, "SELECT step, metrics FROM metrics ORDER BY id")
    ]
    steps = [(step, metrics) for step, metrics in found if "loss" in metrics]
    assert [step for step, _ in steps] == [*range(1, 13)]
    for name in (*SIX, "tokens_per_second", "seconds"):
        assert [metrics[name] for _, metrics in steps] == [
            step_record(step)[name] for step in range(1, 13)
        ], name
    assert [step for step, metrics in found if "val_loss" in metrics] == [0, 4, 8, 12]
    assert rows(store, "SELECT DISTINCT run_name FROM metrics") == [("run",)]
    [(settings,)] = rows(store, "SELECT config FROM configs")
    assert json.loads(settings)["batch.examples"] == config.batch.examples
    alerts = rows(store, "SELECT title, text, level, step FROM alerts ORDER BY id")
    assert alerts == [
        ("alarm", "it overfits", "error", 12),
        ("finished", "the model is saved", "info", None),
    ]


def test_a_space_is_not_silently_left_out(tmp_path):
    run, _ = new_run(tmp_path / "run")
    write_steps(run, 1, 1)
    code, _, err = sft("track", run.path, "--to", "trackio", TRACKIO_SPACE_ID="me/space")
    assert code == 2
    assert "TRACKIO_SPACE_ID is set" in err
