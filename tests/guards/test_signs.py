"""Each sign of a good run: held, not held, not measured."""

from __future__ import annotations

import numpy as np
import pytest

from guard_runs import drawn, run
from sft.guards.signs import Sign, signs

STEADY = "training loss falls steadily"
PLATEAU = "val loss is on a plateau"
PERPLEXITY = "perplexity drops"
CLOSE = "training and val loss stay close"
RATE = "learning rate"
EPOCH = "epoch"


def of(*args, **kwargs) -> dict[str, Sign]:
    return {sign.name: sign for sign in signs(run(*args, **kwargs))}


def held(name, *args, **kwargs):
    return of(*args, **kwargs)[name].held


def noisy(line, seed=0):
    return np.asarray(line) + np.random.default_rng(seed).normal(0, 0.05, len(line))


def test_the_order_is_always_the_same():
    assert [sign.name for sign in signs(run())] == [STEADY, PLATEAU, PERPLEXITY, CLOSE, RATE, EPOCH]


def test_nothing_measured_is_neither_held_nor_not():
    assert [sign.held for sign in signs(run())] == [None] * 6
    assert all(sign.figure for sign in signs(run()))


def test_a_steady_fall():
    falling = of(losses=noisy(np.linspace(3, 1, 90)))[STEADY]
    assert falling.held is True
    assert falling.figure.startswith("-22")
    assert held(STEADY, losses=noisy(np.full(90, 2.0))) is False
    assert held(STEADY, losses=noisy(np.linspace(1, 3, 90))) is False
    assert held(STEADY, losses=[3.0, 2.0, 1.0]) is None


def test_a_fall_that_ended_before_the_last_third_is_not_steady():
    losses = np.concatenate([np.linspace(3, 1, 50), np.full(40, 1.0)])
    assert held(STEADY, losses=noisy(losses)) is False


def test_a_plateau():
    assert held(PLATEAU, drawn([2, 1.5, 1.5, 1.5, 1.5], 64, sd=0.01)) is True
    assert held(PLATEAU, drawn([2, 1.8, 1.6, 1.4, 1.2], 64)) is False
    assert held(PLATEAU, drawn([2, 1.8])) is None


def test_perplexity():
    falls = of(drawn([2.0, 1.9, 1.8]))[PERPLEXITY]
    assert falls.held is True
    assert "32 rows" in falls.figure
    assert float(falls.figure.split("%")[0]) == pytest.approx(100 * np.expm1(-0.2), abs=3)
    assert held(PERPLEXITY, drawn([2.0, 2.0, 2.0])) is False
    assert held(PERPLEXITY, drawn([2.0])) is None


def test_training_and_val_stay_close():
    means = [2.0, 1.8, 1.6]
    assert held(CLOSE, drawn(means), drawn(means, seed=1)) is True
    assert held(CLOSE, drawn(means), drawn([2.0, 1.5, 0.5], seed=1)) is False
    assert held(CLOSE, drawn(means)) is None


def test_rate_and_epoch_are_told():
    found = of(losses=np.linspace(3, 1, 40))
    assert found[RATE] == Sign(RATE, True, "peak 1.00e-04, now 1.00e-04")
    assert found[EPOCH] == Sign(EPOCH, True, "2.00 passes over the training rows")
