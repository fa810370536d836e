"""Each indicator: good, neutral, a warning, unknown; and whether a run learned anything."""

from __future__ import annotations

import numpy as np
import pytest

from guard_runs import drawn, run
from sft.guards.indicators import Indicator, indicators, learned_nothing

TRAINING, VAL, PERPLEXITY, GAP = "training loss", "val_loss", "val_perplexity", "gap"
RATE, EPOCH = "learning rate", "epoch"


def of(*args, **kwargs) -> dict[str, Indicator]:
    return {indicator.name: indicator for indicator in indicators(run(*args, **kwargs))}


def status(name, *args, **kwargs):
    return of(*args, **kwargs)[name].status


def noisy(line, seed=0):
    return np.asarray(line) + np.random.default_rng(seed).normal(0, 0.05, len(line))


def test_the_order_is_always_the_same():
    names = [indicator.name for indicator in indicators(run())]
    assert names == [TRAINING, VAL, PERPLEXITY, GAP, RATE, EPOCH]


def test_what_was_not_measured_is_unknown():
    assert [indicator.status for indicator in indicators(run())] == ["unknown"] * 6
    assert all(indicator.message for indicator in indicators(run()))


def test_training_loss():
    falling = of(losses=noisy(np.linspace(3, 1, 90)))[TRAINING]
    assert falling.status == "good" and falling.message == "Training loss falls steadily"
    assert falling.evidence.startswith("\N{MINUS SIGN}22")
    flat = of(losses=noisy(np.full(90, 2.0)))[TRAINING]
    assert flat.status == "warning" and "not fallen since the start" in flat.message
    rising = of(losses=noisy(np.linspace(1, 3, 90)))[TRAINING]
    assert rising.status == "warning" and rising.message == "Training loss rises"
    assert status(TRAINING, losses=[3.0, 2.0, 1.0]) == "unknown"


def test_a_fall_that_ended_before_the_last_third_has_levelled_off():
    losses = np.concatenate([np.linspace(3, 1, 50), np.full(40, 1.0)])
    levelled = of(losses=noisy(losses))[TRAINING]
    assert (levelled.status, levelled.message) == ("neutral", "Training loss has levelled off")


def test_val_loss():
    steady = of(drawn([2, 1.5, 1.5, 1.5, 1.5], 64, sd=0.01))[VAL]
    assert steady.status == "neutral"
    assert steady.message.startswith("val_loss is steady over the last 3 evaluations")
    assert status(VAL, drawn([2, 1.8, 1.6, 1.4, 1.2], 64)) == "good"
    assert status(VAL, drawn([2, 1.5, 1.7, 1.8, 1.9], 64)) == "warning"
    assert status(VAL, drawn([2, 1.8])) == "unknown"


def test_perplexity():
    drops = of(drawn([2.0, 1.9, 1.8]))[PERPLEXITY]
    assert drops.status == "good"
    assert "32 rows" in drops.evidence
    percent = float(drops.evidence.split(" %")[0].replace("\N{MINUS SIGN}", "-"))
    assert percent == pytest.approx(100 * np.expm1(-0.2), abs=3)
    assert status(PERPLEXITY, drawn([2.0, 2.0, 2.0])) == "warning"
    assert status(PERPLEXITY, drawn([2.0])) == "unknown"


def test_training_and_validation_stay_close():
    means = [2.0, 1.8, 1.6]
    assert status(GAP, drawn(means), drawn(means, seed=1)) == "good"
    assert status(GAP, drawn(means), drawn([2.0, 1.5, 0.5], seed=1)) == "warning"
    assert status(GAP, drawn(means)) == "unknown"


def test_learning_rate_and_epoch():
    seen = of(losses=np.linspace(3, 1, 40))
    assert seen[RATE].message == "The learning rate peaked at 1.00e-04"
    assert seen[RATE].evidence == "now 1.00e-04"
    assert seen[EPOCH].message == "2.00 passes over the training rows"


FLAT, FALL = [2.0, 2.0, 2.0], [2.0, 1.8, 1.6]


def test_a_run_that_learned_nothing_says_so():
    headline = learned_nothing(run(drawn(FLAT, sd=0.01), drawn(FLAT, seed=1, sd=0.01)))
    assert headline.startswith("The run learned nothing: the loss is within its noise of the start")
    assert "on training rows (" in headline and "on held-out rows (" in headline


def test_a_tiny_change_of_every_row_is_nothing():
    rows = np.linspace(1, 3, 32)
    same = np.array([rows, rows - 1e-4, rows - 2e-4])
    assert learned_nothing(run(same, same))
    assert learned_nothing(run(same - [[0], [0.01], [0.02]], same)) == ""


@pytest.mark.parametrize(
    ("val", "train"),
    [(FALL, FLAT), (FLAT, FALL), ([2.0, 2.1, 2.3], FLAT), (FALL, FALL), (FLAT, [2.0])],
)
def test_a_run_in_which_something_moved_learned_something(val, train):
    history = run(drawn(val, sd=0.01), drawn(train, seed=1, sd=0.01))
    assert learned_nothing(history) == ""


def test_too_little_is_no_proof_of_nothing():
    assert learned_nothing(run()) == ""
    assert learned_nothing(run(drawn(FLAT, 4, sd=0.01), drawn(FLAT, 4, sd=0.01, seed=1))) == ""
    early = run(drawn(FLAT, sd=0.01), drawn(FLAT, seed=1, sd=0.01), num_steps=100)
    assert learned_nothing(early) == ""


def test_without_training_rows_the_steps_tell():
    val = drawn(FLAT, sd=0.01)
    assert learned_nothing(run(val, losses=noisy(np.full(60, 2.0), seed=3) * 0.01 + 2))
    assert learned_nothing(run(val, losses=noisy(np.linspace(3, 2, 60)))) == ""
