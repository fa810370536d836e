"""What a run tells of itself while it is being made: its events, its report, its examples."""

import json
import sys

import pytest

from sft import load_config, train
from sft.config import read_run_options
from sft.errors import CheckpointError, DivergedError, Interrupted
from sft.runs.events import KINDS
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records
from sft.terminal.console import Console
from sft.training.attempt import attempt
from trained import Trained, left_behind, make_world

QUICK = {"optim__max_steps": 4, "eval__every": 2, "eval__samples": 0, "checkpoint__every": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world):
    return Trained(world, "finished", **QUICK)


def events(path):
    return read_records(path / "events.jsonl")


def kinds(path, *wanted):
    return [event["kind"] for event in events(path) if event["kind"] in wanted]


def test_a_finished_run_tells_its_course_in_order(finished):
    told = kinds(finished.path, "started", "evaluation", "checkpoint", "finished")
    assert told == [
        "started",
        "evaluation",
        "evaluation",
        "checkpoint",
        "evaluation",
        "checkpoint",
        "finished",
    ]
    assert {event["kind"] for event in events(finished.path)} <= set(KINDS)
    steps = [event["step"] for event in events(finished.path) if event["kind"] == "evaluation"]
    assert steps == [0, 2, 4]
    phases = [event["text"] for event in events(finished.path) if event["kind"] == "phase"]
    assert phases[:3] == ["reading", "tokenising", "loading the model"]
    assert (finished.path / "report.html").is_file()


def test_running_it_again_changes_nothing(finished, world):
    before = (finished.path / "events.jsonl").read_bytes()
    Trained(world, "finished", **QUICK)
    assert (finished.path / "events.jsonl").read_bytes() == before


def test_a_run_that_diverges_says_so_and_has_a_report(world):
    with pytest.raises(DivergedError) as caught:
        Trained(world, "diverged", optim__learning_rate=1e30, **QUICK)
    last = [event for event in events(world / "diverged") if event["kind"] == "failed"]
    assert [event["text"] for event in last] == [str(caught.value)]
    assert last[0]["level"] == "error"
    assert (world / "diverged" / "report.html").is_file()
    assert not (world / "diverged" / "summary.json").exists()


@pytest.fixture
def run(tmp_path):
    with RunDir.open(tmp_path / "run") as run:
        yield run


@pytest.mark.parametrize("error", [CheckpointError("no"), Interrupted("stopped", 15)])
@pytest.mark.parametrize("before", ["nothing", "an attempt that failed early", "a run"])
def test_an_attempt_that_is_refused_leaves_no_trace(run, error, before):
    if before == "a run":
        run.config.write_text("config: {}\n")
    if before != "nothing":
        run.events.write_text('{"kind": "started"}\n')
    before = sorted((p.name, p.read_bytes()) for p in run.path.iterdir() if p != run.lock)
    with pytest.raises(type(error)), attempt(run, Console()) as log:
        log.add("note", "held back, or forgotten")
        raise error
    assert sorted((p.name, p.read_bytes()) for p in run.path.iterdir() if p != run.lock) == before


def test_once_released_it_tells_how_it_ended(run):
    run.config.write_text("config: {}\n")
    with pytest.raises(Interrupted), attempt(run, Console()) as log:
        assert not run.events.exists()
        log.release()
        assert kinds(run.path, *KINDS) == ["started"]
        raise Interrupted("stopped by SIGTERM", 15)
    told = [event for event in events(run.path) if event["kind"] == "interrupted"]
    assert [(event["level"], event["text"]) for event in told] == [
        ("warning", "stopped by SIGTERM")
    ]


def test_a_fault_of_ours_keeps_its_name(run):
    with pytest.raises(ZeroDivisionError), attempt(run, Console()):
        raise ZeroDivisionError("of what?")
    assert events(run.path)[-1]["text"] == "ZeroDivisionError: of what?"


def test_the_command_is_told_without_its_secrets(run, monkeypatch):
    secret = "alerts.webhook=https://host/secret"
    words = ["/bin/sft", "train", "a b.yaml", "--set", secret, f"--set={secret}"]
    monkeypatch.setattr(sys, "argv", words)
    with attempt(run, Console()):
        pass
    command = events(run.path)[0]["command"]
    assert command == "sft train 'a b.yaml' --set alerts.webhook=... --set=alerts.webhook=..."


def test_examples_are_shown_as_the_model_sees_them(finished):
    shown = json.loads((finished.path / "examples.json").read_text())
    views = shown["views"]
    assert {view["part"] for view in views} == {"train", "val"}
    num_train = sum(view["part"] == "train" for view in views)
    assert num_train == 32
    for view in views:
        trained = "".join(text for text, kind, _special in view["pieces"] if kind == "trained")
        assert trained.startswith("It is ")
        assert 0 < view["trained"] < view["tokens"]
        assert not view["cut"]
    lengths = [view["tokens"] for view in views if view["part"] == "train"]
    quantiles = shown["lengths"]["all_quantiles"]
    assert (min(lengths), max(lengths)) == (quantiles[0], quantiles[3])


def test_a_run_can_be_started_again_from_its_own_config(finished, world):
    options = read_run_options(finished.path / "config.yaml")
    same = train(load_config(options, origins=("file", "flag")), Console())
    assert same.best == finished.summary.best
    again = load_config(options, {"run.dir": str(world / "again")}, origins=("file", "flag"))
    train(again, Console())
    equal = [left_behind(world / name) for name in ("finished", "again")]
    differs = {name for name, digest in equal[0].items() if equal[1][name] != digest}
    # config.yaml names the folder; the card the settings that were chosen, not left to `auto`.
    assert differs <= {"config.yaml", "model/README.md"}
