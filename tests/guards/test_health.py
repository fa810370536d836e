"""Runs that break, runs that learn nothing, and noise that must stay silent."""

from __future__ import annotations

import numpy as np
import pytest

from guard_runs import by_signal, drawn, metrics, run, scores
from sft.guards.base import GuardSettings
from sft.guards.health import health
from sft.guards.history import history

SIGNALS = ["finite", "updates", "learning", "divergence", "spikes"]


def judged(record):
    return by_signal(health(record))


def of(losses, **values):
    """The findings over training records; `values` are the same in each."""
    return judged(history(GuardSettings(num_steps=len(losses)), metrics(losses, **values)))


def falling(n=60, seed=0, noise=0.15):
    return 1 + np.exp(-np.arange(n) / 20) + np.random.default_rng(seed).normal(0, noise, n)


def test_a_run_that_learns_is_healthy():
    findings = of(falling())
    assert list(findings) == SIGNALS
    assert [finding.verdict for finding in findings.values()] == ["pass"] * 5
    assert all(finding.primary for finding in findings.values())


def test_no_record_is_not_measured():
    assert {finding.verdict for finding in health(run())} == {"not_measured"}


def test_three_steps_are_too_few_to_judge():
    findings = of([2.0, 1.9, 1.8])
    verdicts = [findings[signal].verdict for signal in ("learning", "divergence", "spikes")]
    assert verdicts == ["insufficient"] * 3
    assert {finding.verdict for finding in findings.values()} == {"pass", "insufficient"}


def test_a_loss_that_is_not_a_number_alarms():
    losses = falling()
    losses[[30, 31, 32, 33]] = np.nan
    finding = of(losses)["finite"]
    assert finding.verdict == "alarm"
    assert finding.statistic == 4
    assert finding.message == (
        "Not a finite number: loss at step 31, loss at step 32, loss at step 33, ..."
    )


def test_validation_rows_that_are_not_a_number_alarm():
    val = drawn([2.0, 1.9])
    val[1, [0, 5]] = np.nan
    finding = judged(run(val))["finite"]
    assert finding.verdict == "alarm"
    assert "2 rows of val at step 10" in finding.message
    assert judged(run(drawn([2.0, 1.9])))["finite"].verdict == "pass"


@pytest.mark.parametrize("name", ["learning_rate", "grad_norm"])
def test_a_rate_or_a_gradient_of_zero_throughout_alarms(name):
    finding = of(falling(), **{name: 0.0})["updates"]
    assert finding.verdict == "alarm"
    assert "nothing is trained" in finding.message
    assert of(falling(4), **{name: 0.0})["updates"].verdict != "alarm"


def test_a_rate_of_zero_during_warm_up_is_no_fault():
    settings = GuardSettings(warmup_steps=10)
    record = history(settings, metrics(falling(10), learning_rate=0.0))
    assert judged(record)["updates"].verdict != "alarm"


def test_one_spike_is_watched():
    losses = falling()
    losses[40] += 4
    finding = of(losses)["spikes"]
    assert finding.verdict == "watch"
    assert finding.message.startswith("1 spike, the highest: loss")
    assert "at step 41" in finding.message


def test_a_spike_of_the_gradient_is_watched_even_at_the_newest_step():
    records = metrics(falling())
    rng = np.random.default_rng(1)
    for record in records:
        record["grad_norm"] = float(rng.lognormal(0, 0.2))
    records[-1]["grad_norm"] = 30.0
    finding = judged(history(GuardSettings(), records))["spikes"]
    assert finding.verdict == "watch"
    assert "grad_norm 30 at step 60" in finding.message


def test_a_steep_start_is_no_spike():
    losses = 3 * np.exp(-np.arange(60) / 2) + 0.001 + 0.0001 * np.sin(np.arange(60) * 1.7)
    assert of(losses)["spikes"].verdict == "pass"


def test_noise_makes_no_spikes():
    """One run of 2,000 steps has as many chances as many short ones."""
    assert of(falling(2000, noise=0.3))["spikes"].verdict == "pass"


def test_a_loss_that_runs_away_alarms():
    noise = np.random.default_rng(0).normal(0, 0.1, 60)
    finding = of(2 + np.linspace(0, 3, 60) + noise)["divergence"]
    assert finding.verdict == "alarm"
    assert finding.statistic > 2
    assert of(2 + noise)["divergence"].verdict == "pass"


def test_training_rows_that_stay_the_same_are_watched():
    flat = [[2.0 + 0.1 * i for i in range(10)]] * 3
    assert judged(run(flat, flat, num_steps=20))["learning"].verdict == "watch"
    assert judged(run(flat, flat, num_steps=100))["learning"].verdict == "insufficient"


def test_training_rows_that_improve_pass():
    finding = judged(run(train=drawn([2.0, 1.8, 1.6])))["learning"]
    assert finding.verdict == "pass"
    assert finding.interval[0] < finding.statistic < finding.interval[1]


def test_a_loss_flat_from_the_start_is_watched():
    quiet = 2 + np.random.default_rng(2).normal(0, 0.01, 200)
    assert of(quiet)["learning"].verdict == "watch"
    noisy = 2 + np.random.default_rng(2).normal(0, 0.5, 30)
    assert of(noisy)["learning"].verdict == "insufficient"


def test_the_newest_eval_dates_the_findings():
    record = history(GuardSettings(), metrics(falling()), scores("val", drawn([2.0, 1.9, 1.8])))
    assert {finding.step for finding in health(record)} == {20}
