"""Usage against training data, written out: what hurts, what only evaluations different, what is
open.
"""

from __future__ import annotations

import pytest

from pilot_runs import changes, only, pilot, told, uncovered
from sft.guards.distribution_mismatch import distribution_mismatch

# Change of loss from the base model of twelve examples, in nats per token.
BETTER = [-0.9, -0.7, -1.1, -0.8, -0.6, -1.0, -0.9, -0.7, -0.8, -1.2, -0.5, -0.9]
SAME = [0.01, -0.02, 0.00, 0.02, -0.01, 0.01, 0.03, -0.01, 0.00, 0.02, -0.02, 0.01]
WORSE = [0.31, 0.28, 0.35, 0.22, 0.40, 0.33, 0.26, 0.30, 0.29, 0.37, 0.25, 0.34]
A_LITTLE = [-0.01, 0.01, -0.02, 0.00, -0.01, 0.02, -0.03, 0.01, 0.00, -0.02, 0.01, -0.01]


def findings(val=(), usage=(), preflight=None, probe="usage", n=12):
    """Evaluations at steps 1, 2, ... ; each a list of changes."""
    scores = [changes("val", dict(enumerate(val, 1)), n)] if val else []
    if usage:
        scores.append(changes(probe, dict(enumerate(usage, 1)), n))
    return distribution_mismatch(told(*scores, preflight=preflight))


def signal(name, *args, **kwargs):
    return only(findings(*args, **kwargs), name)


def shares(preflight, **kwargs):
    return signal("coverage", preflight=preflight, **kwargs)


def test_learning_that_does_not_help_usage_is_an_alarm():
    finding = signal("transfer", [BETTER, BETTER], [SAME, SAME])
    assert (finding.verdict, finding.n, finding.threshold) == ("alarm", 12, 0.25)
    assert finding.statistic == pytest.approx(-(0.04 / 12) / (10.1 / 12))
    assert finding.interval[1] < 0.25 and "usage_weighting" in finding.remedy


def test_one_eval_is_watched():
    """The evidence of these twelve rows is t = 13; of noisier ones it is less."""
    assert signal("transfer", [BETTER], [SAME]).verdict == "alarm"
    noisy = [x + (0.2 if i % 2 else -0.2) for i, x in enumerate(SAME)]
    assert signal("transfer", [BETTER], [noisy]).verdict == "watch"


def test_usage_that_profits_passes():
    finding = signal("transfer", [BETTER, BETTER], [BETTER, BETTER])
    assert finding.verdict == "pass" and finding.statistic == pytest.approx(1.0)


def test_while_validation_has_not_moved_nothing_is_judged():
    for val in (SAME, A_LITTLE, WORSE):
        finding = signal("transfer", [val, val], [SAME, SAME])
        assert finding.verdict == "insufficient" and finding.statistic is None
        assert "not improved enough" in finding.message


def test_a_ratio_that_could_be_anything_is_insufficient():
    wild = [2.0 if i % 2 else -2.1 for i in range(12)]
    assert signal("transfer", [BETTER, BETTER], [wild, wild]).verdict == "insufficient"


def test_fewer_than_eight_prompts_are_insufficient():
    few = {"val": [BETTER[:7]] * 2, "usage": [WORSE[:7]] * 2, "n": 7}
    assert signal("transfer", **few).verdict == "insufficient"
    assert signal("harm", **few).verdict == "insufficient"
    assert shares(uncovered(7, 7)).verdict == "insufficient"


def test_usage_that_gets_worse_is_an_alarm():
    finding = signal("harm", [BETTER, BETTER], [WORSE, WORSE])
    assert finding.verdict == "alarm" and finding.statistic == pytest.approx(sum(WORSE) / 12)
    assert signal("harm", [BETTER, BETTER], [SAME, SAME]).verdict == "pass"
    assert signal("harm", [BETTER, BETTER], [WORSE, SAME]).verdict == "pass"


@pytest.mark.parametrize(
    ("k", "n", "expected"),
    [
        (25, 32, "watch"),  # before training it is a fact about data, no more
        (3, 32, "pass"),
        (7, 32, "watch"),
        (5, 32, "pass"),  # .16, as chance would have it once in five
        (16, 100, "watch"),
        (1, 10, "insufficient"),  # ten prompts would only show more than half
    ],
)
def test_uncovered_prompts_before_training(k, n, expected):
    assert shares(uncovered(k, n)).verdict == expected


def test_the_uncovered_prompts_are_named():
    finding = shares(uncovered(25))
    assert finding.message.startswith("25 of 32 usage prompts (78%)")
    assert "most of them: poem, haiku (25)" in finding.message
    assert 0.1 < finding.mde < 0.4


def test_uncovered_prompts_alarm_once_they_cost_something():
    """Trap T6: the same topics in another style are uncovered too, but usage profits."""
    assert shares(uncovered(25), val=[BETTER] * 2, usage=[SAME] * 2).verdict == "alarm"
    assert shares(uncovered(25), val=[BETTER] * 2, usage=[BETTER] * 2).verdict == "watch"
    assert shares(uncovered(25), val=[A_LITTLE] * 2, usage=[SAME] * 2).verdict == "watch"
    assert shares(uncovered(25), val=[A_LITTLE] * 2, usage=[WORSE] * 2).verdict == "alarm"


def test_other_style_is_never_an_alarm():
    """T6 in full, with a classifier that tells the styles apart."""
    preflight = uncovered(20)
    preflight["usage"]["classifier"] = {"auc": 0.95, "p": 1e-6, "words": ["hey", "quick"]}
    for evals in ([BETTER], [BETTER, BETTER], [A_LITTLE, BETTER]):
        found = findings(evals, evals, preflight)
        assert "alarm" not in {f.verdict for f in found}
    assert only(found, "classifier").verdict == "watch"
    assert "hey, quick" in only(found, "classifier").message
    assert not only(found, "classifier").primary


def test_prompts_without_answers_cannot_be_judged_and_it_says_so():
    found = findings([BETTER], [WORSE], uncovered(3), probe="usage_drift")
    for name in ("transfer", "harm"):
        assert only(found, name).verdict == "not_measured"
        assert "cannot be judged" in only(found, name).message
    assert "+0.308 nats" in only(found, "transfer").message
    assert only(found, "coverage").verdict == "pass"


def test_without_usage_nothing_passes():
    found = findings([BETTER, BETTER])
    assert {f.verdict for f in found} == {"not_measured"}
    assert {f.signal for f in found if f.primary} == {"coverage", "transfer", "harm"}
    assert all("--usage FILE" in f.message for f in found)
    base_only = distribution_mismatch(told(changes("val", {}), changes("usage", {})))
    assert {f.verdict for f in base_only} == {"not_measured"}


def test_the_slice_that_lost_is_named():
    preflight = uncovered(3)
    rows = {f"usage:{i}": "poems" if i < 6 else "sums" for i in range(12)}
    preflight["usage"]["slices"] = rows
    split = WORSE[:6] + BETTER[6:]
    finding = signal("slices", [BETTER], [split], preflight)
    assert finding.verdict == "watch" and '"poems"' in finding.message and not finding.primary
    assert finding.statistic == pytest.approx(sum(WORSE[:6]) / 6)
    assert signal("slices", [BETTER], [BETTER], preflight).verdict == "pass"
    preflight["usage"]["slices"] = {name: name for name in rows}
    assert signal("slices", [BETTER], [split], preflight).verdict == "not_measured"


def test_facts_are_told():
    preflight = uncovered(3)
    facts = [
        {"name": "length", "train": 12, "usage": 15, "differs": False, "message": "alike"},
        {"name": "language", "train": "en", "usage": "de", "differs": True, "message": "German!"},
    ]
    preflight["usage"]["facts"] = facts
    finding = signal("facts", preflight=preflight)
    assert (finding.verdict, finding.message, finding.primary) == ("watch", "German!", False)
    preflight["usage"]["facts"] = facts[:1]
    assert signal("facts", preflight=preflight).verdict == "pass"


def test_the_pilot_alarms_and_the_clean_one_does_not():
    found = distribution_mismatch(pilot("distribution_mismatch"))
    assert {f.signal for f in found if f.verdict == "alarm"} == {"coverage", "transfer"}
    clean = distribution_mismatch(pilot("clean"))
    assert {f.verdict for f in clean} <= {"pass", "insufficient", "not_measured"}
