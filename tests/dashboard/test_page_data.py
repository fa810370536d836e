import json
import math
import os
import time

import pytest

from sft.config import dump_yaml
from sft.dashboard.page_data import PAGE_DATA, compare
from sft.dashboard.page_data.series import main_metrics
from sft.errors import ConfigError
from sft.runs.events import EventLog
from sft.runs.metrics import METRICS
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore, read_records
from trained import Trained, make_world, write_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world):
    """A run whose answers all begin alike, measured on prompts of other words too."""
    usage = write_rows(world / "usage.jsonl", 12, lambda q, _: q.split()[-1], seed=3)
    return Trained(world, "mine", data__usage=[str(usage)])


@pytest.fixture(scope="module")
def run(trained):
    return RunDir(trained.path)


def ask(run, name, **query):
    """The answer, through JSON as a browser reads it."""
    found = PAGE_DATA[name](run, query)
    return json.loads(json.dumps(found, allow_nan=False, ensure_ascii=False).encode())


# ------------------------------------------------------------------ a real run


def test_snapshot(run, trained):
    found = ask(run, "snapshot")
    last = trained.steps[-1]
    assert (found["name"], found["state"]["state"]) == ("mine", "finished")
    assert (found["step"], found["num_steps"], found["epoch"]) == (12, 12, last["epoch"])
    assert found["latest"]["loss"] == last["loss"]
    assert found["latest"]["val_loss"] == trained.evals[-1]["val_loss"]
    assert found["evaluations"] == trained.evals
    assert found["elapsed_seconds"] == pytest.approx(
        last["seconds"] + sum(evaluation["eval_seconds"] for evaluation in trained.evals)
    )
    assert found["indicators"] == trained.summary.indicators
    assert found["verdicts"] == trained.summary.guards
    assert (found["best_step"], found["objective"]) == (trained.summary.best_step, "usage_loss")
    assert found["eta_seconds"] is None
    assert {"evaluation", "checkpoint", "finished"} <= {mark["kind"] for mark in found["marks"]}
    assert found["attempts"] == 1
    assert found["metrics"].keys() == METRICS.keys()
    assert all(found["metrics"][name]["watch"] for name in main_metrics())
    files = (run.metrics, run.events, run.findings, run.samples)
    assert found["cursor"] == "-".join(str(path.stat().st_size) for path in files)


def test_series(run, trained):
    found = ask(run, "series", smooth="0.5")
    assert found["total"] == 12
    assert found["series"]["loss"]["y"] == [record["loss"] for record in trained.steps]
    assert found["series"]["loss"]["smooth"]["y"][0] == trained.steps[0]["loss"]
    assert {"accuracy", "grad_norm", "tokens_per_second"} <= found["series"].keys()
    assert found["evaluations"]["val_loss"]["step"] == [0, 4, 8, 12]
    assert {"usage_loss", "retain_loss", "retain_kl"} <= found["evaluations"].keys()
    found = ask(run, "series", names="loss,val_loss,nonsense", x="tokens", to="0")
    assert found["series"].keys() == {"loss", "nonsense"}
    assert found["series"]["nonsense"]["x"] == found["series"]["loss"]["x"] == []
    assert found["evaluations"]["val_loss"]["x"] == [0]


@pytest.mark.parametrize(
    "query", [{"x": "stepp"}, {"from": "a"}, {"width": "nan"}, {"smooth": "1e999"}]
)
def test_a_query_that_makes_no_sense_is_told(run, query):
    with pytest.raises(ConfigError, match=next(iter(query))):
        PAGE_DATA["series"](run, query)


def test_guards(run, trained):
    found = ask(run, "guards")
    findings = read_records(run.findings)
    assert found["verdicts"] == trained.summary.guards
    assert found["findings"] == [record for record in findings if record["step"] == 12]
    assert found["signals"].keys() == {f"{f['guard']}.{f['signal']}" for f in findings}
    retention = found["signals"]["forgetting.retention"]
    recorded = [f for f in findings if f["signal"] == "retention" and f["guard"] == "forgetting"]
    assert retention["primary"]
    assert [p["step"] for p in retention["points"]] == [0, 4, 8, 12]
    assert [p["statistic"] for p in retention["points"]] == [f["statistic"] for f in recorded]
    assert retention["points"][-1]["low"] == recorded[-1]["interval"][0]
    assert found["actions"]["overfitting"] == "restore_best"
    assert found["settings"]["forgetting_budget"] == 0.05
    assert "blend" not in found["actions"]


def test_evidence_is_from_the_records(run):
    found = ask(run, "guards")["evidence"]
    groups = {group["title"]: group["items"] for groups in found.values() for group in groups}
    now = groups["how answers open after step 12"]
    texts = [s["answer"] for s in read_records(run.samples) if s["step"] == 12]
    assert sum(int(item["figure"].split()[0]) for item in now) == len([t for t in texts if t])
    title = "rows of retain whose loss rose most, step 12 against the base model"
    scores = [s for s in read_records(run.scores) if s["probe"] == "retain"]
    loss = {(s["step"], s["id"]): s["nll"] / s["tokens"] for s in scores}
    rises = {name: loss[12, name] - loss[0, name] for step, name in loss if step == 0}
    worst = max(rises, key=rises.get)
    assert groups[title][0]["id"] == worst
    assert groups[title][0]["figure"].startswith(f"{rises[worst]:+.3f} nats per token")


def test_samples(run):
    found = ask(run, "samples")
    records = read_records(run.samples)
    assert found["steps"] == sorted({record["step"] for record in records})
    row = found["rows"][0]
    mine = [r for r in records if (r["probe"], r["id"]) == (row["probe"], row["id"])]
    assert len(mine) == 3
    assert row["prompt"] == mine[0]["prompt"]
    assert [a["answer"] for a in row["answers"]] == [r["answer"] for r in mine]
    assert [a["step"] for a in row["answers"]] == [r["step"] for r in mine]


def test_data(run, trained):
    found = ask(run, "data")
    counts = {r["status"]: r["count"] for r in found["account"]["reasons"]}
    assert counts == {"used": 48, "val": 12}
    assert found["account"]["counts"] == trained.account["counts"]
    assert found["account"]["files"] == trained.account["files"]
    assert found["usage"] == found["preflight"]["usage"]
    assert found["usage"]["n"] == 12
    assert found["lengths"]["num_tokens"] > 0
    assert {view["part"] for view in found["views"]} == {"train", "val"}


def test_config(run):
    found = ask(run, "config")
    rows = {row["key"]: row for row in found["rows"]}
    assert rows["optim.learning_rate"]["value"] == 3e-3
    assert rows["optim.learning_rate"]["default"] == "auto"
    assert rows["data.max_seq_len"]["source"] == "auto"
    assert rows["data.max_seq_len"]["reason"]
    assert rows["optim.beta1"]["source"] == "default"
    assert found["resume"] == f"sft train {run.config}"
    assert found["rerun"] == f"sft train {run.config} --run {run.path}-again"
    assert found["num_steps"] == 12
    assert found["versions"]["torch"]


def test_events(run):
    everything = ask(run, "events")
    assert everything["total"] == len(everything["events"]) > 5
    assert everything["events"][0]["kind"] == "started"
    assert ask(run, "events", limit="2")["events"] == everything["events"][-2:]


def test_compare(run, trained, world):
    other = Trained(
        world, "worse", optim__learning_rate=1e-6, data__usage=trained.config.data.usage
    )
    found = compare([run, RunDir(other.path), RunDir(world / "nowhere")], {"probe": "val"})
    json.dumps(found, allow_nan=False)
    assert [row["name"] for row in found["runs"]] == ["mine", "worse", "nowhere"]
    rates = next(row for row in found["config"] if row["key"] == "optim.learning_rate")
    assert (rates["values"], rates["same"]) == ([3e-3, 1e-6, None], False)
    first, second = found["paired"]
    assert (first["a"], first["b"], first["n"], first["verdict"]) == ("mine", "worse", 12, "worse")
    assert first["low"] < first["difference"] < first["high"]
    assert "worse than A by" in first["sentence"]
    assert "no such run folder" in second["error"]
    with pytest.raises(ConfigError, match="probe: found 'vall'"):
        compare([run], {"probe": "vall"})


# ------------------------------------------------------------------ a run that goes on


def test_time_left_and_marks_of_a_run_that_goes_on(tmp_path):
    config = {"config": {"eval": {"every": 10}}, "num_steps": 25}
    with RunDir.open(tmp_path / "live") as live, RecordStore(live.metrics) as metrics:
        live.config.write_text(dump_yaml(config))
        EventLog(live.events).add("resumed", "from step 8", step=8)
        metrics.append({"step": 0, "epoch": 0.0, "val_loss": 2.0, "eval_seconds": 7.0})
        for step, seconds in ((1, 2.0), (2, 4.0)):
            metrics.append({"step": step, "loss": 1.0, "seconds": seconds})
        assert ask(live, "snapshot")["eta_seconds"] is None  # before three steps
        metrics.append({"step": 3, "loss": 1.0, "seconds": 9.0, "tokens_per_second": 5.0})
        metrics.append({"step": 4, "loss": 1.0, "seconds": 11.0, "tokens_per_second": 7.0})
        later = time.time() + 1  # than the event
        os.utime(live.metrics, (later, later))
        found = ask(live, "snapshot")
    assert found["state"]["state"] == "training"
    # 21 steps of 2 seconds (2, 5, 2), and evaluations after steps 10, 20 and 25.
    assert found["eta_seconds"] == pytest.approx(21 * 2.0 + 3 * 7.0)
    assert found["eta_low"] == pytest.approx(21 * 2.0 + 3 * 7.0)
    assert found["eta_high"] == pytest.approx(21 * 4.4 + 3 * 7.0)
    assert found["tokens_per_second"] == 6.0
    assert [(mark["kind"], mark["step"]) for mark in found["marks"]] == [("resumed", 8)]


def test_indicators_are_told_while_the_run_goes_on(trained, tmp_path):
    live = RunDir(tmp_path)
    for path in RunDir(trained.path).path.iterdir():
        if path.is_file() and path.name != "summary.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert ask(live, "snapshot")["indicators"] == trained.summary.indicators


# ------------------------------------------------------------------ odd folders

SECRET = "https://user:pass@hooks.example.com/T00/secret?key=1"
HOSTILE = "</script><img src=x onerror=alert(1)> \u202e \x1b[31m \udc80"
OBJECTS = ("config.yaml", "summary.json", "account.json", "preflight.json", "examples.json")
ODD = {
    "nothing": {},
    "only a config": {"config.yaml": "config: {}\n"},
    "an empty file of metrics": {"config.yaml": "config: {}\n", "metrics.jsonl": ""},
    "broken": dict.fromkeys(OBJECTS, "{ not JSON"),
    "lists instead of objects": dict.fromkeys(OBJECTS, "[1, 2]\n"),
    "other shapes": {
        "config.yaml": "config: {guards: 5, eval: [], model: x}\nreasons: []\nsources: 7\n",
        "summary.json": '{"guards": 5, "indicators": [7], "best": [], "best_step": []}',
        "account.json": '{"rows": [1, {"row": [], "status": {}}], "counts": 5, "notes": {}}',
        "preflight.json": '{"usage": {"uncovered": [1, {"p": "x"}]}, "rows": {"leaks": [1]}}',
        "examples.json": '{"views": [1, {"pieces": [1, []]}], "lengths": 5}',
        "metrics.jsonl": '{"step": [], "loss": {}}\n{"step": 1, "loss": {"a": 1}}\n{"epoch": 1}\n',
        "scores.jsonl": '{"step": 0, "nll": "x"}\n{"step": 1, "id": {}, "nll": 1, "tokens": 1}\n',
        "samples.jsonl": '{"step": 0}\n{"step": "x"}\n{"step": 1, "answer": 5, "prompt": []}\n',
        "findings.jsonl": '{"guard": [], "interval": 5}\n{"interval": [1, "x"], "verdict": {}}\n',
        "events.jsonl": '{"kind": [], "time": {}}\n{"text": "' + "x" * 1_000_000 + '"}\n',
    },
    "NaN": {
        "metrics.jsonl": '{"step": 1, "loss": null, "loss_nonfinite": "nan"}\n'
        '{"step": 2, "loss": NaN}\n{"step": 3, "epoch": Infinity, "eval_seconds": 1e999}\n',
        "preflight.json": '{"usage": {"n": NaN, "p_values": {"a": 1e999}}}',
        "summary.json": '{"best": {"val_loss": NaN}, "indicators": [{"evidence": Infinity}]}',
    },
    "hostile text": {
        "samples.jsonl": json.dumps({"step": 1, "prompt": HOSTILE, "id": HOSTILE}) + "\n",
        "events.jsonl": json.dumps({"kind": "evaluation", "text": HOSTILE}) + "\n",
    },
}


@pytest.mark.parametrize("name", PAGE_DATA)
@pytest.mark.parametrize("files", ODD.values(), ids=ODD.keys())
def test_odd_folders_are_answered(tmp_path, name, files):
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    found = ask(RunDir(tmp_path), name)
    assert isinstance(found, dict)


def test_pipes_are_not_opened(tmp_path):
    run = RunDir(tmp_path)
    paths = (run.metrics, run.scores, run.samples, run.findings, run.events, run.summary)
    for path in (*paths, run.account, run.preflight, run.examples, run.config, run.lock):
        os.mkfifo(path)  # whoever opens it waits for a writer that never comes
    for name in PAGE_DATA:
        assert isinstance(ask(run, name), dict)


def test_text_of_data_is_handed_on_as_it_is(tmp_path):
    (tmp_path / "samples.jsonl").write_text(ODD["hostile text"]["samples.jsonl"])
    row = ask(RunDir(tmp_path), "samples")["rows"][0]
    assert row["prompt"].startswith("</script><img src=x onerror=alert(1)> \u202e \x1b[31m ")


def test_what_could_not_be_read_is_told(tmp_path):
    for file, text in ODD["broken"].items():
        (tmp_path / file).write_text(text)
    run = RunDir(tmp_path)
    assert "account.json" in ask(run, "data")["problems"][0]
    assert "config.yaml" in ask(run, "config")["problems"][0]


def test_reasons_that_differ_in_numbers_are_one(tmp_path):
    rows = [{"row": f"a:{n}", "status": "dropped", "reason": f"{n} tokens"} for n in range(500)]
    rows += [{"row": "b:1", "status": "bad", "reason": "no answer"}]
    (tmp_path / "account.json").write_text(json.dumps({"rows": rows}))
    reasons = ask(RunDir(tmp_path), "data")["account"]["reasons"]
    assert [(r["status"], r["reason"], r["count"], len(r["rows"])) for r in reasons] == [
        ("dropped", "# tokens", 500, 200),
        ("bad", "no answer", 1, 1),
    ]


def test_where_alerts_go_is_not_shown(tmp_path):
    run = RunDir(tmp_path)
    alerts = {"url": SECRET, "command": "notify --token abc", "on": "alarm"}
    run.config.write_text(
        dump_yaml({"config": {"alerts": alerts}, "sources": {"alerts.url": "flag"}})
    )
    shown = json.dumps([ask(run, name) for name in PAGE_DATA] + [compare([run, run], {})])
    assert "secret" not in shown
    assert "pass@" not in shown
    assert "abc" not in shown
    rows = {row["key"]: row["value"] for row in ask(run, "config")["rows"]}
    assert rows == {
        "alerts.url": "https://hooks.example.com/...",
        "alerts.command": "notify ...",
        "alerts.on": "alarm",
    }


def test_an_old_run_has_marks_and_no_sources(tmp_path):
    run = RunDir(tmp_path)
    run.config.write_text(dump_yaml({"config": {"optim": {"learning_rate": 0.5, "beta1": 0.9}}}))
    run.metrics.write_text('{"step": 4, "epoch": 1.0, "val_loss": 2.0}\n')
    run.summary.write_text(
        '{"steps": 4, "stopped": "plateau", "verified": "equal", "best_step": 4}'
    )
    found = ask(run, "snapshot")
    assert [mark["kind"] for mark in found["marks"]] == ["evaluation", "stopped", "finished"]
    assert found["evaluations"][0]["val_loss"] == 2.0
    assert found["attempts"] is None
    sources = {row["key"]: row["source"] for row in ask(run, "config")["rows"]}
    assert sources == {"optim.learning_rate": "given", "optim.beta1": "default"}


def test_a_run_of_another_trainer_is_not_run_again_by_sft(tmp_path):
    run = RunDir(tmp_path)
    saved = {"config": {"run": {"seed": 1}}, "template": {"source": "the trainer's tokenizer"}}
    run.config.write_text(dump_yaml(saved))
    run.metrics.write_text(
        '{"step": 4, "loss": 1.0}\n{"step": 4, "epoch": 1.0, "eval_seconds": 2.0}\n'
    )
    found = ask(run, "config")
    assert (found["rerun"], found["resume"]) == (None, None)
    assert ask(run, "snapshot")["elapsed_seconds"] is None  # its trainer does not tell
    saved["template"] = {}
    run.config.write_text(dump_yaml(saved))
    assert ask(run, "config")["resume"] == f"sft train {run.config}"


def test_long_runs_are_thinned(tmp_path):
    run = RunDir(tmp_path)
    evals = ({"step": n, "epoch": 1.0, "val_loss": 1.0, "eval_seconds": 1.0} for n in range(3000))
    run.metrics.write_text("".join(json.dumps(evaluation) + "\n" for evaluation in evals))
    findings = (
        {
            "guard": "health",
            "signal": "spikes",
            "step": n,
            "verdict": "pass",
            "statistic": 9.0 * (n == 777),
        }
        for n in range(3000)
    )
    run.findings.write_text("".join(json.dumps(finding) + "\n" for finding in findings))
    steps = [evaluation["step"] for evaluation in ask(run, "snapshot")["evaluations"]]
    assert (len(steps), steps[:2], steps[-1]) == (1000, [0, 2001], 2999)
    points = ask(run, "guards")["signals"]["health.spikes"]["points"]
    assert len(points) <= 400
    assert {0, 777, 2999} <= {point["step"] for point in points}
    assert len(ask(run, "series", width="50")["evaluations"]["val_loss"]["x"]) <= 100


def test_a_value_that_is_not_finite_is_null(tmp_path):
    with RecordStore(tmp_path / "metrics.jsonl") as store:
        store.append({"step": 1, "loss": 1.0, "grad_norm": math.nan})
    found = ask(RunDir(tmp_path), "snapshot")["latest"]
    assert found["grad_norm"] is None
    assert found["loss"] == 1.0
