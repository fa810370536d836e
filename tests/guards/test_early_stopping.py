"""Evaluations written out, and whether the run should end."""

from __future__ import annotations

import pytest

from sft.guards.early_stopping import best_eval, reason_to_stop


def reason(*losses: float, margin: float = 0.01, patience: int = 3) -> str | None:
    """Evaluations every 10 steps, the first before training."""
    evals = [(10 * k, loss) for k, loss in enumerate(losses)]
    return reason_to_stop(evals, margin=margin, patience=patience)


GO_ON = {
    "steady fall": [3.0, 2.5, 2.2, 2.0, 1.9, 1.85, 1.8],
    "slow fall, each evaluation better than all before": [2.0, 1.985, 1.97, 1.955, 1.94],
    "one bump": [3.0, 2.5, 2.0, 2.4, 1.9, 1.8],
    "two bumps, then better": [3.0, 2.0, 2.4, 2.3, 1.9],
    "better once, then worse twice": [3.0, 2.0, 1.8, 2.2, 2.3],
    "no evaluation at all": [],
    "only before training": [3.0],
    "too few evaluations, though they rise": [2.0, 2.5, 3.0],
}


@pytest.mark.parametrize("name", GO_ON)
def test_it_goes_on(name):
    assert reason(*GO_ON[name]) is None


def test_a_rise_ends_it():
    text = reason(3.0, 2.0, 2.2, 2.3, 2.4)
    assert text == (
        "val_loss rose: 2.4000 now, 2.0000 at step 10, and above it by more than 0.01 in 3 "
        "evaluations in a row"
    )


def test_a_rise_from_the_base_model_on_ends_it():
    assert "2.0000 at step 0" in reason(2.0, 2.2, 2.3, 2.4)


def test_a_plateau_ends_it():
    text = reason(3.0, 2.0, 1.995, 2.005, 1.992)
    assert text == (
        "val_loss is on a plateau: no evaluation of the last 3 is better than the 2.0000 of step "
        "10 by more than 0.01"
    )


def test_a_rise_with_one_eval_inside_the_margin_is_a_plateau():
    assert "plateau" in reason(3.0, 2.0, 2.3, 2.005, 2.4)


def test_creeping_below_the_margin_for_patience_evals_is_a_plateau():
    """Each evaluation is better, but all three together by less than the margin."""
    assert "plateau" in reason(3.0, 2.0, 1.997, 1.994, 1.991)
    assert reason(3.0, 2.0, 1.997, 1.994, 1.985) is None


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_patience_is_counted_exactly(patience):
    worse = [2.0] + [2.5] * patience
    assert reason(*worse, patience=patience) is not None
    assert reason(*worse[:-1], patience=patience) is None
    better_at_last = [2.0] + [2.5] * (patience - 1) + [1.5]
    assert reason(*better_at_last, patience=patience) is None


def test_the_margin_itself_is_no_change():
    assert "plateau" in reason(2.0, 1.75, patience=1, margin=0.25)
    assert reason(2.0, 1.5, patience=1, margin=0.25) is None
    assert "plateau" in reason(2.0, 2.25, patience=1, margin=0.25)
    assert "rose" in reason(2.0, 2.5, patience=1, margin=0.25)


def test_without_a_margin_any_change_counts():
    assert reason(2.0, 1.9999, margin=0.0, patience=1) is None
    assert "plateau" in reason(2.0, 2.0, margin=0.0, patience=1)
    assert "rose" in reason(2.0, 2.0001, margin=0.0, patience=1)


def test_the_best_before_counts_not_the_last_before():
    assert "1.0000 at step 10" in reason(3.0, 1.0, 2.0, 1.9, 1.8, 1.7)


def test_a_loss_that_is_not_a_number_is_worse_than_any():
    nan = float("nan")
    assert "rose: inf now, 2.0000 at step 10" in reason(3.0, 2.0, nan, nan, nan)
    assert reason(nan, 2.0, 1.8, 1.6) is None
    assert reason(3.0, nan, 2.0, 1.8, 1.6) is None
    assert reason(3.0, 2.0, nan, 1.8, nan) is None
    assert best_eval([(0, 3.0), (10, nan), (20, 2.0), (30, 2.5)]) == (20, 2.0)
    assert best_eval([(0, 3.0), (10, nan)]) is None


def test_best_eval_is_the_lowest_and_the_earliest_of_equals():
    assert best_eval([(0, 3.0), (10, 2.0), (20, 1.5), (30, 1.5), (40, 1.7)]) == (20, 1.5)


def test_best_eval_never_is_the_base_model():
    assert best_eval([(0, 1.0), (10, 2.0), (20, 3.0)]) == (10, 2.0)
    assert best_eval([(0, 1.0)]) is None
    assert best_eval([]) is None
