"""A tracker of the user's own: from a file outside the package, or an entry point."""

import json
from importlib import metadata

import pytest

from sft.config import load_config
from sft.errors import ConfigError
from sft.trackers.follow import Followers
from sft.trackers.installed import asked_for
from tracked import end, new_run, sft, write_steps

MINE = """
import json
from sft.trackers.base import Tracker

class MyTracker(Tracker):
    def start(self, run, config, state):
        self.path = run.path.parent / "mine.jsonl"
        state["starts"] = state.get("starts", 0) + 1

    def write(self, *line):
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\\n")

    def record(self, records):
        for record in records:
            self.write("record", record["step"])

    def event(self, event):
        self.write("event", event["kind"])

    def finish(self, status, summary):
        self.write("finish", status)

class NoTracker:
    pass

class Other(MyTracker):
    pass
"""
SPEC = "./my_tracker.py:MyTracker"
STEPS = [0, 1, 2, 3, 4, 4]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sft.trackers.installed.missing", lambda name: "not in this test")
    (tmp_path / "my_tracker.py").write_text(MINE)
    return tmp_path


def custom(*specs):
    return {"trackers.custom": list(specs)}


def lines(folder):
    return [json.loads(line) for line in (folder / "mine.jsonl").read_text().splitlines()]


def test_a_run_is_followed_and_its_rest_is_sent_afterwards(folder):
    run, config = new_run(folder / "run", custom(SPEC))
    with Followers(run, config, pytest.fail) as followers:
        followers.start()
        write_steps(run, 1, 4)
        end(run)
    assert [value for kind, value in lines(folder) if kind == "record"] == STEPS
    assert [value for kind, value in lines(folder) if kind == "event"] == ["started", "finished"]
    assert lines(folder)[-1] == ["finish", "finished"]
    saved = json.loads((run.trackers / "my_tracker.MyTracker.json").read_text())
    assert saved["state"] == {"starts": 1}
    write_steps(run, 5, 5)
    assert sft("track", run.path, "--to", SPEC) == (0, f"records sent to {SPEC}: 1\n", "")
    assert lines(folder)[-2:] == [["record", 5], ["finish", "finished"]]


def test_an_entry_point_is_a_tracker_too(folder, monkeypatch):
    point = metadata.EntryPoint("mine", "my_tracker:MyTracker", "sft.trackers")
    monkeypatch.setattr(
        "sft.config.plugins.entry_points",
        lambda group, name=None: [point] if name in (None, "mine") else [],
    )
    monkeypatch.syspath_prepend(str(folder))
    run, config = new_run(folder / "run", custom("mine"))
    with Followers(run, config, pytest.fail) as followers:
        followers.start()
        end(run)
    assert (run.trackers / "mine.json").is_file()


@pytest.mark.parametrize(
    ("specs", "problem"),
    [
        (["./my_trackr.py:MyTracker"], "cannot be read: .*Did you mean 'my_tracker.py'"),
        (["./my_tracker.py:MyTrackr"], "defines no 'MyTrackr'. Did you mean 'MyTracker'"),
        (["./my_tracker.py:NoTracker"], "expected a subclass of sft.trackers.base.Tracker"),
        (["./my_tracker.py:json"], "expected a subclass of"),
        (["tensorbord"], "Did you mean 'tensorboard'"),
        ([SPEC, "my_tracker.py:MyTracker"], "another called my_tracker.MyTracker"),
    ],
)
def test_a_wrong_name_is_an_error_before_anything_starts(folder, specs, problem):
    config = load_config({}, custom(*specs))
    with pytest.raises(ConfigError, match=rf"^trackers\.custom: .*{problem}"):
        asked_for(config)


def test_two_of_one_file_have_positions_of_their_own(folder):
    config = load_config({}, custom(SPEC, "./my_tracker.py:Other"))
    assert asked_for(config) == [SPEC, "./my_tracker.py:Other"]
