import json
import os

import pytest

from sft.config import dump_yaml, load_config
from sft.guards.base import Finding
from sft.runs.events import EventLog
from sft.runs.index import find_runs, list_runs, run_id, run_row
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore


def make(path, records=(), findings=(), summary=None, **values):
    run = RunDir(path)
    path.mkdir(parents=True)
    config = load_config({}, {"data.train": ["rows.jsonl"], **values})
    run.config.write_text(dump_yaml({"config": config.model_dump(mode="json"), "num_steps": 8}))
    for target, lines in ((run.metrics, records), (run.findings, findings)):
        with RecordStore(target) as store:
            for line in lines:
                store.append(line)
    if summary is not None:
        run.summary.write_text(json.dumps(summary))
    return run


def step(number, loss=1.0):
    return {"step": number, "loss": loss, "epoch": number / 8, "seconds": 2.0 * number}


def evaluation(number, val, **more):
    return {"step": number, "epoch": number / 8, "val_loss": val, "eval_seconds": 1.0} | more


def finding(verdict, number, signal="a", primary=True):
    return Finding("health", signal, verdict, number, "so it is", primary=primary).record()


RECORDS = (evaluation(0, 3.0), step(1), evaluation(1, 2.0), step(2, 0.5), evaluation(2, 2.5))


def test_the_row_of_a_run_that_goes_on(tmp_path):
    findings = [
        finding("alarm", 1),
        finding("pass", 2),
        finding("watch", 2, "b"),
        finding("alarm", 2, "c", primary=False),
    ]
    run = make(tmp_path / "a", RECORDS, findings, **{"optim.learning_rate": 1e-4})
    EventLog(run.events).add("started", "process 1")
    row = run_row(run)
    assert (row.name, row.path, row.id) == ("a", str(tmp_path / "a"), run_id(tmp_path / "a"))
    assert (row.step, row.num_steps, row.epoch, row.seconds) == (2, 8, 0.25, 4.0)
    assert (row.loss, row.val_loss, row.best_val_loss, row.best_step) == (0.5, 2.5, 2.0, 1)
    assert row.verdicts == {"health": "watch"}  # the worst primary one of the last evaluation
    assert (row.model, row.data, row.method) == ("starter", ["rows.jsonl"], "full")
    assert row.config["optim.learning_rate"] == 1e-4
    assert row.config["guards.margin"] == 0.02
    assert row.started.startswith("20")
    assert json.loads(json.dumps(row.record(), allow_nan=False)) == row.record()


def test_the_row_of_a_finished_run_is_that_of_its_summary(tmp_path):
    summary = {
        "steps": 2,
        "best_step": 2,
        "stopped": None,
        "best": {"step": 2, "val_loss": 1.5, "blend_alpha": 0.5},
        "guards": [finding("alarm", 2)],
    }
    row = run_row(make(tmp_path / "a", RECORDS, summary=summary))
    assert (row.state, row.best_step, row.best_val_loss) == ("finished", 2, 1.5)
    assert row.verdicts == {"health": "alarm"}


def test_usage_chooses_the_best_step_before_val(tmp_path):
    records = [
        evaluation(0, 3.0, usage_loss=3.0),
        evaluation(1, 1.0, usage_loss=2.0),
        evaluation(2, 2.0, usage_loss=1.0),
    ]
    row = run_row(make(tmp_path / "a", records))
    assert (row.best_step, row.best_val_loss, row.loss) == (2, 2.0, None)


def test_runs_are_found_in_folders_and_by_themselves(tmp_path):
    for name in ("a", "b"):
        make(tmp_path / "runs" / name)
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / ".tmp-1").mkdir()
    folders = [tmp_path / "runs", tmp_path / "runs" / "a", tmp_path / "nowhere", tmp_path]
    assert [run.path.name for run in find_runs(folders)] == ["a", "b"]
    assert [run.path.name for run in find_runs([tmp_path / "runs" / "b"])] == ["b"]
    assert find_runs([]) == []


def test_the_newest_comes_first(tmp_path):
    for name, age in (("old", 500), ("new", 100), ("oldest", 900)):
        run = make(tmp_path / name, RECORDS)
        when = run.metrics.stat().st_mtime - age
        for path in (*run.path.iterdir(), run.path):
            os.utime(path, (when, when))
    assert [row.name for row in list_runs([tmp_path])] == ["new", "old", "oldest"]


def test_a_row_follows_its_files(tmp_path):
    run = make(tmp_path / "a", RECORDS)
    assert run_row(run).loss == 0.5
    with RecordStore(run.metrics) as store:
        store.append(step(3, 0.25))
        store.append(evaluation(3, 1.0))
    row = run_row(run)
    assert (row.step, row.loss, row.best_step) == (3, 0.25, 3)
    run.metrics.write_text(json.dumps(step(1, 0.75)) + "\n")
    row = run_row(run)
    assert (row.step, row.loss, row.best_step) == (1, 0.75, None)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("config.yaml", "config: [", "config.yaml"),
        ("config.yaml", "a" * 2_000_000, "larger than 1 MB"),
    ],
)
def test_a_bad_run_is_a_row_too(tmp_path, name, text, told):
    make(tmp_path / "good")
    run = make(tmp_path / "bad")
    (run.path / name).write_text(text)
    rows = {row.name: row for row in list_runs([tmp_path])}
    assert rows["good"].detail == "nothing was recorded"
    assert rows["bad"].state == "unknown"
    assert told in rows["bad"].detail


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", "config: {model: 5, data: {train: [{a: 1}, x]}, method: {kind: [1]}}\n"),
        ("metrics.jsonl", '{"step": 1, "loss": null, "loss_nonfinite": "nan"}\n{"val_loss": []}\n'),
        ("findings.jsonl", '{"guard": {}, "verdict": []}\n{"step": 1}\n{"verdict": "pass"}\n'),
        ("summary.json", '{"best_step": "x", "best": 5, "guards": {"a": 1}, "stopped": 7}'),
        ("summary.json", '{"guards": [5, {"guard": "health"}], "best_step": 1e300}'),
        ("events.jsonl", '{"kind": "started", "time": "yesterday"}\n' + "x" * 1_000_000 + "\n"),
    ],
)
def test_odd_files_are_rows(tmp_path, name, text):
    run = make(tmp_path / "odd", RECORDS)
    (run.path / name).write_text(text)
    row = run_row(run)
    assert not row.detail.startswith(("TypeError", "KeyError", "AttributeError", "ValueError"))
    json.dumps(row.record(), allow_nan=False).encode()


def test_a_name_that_is_no_text_can_be_shown(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9")
    make(path)
    row = run_row(RunDir(path))
    assert len(row.id) == 12
    json.dumps(row.record(), ensure_ascii=False).encode()
