"""Evaluations of whole runs: what they record, what the guards say, and what is done about it."""

import json
import math
import shutil

import pytest
from safetensors.torch import load_file

from sft.errors import CheckpointError
from sft.guards.base import Finding
from sft.guards.judge import GUARDS
from sft.runs.history import history_of, replay
from sft.runs.metrics import deterministic
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records
from trained import WORDS, Trained, loss_of, make_world, write_rows

PROBES = {"train_probe", "val", "usage", "usage_drift", "retain"}
NUM_ANSWERED, NUM_ASKED, NUM_TEST, NUM_TEXTS = 9, 7, 5, 8
SHORT = {"optim__max_steps": 4, "eval__every": 2, "checkpoint__keep": 9}
# Answers that nothing predicts, seen again and again.
NOISE = {
    "optim__learning_rate": 1e-2,
    "optim__schedule": "constant",
    "optim__max_steps": 60,
    "data__val_fraction": 0.5,
    "eval__every": 10,
    "eval__samples": 1,
    "eval__early_stopping": "off",
    "guards__alpha": 0.5,  # 24 rows are few
    "checkpoint__choose": "last",
    "checkpoint__keep": 20,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    write_rows(folder / "usage.jsonl", NUM_ANSWERED, lambda q, _: f"It is {q.split()[-2]}.", seed=7)
    with (folder / "usage.jsonl").open("a") as file:
        for i in range(NUM_ASKED):
            file.write(json.dumps({"prompt": f"fox and {i} dog?"}) + "\n")
    write_rows(folder / "test.jsonl", NUM_TEST, lambda q, _: f"It is {q.split()[0]}.", seed=8)
    line = "The quick brown fox jumps over the lazy dog, and so on {}.\n"
    (folder / "general.txt").write_text("".join(line.format(i) for i in range(NUM_TEXTS)))
    write_rows(folder / "noise.jsonl", 48, lambda _, rng: " ".join(rng.choices(WORDS, k=4)), seed=1)
    return folder


def with_everything(world, name, **more):
    parts = {"usage": "usage.jsonl", "test": "test.jsonl", "retain": "general.txt"}
    given = {f"data__{part}": [str(world / file)] for part, file in parts.items()}
    return Trained(world, name, **{**SHORT, **given, **more})


@pytest.fixture(scope="module")
def watched(world):
    return with_everything(world, "watched")


def scores(run, probe=None):
    found = read_records(run.path / "scores.jsonl")
    return [score for score in found if probe in (None, score["probe"])]


def findings(run, guard=None):
    found = read_records(run.path / "findings.jsonl")
    return [finding for finding in found if guard in (None, finding["guard"])]


def eval_records(run):
    return {r["step"]: r for r in run.records if "eval_seconds" in r}


# ---------------------------------------------------------------- records


def test_every_probe_is_scored_on_the_same_rows_at_every_eval(watched):
    sizes = {"usage": NUM_ANSWERED, "usage_drift": NUM_ASKED, "val": 12, "train_probe": 8}
    for probe in PROBES:
        by_step = {}
        for score in scores(watched, probe):
            by_step.setdefault(score["step"], []).append(score["id"])
        assert list(by_step) == [0, 2, 4]
        assert len({tuple(ids) for ids in by_step.values()}) == 1
        assert len(set(by_step[0])) == len(by_step[0]) == sizes.get(probe, 10)
    kinds = {"self": 0, "text": 0}
    for score in scores(watched, "retain"):
        kinds["self" if score["id"].startswith("self:") else "text"] += score["step"] == 0
    assert kinds == {"self": 5, "text": 5}
    used = {row["row"] for row in watched.account["rows"] if row["status"] == "used"}
    assert {score["id"] for score in scores(watched, "train_probe")} < used


def test_metrics_of_a_eval(watched):
    whole = {f"{p}_{m}" for p in ("val", "usage") for m in ("loss", "accuracy", "perplexity")}
    losses = {"train_probe_loss", "usage_drift_loss", "retain_loss", "retain_kl"}
    records = eval_records(watched)
    assert list(records) == [0, 2, 4]
    tested = {f"test_{m}" for m in ("loss", "accuracy", "perplexity")}
    for step, record in records.items():
        expected = whole | losses | {"step", "epoch", "eval_seconds"}
        assert record.keys() == expected | (tested if step == 0 else set())
        assert all(math.isfinite(value) for value in record.values())
        for probe in PROBES:
            found = [score for score in scores(watched, probe) if score["step"] == step]
            mean = sum(s["nll"] for s in found) / sum(s["tokens"] for s in found)
            assert record[f"{probe}_loss"] == pytest.approx(mean)


def test_retention_starts_at_nothing(watched):
    kl = {step: record["retain_kl"] for step, record in eval_records(watched).items()}
    assert kl[0] == 0 < min(kl[2], kl[4])
    moved = [s for s in scores(watched, "val") if s["step"] == 2]
    assert all(score["kl_first"] >= -1e-5 and score["first_mass"] <= 1 for score in moved)
    assert not [s for s in scores(watched, "val") if s["step"] == 0 and "kl_first" in s]


def test_drift_is_measured_against_the_base_models_own_answers(watched):
    base = [score for score in scores(watched, "usage_drift") if score["step"] == 0]
    assert all(score["correct"] == score["tokens"] for score in base)  # greedy: ranked first


def test_the_test_rows_decide_nothing_and_are_scored_twice(watched):
    assert [s["step"] for s in scores(watched, "test")] == [0] * 5 + [
        watched.summary.best_step
    ] * NUM_TEST
    last = read_records(watched.path / "metrics.jsonl")[-1]
    assert last == watched.summary.test and "test_loss" in last
    rows = [json.loads(line) for line in (watched.path.parent / "test.jsonl").open()]
    expected = loss_of(watched.path / "model", [row["messages"] for row in rows])
    assert last["test_loss"] == pytest.approx(expected, abs=1e-4)


def test_prompts_are_answered_at_the_first_the_middle_and_the_last_eval(watched):
    by_step = {}
    for sample in read_records(watched.path / "samples.jsonl"):
        by_step.setdefault(sample["step"], []).append(sample)
    assert list(by_step) == [0, 2, 4]
    prompts = [[(s["id"], s["prompt"], s["reference"]) for s in by_step[step]] for step in by_step]
    assert prompts[0] == prompts[1] == prompts[2] and len(prompts[0]) == 8
    for sample in by_step[0]:
        assert sample["probe"] == "usage"
        assert sample["prompt"].endswith("<|im_start|>assistant\n")
        assert sample["reference"].startswith("It is ")
        assert sample["stop_reason"] in ("stop", "length") and sample["tokens"] <= 32


def test_the_weights_handed_back_are_the_best_on_usage(watched):
    """Where the user's own prompts have answers, those decide, and not validation."""
    evals = {step: r["usage_loss"] for step, r in eval_records(watched).items() if step}
    assert watched.summary.best_step == min(evals, key=evals.get)
    assert watched.summary.best == eval_records(watched)[watched.summary.best_step]


# ---------------------------------------------------------------- verdicts


def test_every_guard_speaks_at_every_eval(watched):
    found = [Finding.from_record(record) for record in findings(watched)]
    for step in (0, 2, 4):
        primary = {f.guard for f in found if f.step == step and f.primary}
        assert primary == set(GUARDS)
    assert {f.step for f in found} == {0, 2, 4}
    assert [finding.record() for finding in found] == findings(watched)


def test_the_summary_has_a_verdict_of_each_guard_and_the_indicators(watched):
    summary = watched.summary
    assert [finding["guard"] for finding in summary.guards] == list(GUARDS)
    assert all(finding in findings(watched) for finding in summary.guards)
    assert {row["name"] for row in summary.indicators} >= {"training loss", "val_loss"}
    assert 0 < summary.eval_share < 1
    for shown in ("guards", "what to watch", "measuring took", "test_loss", "retain_loss"):
        assert shown in watched.shown


def test_what_the_data_are_like_is_measured_before_training(watched):
    found = json.loads((watched.path / "preflight.json").read_text())
    assert found["rows"]["train"] == 48 and found["rows"]["visits"] == 4 * 8
    assert found["usage"]["n"] == NUM_ANSWERED + NUM_ASKED


def test_replaying_the_records_gives_the_findings_of_the_run(watched, stopped):
    """Those of a run that a guard ended are the hard case: its last evaluation was not planned."""
    for run in (watched, stopped):
        again = [finding.record() for finding in replay(history_of(RunDir(run.path)))]
        assert again == findings(run)


# ---------------------------------------------------------------- continued


RECORDS = ("scores.jsonl", "samples.jsonl", "findings.jsonl", "preflight.json")
RECORDS += ("probes/retain.jsonl", "probes/usage_drift.jsonl", "probes/base.safetensors")


def same_records(run, other):
    return [n for n in RECORDS if (run.path / n).read_bytes() == (other.path / n).read_bytes()]


def cut_off(watched, name):
    """The run as it was after step 2, with what it recorded later still in its files."""
    folder = watched.path.parent / name
    shutil.copytree(watched.path, folder)
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step-000004")
    return folder


def test_a_run_that_is_continued_finds_the_same(world, watched):
    cut_off(watched, "continued")
    run = with_everything(world, "continued")
    assert "resuming after step 2 of 4" in run.shown
    assert same_records(run, watched) == list(RECORDS)
    assert deterministic(run.evals[-1]) == deterministic(watched.evals[-1])


def test_without_what_the_base_model_predicted_it_cannot_be_continued(world, watched):
    (cut_off(watched, "forgotten") / "probes" / "base.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"base\.safetensors: what the base model predicted"):
        with_everything(world, "forgotten")


def test_what_an_attempt_left_that_never_began_is_not_believed(world, watched):
    """It may have been of other data: without config.yaml no one can tell."""
    folder = world / "false-start"
    (folder / "probes").mkdir(parents=True)
    (folder / "run.lock").touch()
    (folder / "preflight.json").write_text("{}")
    for name in ("retain.jsonl", "usage_drift.jsonl"):
        lines = (watched.path / "probes" / name).read_text().splitlines(keepends=True)
        (folder / "probes" / name).write_text("".join(lines[:2]))
    run = with_everything(world, "false-start")
    assert same_records(run, watched) == list(RECORDS)


# ---------------------------------------------------------------- off means off


@pytest.fixture(scope="module")
def off(world):
    return with_everything(world, "off", guards__enabled=False, data__test=[])


def test_with_guards_off_only_validation_is_measured(off):
    assert {score["probe"] for score in scores(off)} == {"val"}
    fields = {"step", "probe", "id", "nll", "tokens", "bytes", "correct"}
    assert all(score.keys() == fields for score in scores(off))
    assert findings(off) == [] == read_records(off.path / "samples.jsonl")
    assert not (off.path / "preflight.json").exists()
    assert not [*off.path.glob("probes/*")]
    expected = {"step", "epoch", "val_loss", "val_accuracy", "val_perplexity", "eval_seconds"}
    assert all(record.keys() == expected for record in eval_records(off).values())
    assert off.summary.guards == [] == off.summary.indicators
    assert "guards: off, nothing was measured" in off.shown


def test_watching_changes_nothing_about_training(watched, off):
    name = "checkpoints/step-000004/model.safetensors"
    assert (watched.path / name).read_bytes() == (off.path / name).read_bytes()
    assert [r["loss"] for r in watched.steps] == [r["loss"] for r in off.steps]
    same = [[r["val_loss"] for r in eval_records(run).values()] for run in (watched, off)]
    assert same[0] == same[1]


# ---------------------------------------------------------------- what alarms do


def noise(world, name, **more):
    return Trained(world, name, data__train=[str(world / "noise.jsonl")], **{**NOISE, **more})


@pytest.fixture(scope="module")
def warned(world):
    return noise(world, "warned", guards__overfitting="warn")


@pytest.fixture(scope="module")
def first_alarm(warned):
    """The evaluation at which the same run, with any other action, ends."""
    found = [f for f in findings(warned, "overfitting") if f["primary"] and f["verdict"] == "alarm"]
    assert found[0]["step"] < 60
    return found[0]


@pytest.fixture(scope="module")
def stopped(world):
    return noise(world, "stopped", guards__overfitting="stop")


def losses(run):
    return {step: record["val_loss"] for step, record in eval_records(run).items() if step}


def test_a_warning_is_shown_and_changes_nothing(warned, first_alarm):
    assert (warned.summary.steps, warned.summary.stopped) == (60, None)
    assert "overfitting: alarm: " in warned.shown
    assert first_alarm["remedy"].split(";")[0] in warned.shown
    # checkpoint.choose: last, although an earlier evaluation is far better.
    assert warned.summary.best_step == 60 and min(losses(warned).values()) < losses(warned)[60] - 1


def test_stop_ends_the_run_with_the_last_weights(stopped, warned, first_alarm):
    step = first_alarm["step"]
    assert stopped.summary.steps == stopped.summary.best_step == step
    assert stopped.summary.stopped.startswith("overfitting: ")
    assert f"ended early: {stopped.summary.stopped}" in stopped.shown
    expected = losses(warned)[step]
    assert loss_of(stopped.path / "model", stopped.rows("val")) == pytest.approx(expected, abs=1e-4)


def test_a_run_that_ends_early_answers_its_prompts_at_the_end(stopped):
    steps = {sample["step"] for sample in read_records(stopped.path / "samples.jsonl")}
    assert {0, stopped.summary.steps} <= steps


def test_restore_best_hands_back_the_best_weights(world, warned, first_alarm):
    run = noise(world, "restored", guards__overfitting="restore_best")
    assert run.summary.steps == first_alarm["step"]
    before = {s: loss for s, loss in losses(warned).items() if s <= first_alarm["step"]}
    best = min(before, key=before.get)
    assert run.summary.best_step == best < run.summary.steps
    found = loss_of(run.path / "model", run.rows("val"))
    assert found == pytest.approx(before[best], abs=1e-4)
    kept = load_file(run.path / "checkpoints" / f"step-{best:06d}" / "model.safetensors")
    assert all(bool((run.weights[name] == value).all()) for name, value in kept.items())


def test_evals_that_forget_too_much_are_not_chosen(world, watched):
    rises = {
        f["step"]: f["statistic"]
        for f in findings(watched, "forgetting")
        if f["signal"] == "retention" and f["step"]
    }
    best, usage = watched.summary.best_step, eval_records(watched)
    (other,) = {2, 4} - {best}
    assert rises[other] < rises[best], "the better evaluation must be the one that forgets more"
    budget = (rises[other] + rises[best]) / 2
    run = with_everything(world, "budget", guards__forgetting_budget=budget)
    assert run.summary.best_step == other
    assert usage[other]["usage_loss"] > usage[best]["usage_loss"]
    # Where every evaluation is over budget, the best of them is still better than none.
    run = with_everything(world, "nobudget", guards__forgetting_budget=0.0)
    assert min(rises.values()) > 0 and run.summary.best_step == best


def test_a_leak_alarms_and_the_run_goes_on(world):
    """It was there before the first step, so that stopping would change nothing."""
    rows = (world / "rows.jsonl").read_text().splitlines()[:12]
    near = "".join(row.replace("?", "!") + "\n" for row in rows)  # the same words
    (world / "near.jsonl").write_text(near)
    run = Trained(world, "leaky", data__val=[str(world / "near.jsonl")], **SHORT)
    leaks = [f for f in findings(run, "overfitting") if f["signal"] == "leak"]
    assert [f["verdict"] for f in leaks] == ["alarm"] * 3 and leaks[0]["statistic"] == 12
    assert run.summary.stopped is None and run.summary.steps == 4
