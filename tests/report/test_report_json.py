import json
import os
import shutil
import socket
from datetime import UTC, datetime

import pytest

from report.run_folders import EVENTS, FILE, append, edit, events, finished_run, unfinished_run
from sft.report.report_json import report_json
from sft.runs.run_dir import RunDir
from sft.runs.run_records import read_run


def told(run):
    return report_json(read_run(run))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs") / "mine", evaluated=True)


@pytest.fixture(scope="module")
def found(run):
    return told(run)


def test_everything_is_told_of_a_run_that_has_everything(found):
    assert found["schema"] == 1 and found["problems"] == []
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(found.values()) or found["problems"] == []
    run = found["run"]
    assert (run["state"], run["step"], run["num_steps"], run["chosen_step"]) == (
        "finished",
        12,
        12,
        8,
    )
    assert (run["chosen_by"], run["evals_to_choose_from"]) == ("val", 3)
    assert run["checkpoints"] == [4, 8, 12]


def sources(value):
    if isinstance(value, dict):
        if set(value) == {"file", "where"}:
            yield value
        for part in value.values():
            yield from sources(part)
    elif isinstance(value, list):
        for part in value:
            yield from sources(part)


def test_every_claim_says_where_it_comes_from(run, found):
    for claim in found["answer"]["claims"]:
        assert claim["sources"], claim["id"]
    files = {source["file"] for source in sources(found)}
    assert {"scores.jsonl", "metrics.jsonl", "findings.jsonl", "eval-held_out.json"} <= files
    assert [name for name in files if not (run.path / name).is_file()] == []


def test_verdicts_of_the_last_eval_and_of_the_model(found):
    rows = {row["guard"]: row for row in found["verdicts"]}
    assert [row["called"] for row in found["verdicts"]] == [
        "watch",
        "nothing seen",
        "not measured",
        "too little data to tell",
        "nothing seen",
    ]
    assert rows["overfitting"]["at_chosen"] == "nothing seen"
    assert rows["overfitting"]["chosen_step"] == 8
    assert (rows["overfitting"]["statistic"], rows["overfitting"]["mde"]) == (0.25, 0.1)
    assert rows["overfitting"]["remedy"] == "do `this` about it"


def test_not_measured_and_insufficient_have_a_list_of_their_own(found):
    text = "\n".join(found["not_measured"])
    for part in ("Test rows: none", "Usage rows: none", "Distribution mismatch: not measured"):
        assert part in text
    assert "Forgetting: too little data to tell" in text
    assert "The learning rate was not recorded" in text
    assert "Validation rows: none" not in text and "Written answers" not in text


def test_guards_that_were_off_measured_nothing(tmp_path):
    nothing = {"guards": [], "indicators": []}
    run = finished_run(tmp_path / "mine", guards__enabled=False, best=nothing)
    run.findings.unlink()
    rows = told(run)["verdicts"]
    assert {row["verdict"] for row in rows} == {"not_measured"}
    assert {row["message"] for row in rows} == {"Not measured: the guards were off."}


def test_the_account_counts_every_row(found):
    rows = found["data"]["rows"]
    assert (rows["total"], rows["used"]) == (64, 49)
    lines = [(line["count"], line["status"], line["reason"]) for line in rows["lines"]]
    assert lines == [
        (48, "used", ""),
        (1, "truncated", "longer than 256 tokens"),
        (12, "val", ""),
        (2, "dropped", "a copy"),
        (1, "bad", "no answer"),
    ]
    assert rows["lines"][3]["places"] == [f"{FILE}:61", f"{FILE}:62"]
    assert rows["lines"][0]["places"] == []


def test_rows_that_are_only_counted_are_not_lost(tmp_path):
    run = finished_run(tmp_path / "mine")
    edit(run.account, lambda a: {**a, "counts": {**a["counts"], "used": 1048}})
    rows = told(run)["data"]["rows"]
    assert rows["used"] == 1049
    assert sum(line["count"] for line in rows["lines"] if line["status"] == "used") == 1048


def test_lengths_views_and_usage(found):
    data = found["data"]
    assert data["lengths"]["all"]["quantiles"]["median"] == 15
    assert [view["tokens"] for view in data["views"]] == [10, 12, 14]
    assert [piece["kind"] for piece in data["views"][0]["pieces"]] == [
        "masked",
        "masked",
        "trained",
        "partly",
    ]
    assert (data["usage"]["uncovered"], data["usage"]["n"]) == (2, 20)
    assert data["usage"]["groups"][0]["rows"][0]["text"] == "Wo ist mein Paket?"
    assert [fact["name"] for fact in data["usage"]["differs"]] == ["language"]


def test_samples_stand_side_by_side(found):
    (row,) = found["samples"]["rows"]
    assert row["base"]["text"] == "answer of step 0" and row["base"]["cut"]
    assert row["trained"]["text"] == "answer of step 8" and not row["trained"]["cut"]
    assert row["reference"] == "It is on its way."
    assert found["samples"]["exact"]


def test_samples_of_the_nearest_eval_say_so(tmp_path):
    run = finished_run(tmp_path / "mine", best={"best_step": 4})
    samples = told(run)["samples"]
    assert (samples["step"], samples["exact"]) == (8, False)


def test_without_samples_those_of_an_evaluation(tmp_path):
    run = finished_run(tmp_path / "mine", evaluated=True)
    run.samples.unlink()
    (row,) = told(run)["samples"]["rows"]
    assert (row["base"]["text"], row["trained"]["text"]) == ("Hello hello", "{}")


def test_settings_say_who_chose_them(found):
    rows = {row["key"]: row for row in found["settings"]}
    assert rows["optim.learning_rate"]["source"] == "flag"
    assert rows["eval.every"]["source"] == "auto"
    assert rows["eval.every"]["reason"] == "about 3 evaluations in 12 steps"
    assert rows["optim.epochs"]["source"] == "default"
    train = rows["data.train"]
    assert (train["value"], train["source"]) == (f"[{{path: {FILE}, weight: 2}}]", "file")


def test_how_to_do_it_again(run, found):
    again = found["reproduce"]
    assert again["again"] == f"sft train {run.config} --run {run.path}-again"
    assert again["started"] == ["sft train x.yaml"] * 2
    assert again["files"] == {FILE: "ab" * 32}
    assert again["versions"]["threads"] == "2"


def test_secrets_are_left_out(tmp_path):
    secret = "hf_" + "a1" * 12
    run = unfinished_run(tmp_path / "mine", model__name=f"https://me:{secret}@host/model")
    text = f"401 for https://me:pass@host/x with token {secret}"
    append(run.events, *events(("failed", text, {"level": "error"}))[len(EVENTS) :])
    shown = json.dumps(told(run))
    assert secret not in shown and "me:pass" not in shown
    assert "https://host/model" in shown


def test_incidents_with_their_times(found):
    told = found["incidents"]
    assert (told["attempts"], told["resumes"], told["interruptions"]) == (2, 1, 1)
    kinds = [row["kind"] for row in told["rows"]]
    assert kinds == ["started", "interrupted", "started", "resumed", "watch", "finished"]
    assert told["rows"][1]["time"] == "2026-03-01 12:00:02 UTC"
    assert told["rows"][1]["mark"] == "warning"
    assert told["elapsed"] == "8.0 s"


def test_curves_are_those_of_the_records(found):
    curves = found["curves"]
    loss = curves["lines"]["loss"]
    assert loss["step"] == list(range(1, 13))
    assert loss["y"][0] == pytest.approx(1.92)
    assert loss["evaluations"]["val_loss"]["y"] == pytest.approx([2.0, 1.5, 1.0, 1.1])
    assert "Loss, nats per token from 1.920 at step 1 to 1.040 at step 12" in loss["words"]
    kinds = {(mark["kind"], mark["step"], mark["guard"]) for mark in curves["marks"]}
    assert {("watch", 12, "overfitting"), ("chosen", 8, ""), ("checkpoint", 8, "")} <= kinds
    assert curves["smoothing"] == pytest.approx(1 - 10 / 12)


# ------------------------------------------------------------------ runs that did not finish


def test_a_failed_run_says_so_first(tmp_path):
    run = unfinished_run(tmp_path / "mine", steps=8)
    more = ("failed", "loss is not finite at step 9", {"level": "error"})
    append(run.events, *events(more)[len(EVENTS) :])
    answer = told(run)["answer"]
    assert (answer["kind"], answer["title"]) == (
        "error",
        "Not finished: the run failed after step 8 of 12",
    )
    assert answer["sentences"] == [
        "Why: loss is not finite at step 9.",
        f"Its complete state is saved after step 8. This command continues it: "
        f"`sft train {run.config}`.",
        "No model was chosen or proven, so nothing is claimed about one.",
    ]
    assert answer["notes"] == [
        "The figures are those of step 8, the newest that was measured, as they stood."
    ]
    assert {claim["verdict"] for claim in answer["claims"]} == {"not judged: not finished"}
    assert not any("etter" in text for text in answer["sentences"])


def test_an_end_counts_while_the_run_is_still_held(tmp_path):
    run = unfinished_run(tmp_path / "mine", steps=4)
    with RunDir.open(run.path):
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        (end,) = events(("interrupted", "Ctrl-C", {}))[len(EVENTS) :]
        append(run.events, {**end, "time": now})  # of the attempt that holds the run
        title = told(run)["answer"]["title"]
    assert title == "Not finished: the run was interrupted after step 4 of 12"


def test_a_killed_run_and_one_that_is_going_on(tmp_path):
    run = unfinished_run(tmp_path / "mine", steps=4)
    holder = {"pid": 2**22 + 1, "host": socket.gethostname(), "started": "2026-03-01T00:00:00"}
    run.lock.write_text(json.dumps(holder))
    assert told(run)["answer"]["title"] == "Not finished: the run was killed after step 4 of 12"
    run.lock.write_text(
        json.dumps({**holder, "pid": os.getpid(), "started": datetime.now(UTC).isoformat()})
    )
    assert told(run)["answer"]["title"].startswith("Not finished: the run is still going (")


def test_a_run_that_has_just_begun(tmp_path):
    run = RunDir(tmp_path / "new")
    run.path.mkdir()
    run.lock.touch()
    found = told(run)
    assert found["problems"] == []
    assert "before the first step was made" in found["answer"]["title"]
    assert any("No checkpoint was saved" in text for text in found["answer"]["sentences"])


# ------------------------------------------------------------------ odd folders

NASTY = [
    b"",
    b"\n\n",
    b"null",
    b"[]\n[1, 2]\n",
    b'{"a": ',
    b"\xff\xfe\x00",
    b'{"step": "x", "rows": 3, "points": {}, "guards": 7, "config": [], "loss": "nan"}\n',
    b'{"step": 1e400, "probe": [], "nll": NaN, "tokens": -Infinity, "kind": {}, "time": 5}\n',
    b'{"step": -3, "id": null, "verdict": "pass", "guard": 3, "signal": null, "lengths": [1]}\n',
    b'{"step": 4, "val_loss": true, "best_step": [], "best": 5, "measures": {"x": 3}}\n',
    b'{"lengths": {"edges": ["x"], "all_counts": []}, "views": [{"pieces": [3, [1, 2, 3]]}]}\n',
    b"[" * 500,
    b'{"a": "' + b"x" * 200_000 + b'"}\n',
]


@pytest.mark.parametrize("content", NASTY, ids=range(len(NASTY)))
def test_a_folder_may_hold_anything(run, tmp_path, content):
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy"))
    names = [path.name for path in copy.path.iterdir() if path.is_file()]
    for name in names:
        original = (copy.path / name).read_bytes()
        (copy.path / name).write_bytes(content)
        found = told(copy)
        assert json.dumps(found, allow_nan=False)
        (copy.path / name).write_bytes(original)
    for name in names:
        (copy.path / name).write_bytes(content)
    found = told(copy)
    praise = ("Better than", "Better on", "Worse than")
    assert found["answer"] is None or not found["answer"]["title"].startswith(praise)


def test_folders_pipes_and_torn_lines_in_place_of_files(run, tmp_path):
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy"))
    for path in (copy.samples, copy.account):
        path.unlink()
        path.mkdir()
    copy.events.unlink()
    os.mkfifo(copy.events)
    with open(copy.metrics, "ab") as file:
        file.write(b'{"step": 13, "lo')
    found = told(copy)
    assert sorted(found["problems"]) == [
        "account.json: not a regular file",
        "events.jsonl: not a regular file",
        "samples.jsonl: not a regular file",
    ]
    assert found["run"]["step"] == 12


def test_values_that_are_not_finite_are_gaps(tmp_path):
    run = unfinished_run(tmp_path / "mine")
    append(run.metrics, {"step": 13, "loss": float("nan"), "grad_norm": float("inf")})
    loss = told(run)["curves"]["lines"]["loss"]
    assert loss["step"] == list(range(1, 13))
