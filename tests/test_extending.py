"""docs/extending.md, done: one run of a tiny model with parts that stand outside the package."""

from __future__ import annotations

import io
import json
import math
from contextlib import redirect_stderr, redirect_stdout

import pytest

from sft.cli import main
from sft.config import load_config
from sft.dashboard.page_data.snapshot import metric_table
from sft.errors import CheckpointError, ConfigError
from sft.report.curves import lines
from sft.runs import metrics
from sft.runs.metrics import METRICS, Metric
from trained import Trained, make_world

FORMAT = """
def parse(row):
    if not row["reply"]:
        raise ValueError("reply: empty")
    turns = {"user": row["ticket"], "assistant": row["reply"]}
    return [{"role": role, "content": text} for role, text in turns.items()]
"""
GUARD = """
from sft.guards.base import Finding

class Strict:
    def __call__(self, history):
        step = history.eval_steps[-1]
        verdict = "alarm" if step else "not_measured"
        return [Finding("any", "mine", verdict, step, f"always so at step {step}", n=1)]

def broken(history):
    return 1 / 0

def silent(history):
    return []
"""
TRACKER = """
import json
from sft.trackers.base import Tracker

class MyTracker(Tracker):
    def start(self, run, config, state):
        self.path = run.path / "mine.jsonl"

    def record(self, records):
        with open(self.path, "a") as file:
            for record in records:
                file.write(json.dumps(dict(record)) + "\\n")
"""
TRAINING = """
import torch

def focal(logits, labels, weights):
    log_p = logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    return weights * -((1 - log_p.exp()) ** 2) * log_p

class Momentum(torch.optim.SGD):
    def __init__(self, groups, lr):
        super().__init__(groups, lr=lr, momentum=0.9)
"""
BITS = Metric(
    "bits_per_token",
    "bits",
    "loss in bits: loss / ln 2.",
    better="lower",
    panel="bits_per_token",
    smooth=True,
    ending=True,
    derive=lambda record: None if record.get("loss") is None else record["loss"] / math.log(2),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("own"))
    files = {"format": FORMAT, "guard": GUARD, "tracker": TRACKER, "training": TRAINING}
    for name, text in files.items():
        (folder / f"my_{name}.py").write_text(text)
    with open(folder / "tickets.jsonl", "w", encoding="utf-8") as file:
        for i in range(40):
            reply = f"It is {i % 7}." if i else ""
            file.write(json.dumps({"ticket": f"What is {i}?", "reply": reply}) + "\n")
    return folder


def settings(world, **more):
    return {
        "data__train": [
            {"path": str(world / "tickets.jsonl"), "format": f"{world}/my_format.py:parse"}
        ],
        "data__on_bad_row": "skip",
        "guards__custom": [{"guard": f"{world}/my_guard.py:Strict", "action": "stop"}],
        "trackers__custom": [f"{world}/my_tracker.py:MyTracker"],
        "optim__loss": f"{world}/my_training.py:focal",
        "optim__name": f"{world}/my_training.py:Momentum",
        "optim__max_steps": 4,
        "eval__every": 2,
        **more,
    }


@pytest.fixture(scope="module")
def mine(world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, BITS.name, BITS)
        yield Trained(world, "mine", **settings(world))


def cli(*args):
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = main([*args])
    return code, out.getvalue()


def test_a_format(mine):
    unusable = [row for row in mine.account["rows"] if row["status"] == "unusable"]
    assert mine.rows and len(unusable) <= 1
    assert mine.steps


def test_a_guard_is_recorded_shown_and_acted_on(mine):
    findings = [
        json.loads(line) for line in (mine.path / "findings.jsonl").read_text().splitlines()
    ]
    own = [finding for finding in findings if finding["guard"] == "Strict"]
    assert [(f["step"], f["verdict"]) for f in own] == [(0, "not_measured"), (2, "alarm")]
    assert mine.summary.steps == 2 and mine.summary.stopped == "Strict: always so at step 2"
    assert "Strict: alarm: always so at step 2" in mine.shown
    assert "Strict" in {finding["guard"] for finding in mine.summary.guards}
    code, out = cli("guards", str(mine.path))
    assert not code and "Strict: alarm: always so at step 2" in out
    report = (mine.path / "report.json").read_text() if (mine.path / "report.json").exists() else ""
    assert not report or "Strict" in report


def test_a_tracker_gets_the_new_metric(mine):
    lines_sent = [json.loads(line) for line in (mine.path / "mine.jsonl").read_text().splitlines()]
    sent = [line for line in lines_sent if "loss" in line]
    assert [line["bits_per_token"] for line in sent] == [
        pytest.approx(line["loss"] / math.log(2)) for line in sent
    ]


def test_a_metric_is_everywhere(mine):
    assert all("bits_per_token" in record for record in mine.steps)
    assert "bits_per_token" in mine.shown  # the table at the end
    assert lines()["bits_per_token"][0] == "Bits per token"  # the report
    assert metric_table()["bits_per_token"]["panel"] == "bits_per_token"  # the page
    assert "| `bits_per_token` | bits | lower | loss in bits: loss / ln 2. |" in metrics.markdown()


def test_a_loss_and_an_optimizer(mine):
    assert mine.config.optim.loss.endswith(":focal")
    assert mine.config.optim.name.endswith(":Momentum")
    assert mine.steps[-1]["grad_norm"] > 0


def test_other_code_is_another_run(world, mine):
    path = world / "my_guard.py"
    try:
        path.write_text(GUARD + "\n# changed\n")
        with pytest.raises(CheckpointError, match=r"my_guard\.py"):
            Trained(world, "mine", **settings(world))
    finally:
        path.write_text(GUARD)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("my_guard.py:Strickt", "Did you mean 'Strict'"),
        ("my_gard.py:Strict", "my_guard.py"),
        ("my_guard.py:broken", r"my_guard.py:11: ZeroDivisionError: division by zero"),
        ("my_guard.py:silent", "at least one finding with primary=True"),
    ],
)
def test_a_guard_that_cannot_be_used_ends_the_run_before_training(world, spec, problem):
    name, custom = spec.partition(":")[2], [f"{world}/{spec}"]
    with pytest.raises(ConfigError, match=problem):
        Trained(world, name, **settings(world, guards__custom=custom))
    assert not list(world.glob(f"{name}/summary.json"))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (["nothing_like_it"], "'nothing_like_it' is not one of"),
        (["a.py:health"], "'health' is the name of another guard"),
        (["a.py:x", "b.py:x"], "'x' is the name of another guard"),
        ([{"guard": "a.py:x", "action": "explode"}], "explode|warn"),
    ],
)
def test_a_name_that_cannot_be_is_refused(value, problem):
    with pytest.raises(ConfigError, match=problem):
        load_config({}, {"guards.custom": value})
