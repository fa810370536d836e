"""Verdicts out of a run folder, and nothing else: `sft guards`, which needs no torch."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

import guard_runs
from sft.config import load_config
from sft.errors import ConfigError, DataError
from sft.guards.base import Finding, describe
from sft.guards.judge import GUARDS
from sft.report.guards_table import lines, show_guards, table
from sft.runs.history import history_of, newest, read_findings, replay, settings_of
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records
from trained import Outcome

CONFIG = """\
config:
  optim: {max_steps: null, warmup_steps: 1, learning_rate: 0.001}
  eval: {every: 10}
  guards: {alpha: 0.05, forgetting_budget: 0.1}
  method: {kind: lora}
num_steps: 30
"""
GETS_WORSE, GETS_BETTER = (0, -0.3, 0.5, 0.9), (0, -0.3, -0.5, -0.6)
FORBID = """
import importlib.abc, sys

class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "peft", "safetensors", "datasets"}:
            raise ImportError(f"{name} must not be imported")

sys.meta_path.insert(0, Forbid())
from sft.cli import main
main(sys.argv[1:])
"""


def write(folder, val, *, upto=30):
    """A run folder of text files: 40 rows of val, 20 training rows, 30 steps, evaluations every
    10.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    scores = guard_runs.scores("val", guard_runs.drawn(val, 40))
    scores += guard_runs.scores("train_probe", guard_runs.drawn((0, -0.5, -1.0, -1.4), 20, seed=1))
    kl = np.outer([0, 0.1, 0.2, 0.3], np.ones(16))
    retain = guard_runs.drawn((0, 0.0, 0.01, 0.01), 16, seed=2, sd=0.005)
    scores += guard_runs.scores("retain", retain, kl=kl)
    metrics = guard_runs.metrics([2.5 - 0.05 * step for step in range(30)])
    for name, records in (("scores", scores), ("metrics", metrics)):
        kept = [record for record in records if record["step"] <= upto]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    return write(tmp_path_factory.mktemp("runs") / "sick", GETS_WORSE)


@pytest.fixture(scope="module")
def well(tmp_path_factory):
    return write(tmp_path_factory.mktemp("runs") / "well", GETS_BETTER)


def verdict_of(findings, guard="overfitting"):
    (found,) = [f for f in newest(findings) if f.guard == guard and f.primary]
    return found


def test_verdicts_come_out_of_the_records(sick, well):
    found = verdict_of(replay(history_of(RunDir(sick))))
    assert (found.verdict, found.signal, found.step) == ("alarm", "paired_rise", 30)
    assert found.statistic == pytest.approx(1.2, abs=0.1) and found.n == 40
    assert verdict_of(replay(history_of(RunDir(well)))).verdict == "pass"
    for folder in (sick, well):
        kept = verdict_of(replay(history_of(RunDir(folder))), "forgetting")
        assert (kept.verdict, kept.threshold) == ("pass", 0.1)  # the budget of config.yaml
        last = newest(replay(history_of(RunDir(folder))))
        missing = [f for f in last if f.guard == "distribution_mismatch"]
        assert {f.verdict for f in missing} == {"not_measured"}  # and never a pass


def test_every_eval_is_judged_by_what_was_known_then(sick, tmp_path):
    whole = replay(history_of(RunDir(sick)))
    assert sorted({finding.step for finding in whole}) == [0, 10, 20, 30]
    early = replay(history_of(RunDir(write(tmp_path / "early", GETS_WORSE, upto=20))))
    assert early == [finding for finding in whole if finding.step <= 20]


def test_rows_that_decide_nothing_have_no_say(sick, tmp_path):
    """The test rows are scored after the last evaluation, under the step of the best one."""
    folder = write(tmp_path / "tested", GETS_WORSE)
    with (folder / "scores.jsonl").open("a") as file:
        for score in guard_runs.scores("test", [[9.0] * 12]):
            file.write(json.dumps({**score, "step": 10}) + "\n")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 10, "test_loss": 9.0}) + "\n")
    assert replay(history_of(RunDir(folder))) == replay(history_of(RunDir(sick)))


def test_what_guards_may_know_of_the_config():
    given = {"optim": {"warmup_steps": 3, "learning_rate": 0.2, "max_steps": 33}}
    given |= {"eval": {"every": 10}, "method": {"kind": "lora"}}
    given |= {"guards": {"alpha": 0.01, "margin": 0.3, "forgetting_budget": 0.4}}
    found = settings_of(load_config(given))
    assert (found.alpha, found.margin, found.forgetting_budget) == (0.01, 0.3, 0.4)
    assert (found.num_steps, found.num_evals, found.warmup_steps) == (33, 4, 3)
    assert found.learning_rate == 0.2
    undecided = settings_of(load_config({}))
    assert (undecided.num_evals, undecided.warmup_steps, undecided.learning_rate) == (1, 0, 0.0)


def test_the_config_of_the_run_is_read_where_none_is_given(sick):
    found = history_of(RunDir(sick)).settings
    assert (found.num_steps, found.num_evals) == (30, 3)
    given = history_of(RunDir(sick), load_config({"eval": {"every": 5}}), 20).settings
    assert (given.num_steps, given.num_evals) == (20, 4)


def test_findings_are_read_as_they_were_written(sick, tmp_path):
    assert read_findings(RunDir(sick)) == [] == newest([])
    found = replay(history_of(RunDir(sick)))
    text = "".join(json.dumps(finding.record()) + "\n" for finding in found)
    (tmp_path / "findings.jsonl").write_text(text)
    assert read_findings(RunDir(tmp_path)) == found


def test_a_finding_as_a_sentence():
    found = Finding("format_collapse", "opening", "alarm", 4, "All alike.", remedy="Do that")
    assert describe(found) == "format collapse: alarm: All alike.\n  -> Do that"
    assert describe(Finding("health", "loss", "pass", 4, "Fine.")) == "health: pass: Fine."


def test_the_worst_come_first():
    found = [
        Finding("health", "a", verdict, 1, verdict)
        for verdict in ("pass", "not_measured", "insufficient", "watch", "alarm")
    ]
    assert [text.split(": ")[1] for text, _ in lines(found, "pass")] == [
        *("alarm", "watch", "insufficient", "not_measured", "pass")
    ]
    assert [text.split(": ")[1] for text, _ in lines(found)] == ["alarm", "watch"]
    assert lines(found)[0][1] == "alarm"


def test_a_narrow_table_has_the_figures_below_the_verdict(sick):
    last = newest(replay(history_of(RunDir(sick))))
    guards, verdicts = [list(column.cells) for column in table(last, width=40).columns]
    assert str(guards[0]).startswith("overfitting\n")
    word, figure, limit = str(verdicts[0]).splitlines()
    assert word == "■ alarm" and float(figure) > 0.02 and limit == "limit 0.020"


def test_the_table_has_a_line_for_each_guard(sick):
    last = newest(replay(history_of(RunDir(sick))))
    shown = [[str(cell) for cell in column.cells] for column in table(last).columns]
    guards = [cell.splitlines()[0] for cell in shown[0]]
    assert guards == [guard.replace("_", " ") for guard in GUARDS]
    assert shown[1][0] == "■ alarm" and shown[3][0] == "0.020"
    low, high = (float(text) for text in shown[2][0].splitlines()[1].split(" to "))
    assert low < float(shown[2][0].splitlines()[0]) < high
    assert shown[2][guards.index("distribution mismatch")] == "-"


# ---------------------------------------------------------------- the command


def test_the_command_shows_the_last_eval(sick):
    done = Outcome("guards", str(sick))
    assert (done.code, done.err) == (0, "")
    assert "guards after step 30" in done.out
    assert "overfitting: alarm: Over-confidence: val_loss is 1." in done.out
    assert "\n  -> Hand back the weights of the best evaluation" in done.out
    assert "distribution mismatch: not_measured" not in done.out


def test_all_shows_every_signal(sick):
    done = Outcome("guards", str(sick), "--all")
    for text in ("forgetting: pass: ", "distribution mismatch: not_measured: "):
        assert text in done.out
    assert len(done.out) > len(Outcome("guards", str(sick)).out)


def test_json_is_every_finding_of_every_eval(sick):
    done = Outcome("guards", str(sick), "--json")
    expected = [finding.record() for finding in replay(history_of(RunDir(sick)))]
    found = [json.loads(line) for line in done.out.splitlines()]
    assert found == json.loads(json.dumps(expected)) and len(found) > 4 * len(GUARDS)


@pytest.mark.parametrize("limit", ["watch", "alarm"])
def test_an_alarm_can_fail_a_build(sick, well, limit):
    done = Outcome("guards", str(sick), "--fail-on", limit)
    assert done.code == 8
    assert f"error: {sick}: " in done.err and "overfitting (alarm)" in done.err
    assert "guards after step 30" in done.out  # and it still says why
    assert Outcome("guards", str(well), "--fail-on", "alarm").code == 0
    assert Outcome("guards", str(sick), "--fail-on", "pass").code == 2  # no such limit


def test_a_folder_with_a_strange_name_is_shown_as_it_is(tmp_path):
    folder = write(tmp_path / "[bold]a[" / "b]", GETS_BETTER)
    out = io.StringIO()
    show_guards(str(folder), every=False, as_json=False, fail_on=None, out=out)
    assert "[bold]a[/b]" in out.getvalue().replace("\n", "")


@pytest.mark.parametrize(
    ("damage", "error", "problem"),
    [
        (lambda f: (f / "config.yaml").unlink(), ConfigError, "not a run folder"),
        (lambda f: (f / "config.yaml").write_text("model: {}\n"), ConfigError, "no `config:`"),
        (lambda f: (f / "scores.jsonl").unlink(), ConfigError, "no evaluation was recorded yet"),
        (lambda f: (f / "scores.jsonl").write_text("{\n"), DataError, r"scores\.jsonl:1: not JSON"),
        (lambda f: (f / "preflight.json").write_text("{"), DataError, r"preflight\.json"),
        (lambda f: (f / "preflight.json").write_text("[]"), DataError, "expected a JSON object"),
    ],
)
def test_a_folder_that_cannot_be_judged(tmp_path, damage, error, problem):
    folder = write(tmp_path / "run", GETS_BETTER)
    damage(folder)
    with pytest.raises(error, match=problem):
        show_guards(str(folder), every=False, as_json=False, fail_on=None, out=io.StringIO())


def test_a_run_that_is_not_there(sick):
    done = Outcome("guards", str(sick.parent / "sik"))
    assert done.code == 2 and "Did you mean 'sick'?" in done.error()


def test_it_needs_no_torch(sick):
    """In an interpreter that refuses to load torch and all that is built on it."""
    args = [sys.executable, "-c", FORBID, "guards", str(sick), "--json", "--fail-on", "alarm"]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert done.returncode == 8, done.stderr
    assert done.stdout == Outcome("guards", str(sick), "--json").out
    assert "overfitting (alarm)" in done.stderr


def test_the_records_are_only_read(sick):
    before = {path.name: path.read_bytes() for path in sick.iterdir()}
    Outcome("guards", str(sick), "--all")
    assert {path.name: path.read_bytes() for path in sick.iterdir()} == before
    assert read_records(sick / "findings.jsonl") == []
