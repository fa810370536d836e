"""The example of docs/extending.md does what the page says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guard_runs import run
from sft.config.plugins import load_named
from sft.guards.base import verdicts
from sft.guards.judge import judge

FILE = Path(__file__).parents[1] / "examples" / "my_guard.py"


@pytest.fixture(scope="module")
def example():
    own = load_named(f"{FILE}:left_behind", "sft.guards", {})

    def finding(*shares_worse, n=40):
        """After evaluations at which these shares of the rows lost 0.1 nats."""
        evals = [np.full(n, 2.0)]
        for share in shares_worse:
            evals.append(np.where(np.arange(n) < share * n, 2.1, 1.5))
        return verdicts(judge(run(np.array(evals)), {"left_behind": own}))["left_behind"]

    return finding


def test_it_fires_the_second_time(example):
    assert example(0.5).verdict == "watch"
    finding = example(0.5, 0.5)
    assert (finding.verdict, finding.statistic, finding.n) == ("alarm", 0.5, 40)
    assert finding.interval[0] > 0.25 and finding.remedy


def test_it_is_silent_when_few_rows_get_worse(example):
    assert example(0.5, 0.05).verdict == "pass"


def test_it_says_when_it_cannot_tell(example):
    assert example(0.25).verdict == "insufficient"
    assert example(0.0, n=4).verdict == "insufficient"
    assert example().verdict == "not_measured"
