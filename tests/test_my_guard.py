"""The example of docs/extending.md does what the page says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from guard_runs import run
from sft.guards.base import verdicts
from sft.guards.judge import GUARDS, judge

FILE = Path(__file__).parents[1] / "examples" / "my_guard.py"


@pytest.fixture
def example(monkeypatch):
    spec = importlib.util.spec_from_file_location("my_guard", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(GUARDS, module.NAME, module.left_behind)
    return module


def said(*shares_worse, n=40):
    """The guard's finding after evaluations at which these shares of the rows lost 0.1 nats."""
    evals = [np.full(n, 2.0)]
    for share in shares_worse:
        evals.append(np.where(np.arange(n) < share * n, 2.1, 1.5))
    return verdicts(judge(run(np.array(evals))))["left_behind"]


def test_it_fires_the_second_time(example):
    assert said(0.5).verdict == "watch"
    finding = said(0.5, 0.5)
    assert (finding.verdict, finding.statistic, finding.n) == ("alarm", 0.5, 40)
    assert finding.interval[0] > 0.25 and finding.remedy


def test_it_is_silent_when_few_rows_get_worse(example):
    assert said(0.5, 0.05).verdict == "pass"


def test_it_says_when_it_cannot_tell(example):
    assert said(0.25).verdict == "insufficient"
    assert said(0.0, n=4).verdict == "insufficient"
    assert said().verdict == "not_measured"
