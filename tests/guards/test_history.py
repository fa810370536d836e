"""Records in, tables out: written-out lines, gaps, and replay."""

from __future__ import annotations

import math

import numpy as np

from sft.guards.base import Finding, GuardSettings, verdicts
from sft.guards.history import history

SCORES = [
    {"step": 0, "probe": "val", "id": "a", "nll": 4.0, "tokens": 2, "correct": 1},
    {"step": 0, "probe": "val", "id": "b", "nll": 9.0, "tokens": 3, "correct": 0},
    {"step": 0, "probe": "usage", "id": "a", "nll": 7.0, "tokens": 7, "correct": 0},
    {"step": 10, "probe": "val", "id": "b", "nll": None, "nll_nonfinite": "nan", "tokens": 3},
    {"step": 10, "probe": "val", "id": "a", "nll": 2.0, "tokens": 2, "correct": 2},
]
METRICS = [
    {"step": 1, "loss": 3.0},
    {"step": 2, "loss": None, "loss_nonfinite": "nan"},
    {"step": 10, "val_loss": 1.0},
    {"step": 11, "loss": 2.0},
]


def record():
    return history(GuardSettings(), METRICS, SCORES, [{"step": 10, "id": "a"}])


def test_a_table_has_a_row_for_each_eval_and_a_column_for_each_example():
    table = record().table("val")
    assert (table.steps, table.ids) == ((0, 10), ("a", "b"))
    np.testing.assert_array_equal(table.loss, [[2.0, 3.0], [1.0, math.nan]])
    np.testing.assert_array_equal(table.column("correct"), [[1, 0], [2, math.nan]])


def test_examples_of_two_probes_are_kept_apart():
    assert record().table("usage").loss.tolist() == [[1.0]]
    assert record().table("retain") is None


def test_what_was_not_recorded_is_not_a_number():
    column = record().table("val").column("kl")
    assert column.shape == (2, 2)
    assert np.isnan(column).all()


def test_training_losses():
    steps, losses = record().losses()
    assert steps.tolist() == [1, 2, 11]
    np.testing.assert_array_equal(losses, [3.0, math.nan, 2.0])


def test_steps_and_evals():
    assert record().step == 11
    assert record().eval_steps == (0, 10)
    assert history(GuardSettings()).eval_steps == ()
    assert history(GuardSettings()).step == 0


def test_replay_sees_nothing_of_what_came_later():
    early = record().at(2)
    assert early.eval_steps == (0,)
    assert early.step == 2
    assert len(early.metrics) == 2
    assert list(early.samples) == []
    assert early.table("val").loss.tolist() == [[2.0, 3.0]]
    assert record().at(11).eval_steps == record().eval_steps


def test_a_probe_that_starts_later_is_absent_before():
    scores = [*SCORES, {"step": 10, "probe": "retain", "id": "x", "nll": 1.0, "tokens": 1}]
    whole = history(GuardSettings(), METRICS, scores)
    assert whole.at(9).table("retain") is None
    assert whole.at(10).table("retain").steps == (10,)


def test_resampled_rows():
    rows = record().table("val").rows([1, 1, 0])
    assert rows.ids == ("b", "b", "a")
    assert rows.loss[0].tolist() == [3.0, 3.0, 2.0]


def test_a_finding_survives_its_line():
    finding = Finding("g", "s", "watch", 3, "text", 1.0, 0.5, (0.5, 1.5), 0.2, 9, "nats")
    line = {**finding.record(), "interval": [0.5, 1.5], "explains": [], "later": "ignored"}
    assert Finding.from_record(line) == finding


def test_the_worst_verdict_wins():
    def of(*signals):
        worst = verdicts([Finding("g", "s", verdict, 0, "") for verdict in signals])
        return {guard: finding.verdict for guard, finding in worst.items()}

    assert of("pass", "watch", "insufficient") == {"g": "watch"}
    assert of("pass", "not_measured") == {"g": "not_measured"}
    assert of() == {}
