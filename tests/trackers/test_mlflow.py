"""What MLflow itself reads from its local store."""

import math

import pytest

from sft.runs.events import EventLog
from sft.trackers.follow import Followers
from sft.trackers.installed import missing
from sft.trackers.session import send
from tracked import SIX, begin, cut_back, end, new_run, step_record, write_steps

if missing("mlflow"):
    pytest.skip(missing("mlflow"), allow_module_level=True)
pytest.importorskip("sqlalchemy")


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def only_run(client, experiment="sft"):
    found = client.get_experiment_by_name(experiment)
    [run] = client.search_runs([found.experiment_id])
    return run


def history(client, run, name):
    found = client.get_metric_history(run.info.run_id, name)
    return sorted((metric.step, metric.value, metric.timestamp) for metric in found)


def test_every_value_is_there_once_after_two_attempts(tmp_path, client):
    run, config = new_run(tmp_path / "my run", {"trackers.mlflow": True})
    for first, last, ending in ((1, 7, "interrupted"), (5, 12, "finished")):
        if first == 5:
            cut_back(run, 4)
            assert only_run(client).info.status == "KILLED"
        with Followers(run, config, print) as followers:
            followers._names = ["mlflow"]
            begin(run)
            followers.start()
            write_steps(run, first, last)
            EventLog(run.events).add("alarm", "it overfits", step=last, guard="overfitting")
            end(run, ending)
            wait_for(client, last)
    sent = only_run(client)
    for name in (*SIX, "tokens_per_second", "seconds"):
        values = [(step, value) for step, value, _ in history(client, sent, name) if step]
        assert values == [(s, step_record(s)[name]) for s in range(1, 13)], name
    assert [step for step, _, _ in history(client, sent, "val_loss")] == [0, 4, 8, 12]
    norms = client.get_metric_history(sent.info.run_id, "grad_norm")
    assert [m.step for m in norms if math.isnan(m.value)] == [3]
    assert len([name for name in sent.data.metrics if name.startswith("loss_by_source/b")]) == 1
    times = [time for _, _, time in history(client, sent, "loss")]
    assert times == sorted(times) and times[-1] - times[0] == pytest.approx(6000, abs=2)
    assert (sent.info.run_name, sent.info.status) == ("my run", "FINISHED")
    assert sent.data.params["batch.examples"] == str(config.batch.examples)
    assert sent.data.tags["sft.alarm.overfitting"] == "step 12: it overfits"
    assert sent.data.tags["sft.guard/overfitting"] == "pass"


def wait_for(client, last):
    """The first start of a database takes longer than the end of a run waits."""
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = client.get_experiment_by_name("sft")
        runs = client.search_runs([found.experiment_id]) if found else []
        if runs and (last, step_record(last)["loss"]) in [
            (step, value) for step, value, _ in history(client, runs[0], "loss")
        ]:
            return
        time.sleep(0.1)


def test_a_request_whose_answer_was_lost_changes_nothing(tmp_path, client):
    run, config = new_run(tmp_path / "run", {"trackers.project": "mine"})
    write_steps(run, 1, 4)
    assert send(run, "mlflow", config) == 6
    place = run.trackers / "mlflow.json"
    text = place.read_text()
    write_steps(run, 5, 12)
    end(run)
    assert send(run, "mlflow", config) == 10
    place.write_text(text)  # as if the answers had been lost
    assert send(run, "mlflow", config) == 10
    sent = only_run(client, "mine")
    assert [step for step, _, _ in history(client, sent, "loss")] == [*range(1, 13)]
