"""Losses on `retain` written out: who forgets, who does not, and who cannot tell."""

from __future__ import annotations

import pytest

from pilot_runs import changes, only, pilot, told
from sft.guards.forgetting import forgetting

# Change of loss from the base model of twelve texts, in nats per token.
LOST = [0.31, 0.28, 0.35, 0.22, 0.40, 0.33, 0.26, 0.30, 0.29, 0.37, 0.25, 0.34]
KEPT = [-0.02, 0.01, -0.01, -0.03, 0.00, -0.02, 0.02, -0.01, 0.01, -0.02, -0.01, 0.00]
BARELY = [0.04, 0.05, 0.03, 0.06, 0.04, 0.05, 0.04, 0.03, 0.05, 0.04, 0.06, 0.05]
SCATTERED = [0.9, -0.8, 0.5, -0.6, 0.7, -0.9, 0.4, -0.2, 0.6, -0.7, 0.3, -0.1]


def retention(*evals, probe="retain", n=12, **settings):
    scores = changes(probe, dict(enumerate(evals, start=1)), n)
    return only(forgetting(told(scores, **settings)), "retention")


def test_a_loss_in_two_evals_is_an_alarm():
    finding = retention([x / 2 for x in LOST], LOST)
    assert (finding.verdict, finding.n, finding.threshold) == ("alarm", 12, 0.05)
    assert finding.statistic == pytest.approx(sum(LOST) / 12)
    assert finding.interval[0] > 0.05 and "sft blend RUN" in finding.remedy


def test_one_eval_alarms_only_beyond_doubt():
    assert retention(LOST).verdict == "alarm"  # t is above 8
    unsure = [x if i % 2 else x / 3 for i, x in enumerate(LOST)]
    assert retention(unsure).verdict == "watch"
    assert retention(unsure, unsure).verdict == "alarm"
    assert retention(unsure, KEPT).verdict == "pass"


def test_what_stays_within_the_budget_is_no_alarm():
    finding = retention(KEPT, KEPT)
    assert finding.verdict == "pass" and 0 < finding.mde < 0.05 and finding.remedy == ""
    assert f"{0.05 + finding.mde:.3f}" in finding.message
    assert retention(BARELY, BARELY).verdict == "watch"
    assert retention(BARELY, BARELY, forgetting_budget=0.3).verdict == "pass"
    assert retention(BARELY, BARELY, forgetting_budget=0.02).verdict == "alarm"


def test_too_few_texts_are_insufficient_however_bad_it_evals():
    finding = retention([0.9] * 7, [0.9] * 7, n=7)
    assert finding.verdict == "insufficient" and "8" in finding.message


def test_a_probe_that_sees_nothing_does_not_pass():
    finding = retention(SCATTERED, SCATTERED)
    assert finding.verdict == "insufficient" and finding.mde > 0.1
    assert "use about" in finding.message


def test_more_eval_share_one_alpha():
    evaluation = [0.08, 0.12, 0.05, 0.20, 0.04, 0.11, 0.09, 0.15, 0.03, 0.13, 0.07, 0.16]
    assert retention(evaluation, evaluation, num_evals=1).verdict == "alarm"
    assert retention(evaluation, evaluation, num_evals=60).verdict == "watch"


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([], "no `retain` probe"),
        (changes("val", {8: (0.5, 0.1)}), "no `retain` probe"),
        (changes("retain", {}), "only the base model"),
        (
            [row for row in changes("retain", {4: (0, 1), 8: (0, 1)}) if row["step"]],
            "no evaluation at",
        ),
    ],
)
def test_what_was_not_measured_never_passes(scores, reason):
    (finding,) = forgetting(told(scores))
    assert (finding.verdict, finding.primary) == ("not_measured", True)
    assert reason in finding.message


def test_the_message_says_that_validation_shows_nothing_of_it():
    findings = forgetting(pilot("forgetting"))
    assert "while val_loss improved by 0.457" in only(findings, "retention").message
    drift = only(findings, "drift")
    assert (drift.verdict, drift.primary) == ("watch", False)
    assert drift.statistic == pytest.approx(1.22)


def test_drift_within_the_budget_passes_and_without_kl_is_not_measured():
    assert only(forgetting(pilot("clean")), "drift").verdict == "pass"
    bare = told(changes("retain", {8: (0.0, 0.01)}))
    assert only(forgetting(bare), "drift").verdict == "not_measured"


def test_it_is_judged_as_of_a_step():
    run = pilot("forgetting")
    assert [f.step for f in forgetting(run.at(8))] == [8, 8]
    assert only(forgetting(run.at(8)), "retention").statistic == pytest.approx(0.870)
    assert forgetting(run.at(0))[0].verdict == "not_measured"
