"""Every pilot run gives its own pitfall first; what overlaps is told as one story."""

from __future__ import annotations

import pytest

from pilot_runs import PILOT, Change, changes, only, pilot, told, uncovered, with_openings
from sft.guards.attribution import causes, name_of
from sft.guards.base import Finding, GuardSettings, verdicts
from sft.guards.history import history
from sft.guards.judge import GUARDS, judge, rank

PITFALLS = [name for name in PILOT if name != "clean"]


@pytest.mark.parametrize("name", PITFALLS)
def test_each_pilot_gives_its_own_pitfall_first(name):
    alarms = rank(judge(pilot(name)))
    assert alarms and alarms[0].guard == name, [name_of(f) for f in alarms]


def test_the_clean_pilot_is_silent():
    for step in (8, 16):
        found = judge(pilot("clean").at(step))
        assert rank(found) == []
        assert {f.verdict for f in found if f.primary} <= {"pass", "insufficient", "not_measured"}


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("overfitting", {"forgetting", "distribution_mismatch"}),
        ("format_collapse", {"distribution_mismatch"}),
        ("distribution_mismatch", set()),
        ("forgetting", {"distribution_mismatch"}),
    ],
)
def test_no_other_guard_alarms_but_those_that_may(name, others):
    for step in (8, 16):
        alarms = rank(judge(pilot(name).at(step)))
        assert {f.guard for f in alarms} <= {name} | others


def test_without_usage_too_each_pitfall_that_can_be_seen_comes_first():
    for name in ("overfitting", "format_collapse", "forgetting"):
        run = pilot(name)
        scores = {probe: table for probe, table in run.tables.items() if probe != "usage"}
        alone = type(run)(run.settings, run.metrics, scores)
        assert rank(judge(alone))[0].guard == name
        assert verdicts(judge(alone))["distribution_mismatch"].verdict == "not_measured"


def test_overfitting_explains_that_usage_suffers():
    found = judge(pilot("overfitting"))
    rise, harm = only(found, "paired_rise"), only(found, "harm")
    assert "distribution_mismatch.harm" in rise.explains
    assert (rise.verdict, harm.verdict) == ("alarm", "watch")
    assert "Explained by overfitting.paired_rise: loss on val rose by 0.73 nats" in harm.message


RISES: Change = (0.30, 0.01)


def damaged(val: Change, usage: Change, retain: Change, train: float = -1.5, **openings):
    """Two evaluations alike; training loss falls."""
    tables = [
        changes(probe, {1: change, 2: change})
        for probe, change in (("val", val), ("usage", usage), ("retain", retain))
    ]
    for table in tables[:2] if openings else ():
        with_openings(
            table, {0: (0.18, 1.18, 0, 0), 1: openings["evaluation"], 2: openings["evaluation"]}
        )
    tables.append(changes("train_probe", {1: (train / 2, 0.02), 2: (train, 0.02)}))
    return told(*tables, preflight=uncovered(3))


def test_overfitting_first_and_forgetting_stays_an_alarm():
    found = judge(damaged((0.8, 0.03), (0.8, 0.03), RISES))
    assert [name_of(f) for f in rank(found)] == ["overfitting.paired_rise", "forgetting.retention"]
    assert set(only(found, "paired_rise").explains) == {
        "distribution_mismatch.harm",
        "forgetting.retention",
    }


def test_forgetting_first_where_it_is_much_the_larger_damage():
    found = judge(damaged((0.1, 0.003), (1.0, 0.03), (1.0, 0.03)))
    assert [f.guard for f in rank(found)] == ["forgetting", "overfitting"]
    assert only(found, "harm").verdict == "watch"
    assert "overfitting.paired_rise" in only(found, "retention").explains


def test_usage_that_suffers_far_more_than_the_rest_is_not_explained():
    found = judge(damaged((-0.5, 0.02), (1.0, 0.03), (0.1, 0.003)))
    assert only(found, "harm").verdict == "alarm"
    assert rank(found)[0].guard == "distribution_mismatch"


def test_forgetting_explains_that_usage_gets_worse():
    found = judge(damaged((-0.5, 0.02), (1.0, 0.03), (0.9, 0.03)))
    assert [name_of(f) for f in rank(found)] == ["forgetting.retention"]
    assert only(found, "transfer").verdict == only(found, "harm").verdict == "watch"


SURE = (0.96, 0.06, 5.6, 0.12)


def test_a_collapsed_opener_explains_what_that_token_costs():
    """0.1 nats over 40 tokens are 4 of the 5.6 nats that the opener costs."""
    found = judge(damaged((-0.5, 0.02), (0.1, 0.003), (0.0, 0.01), evaluation=SURE))
    assert [name_of(f) for f in rank(found)] == ["format_collapse.opener"]
    opener = only(found, "opener")
    assert set(opener.explains) == {"distribution_mismatch.harm", "distribution_mismatch.transfer"}
    assert "the opener alone costs 5.6 nats per answer, the whole rise is 4.0" in opener.message
    assert only(found, "harm").verdict == "watch"


def test_a_collapsed_opener_does_not_explain_more_than_that():
    found = judge(damaged((-0.5, 0.02), (0.6, 0.02), (0.0, 0.01), evaluation=SURE))
    assert only(found, "harm").verdict == "alarm"
    assert only(found, "opener").explains == ()


def test_a_rise_where_references_open_like_the_model_is_not_the_openers():
    run = damaged((0.1, 0.003), (0.0, 0.01), (0.0, 0.01), evaluation=SURE)
    found = only(judge(run), "paired_rise")
    assert found.verdict == "watch"  # its references open otherwise: the opener costs that much
    run.tables["val"].columns["first_label"][:] = 3
    assert "paired_rise" not in str(only(judge(run), "opener").explains)


def test_everything_at_once_alarms_everywhere():
    """Cocktail: learned by heart, prefixed, elsewhere, and at a high learning rate."""
    spread = (0.96, 0.06, 8.0, 3.0)
    run = damaged((1.0, 0.03), (1.5, 0.05), (0.9, 0.03), evaluation=spread)
    run = type(run)(run.settings, run.metrics, run.tables, (), uncovered(25))
    alarms = [f.guard for f in rank(judge(run))]
    assert alarms[0] == "overfitting"
    assert set(alarms) == set(GUARDS) - {"health"}


def test_every_guard_has_a_verdict_and_none_passes_unmeasured():
    found = verdicts(judge(history(GuardSettings())))
    assert list(found) == list(GUARDS)
    assert {finding.verdict for finding in found.values()} == {"not_measured"}


def finding(guard, signal, verdict, statistic=None, threshold=None, primary=True, explains=()):
    return Finding(
        guard,
        signal,
        verdict,
        8,
        "",
        statistic=statistic,
        threshold=threshold,
        primary=primary,
        explains=explains,
    )


def test_the_worst_primary_finding_stands_for_its_guard():
    found = [
        finding("forgetting", "a", "watch", 9.0, 1.0),
        finding("forgetting", "b", "alarm", 2.0, 1.0),
        finding("forgetting", "c", "alarm", 3.0, 1.0),
        finding("forgetting", "d", "alarm", 9.0, 1.0, primary=False),
        finding("health", "e", "pass"),
    ]
    assert {guard: f.signal for guard, f in verdicts(found).items()} == {
        "forgetting": "c",
        "health": "e",
    }


def test_causes_come_before_what_they_explain_even_in_a_circle():
    found = [
        finding("overfitting", "x", "alarm", explains=("forgetting.z",)),
        finding("forgetting", "z", "alarm", explains=("overfitting.x", "distribution_mismatch.h")),
        finding("distribution_mismatch", "h", "alarm"),
        finding("new_guard", "n", "alarm"),
    ]
    assert causes(found) == {
        "forgetting": {"overfitting"},
        "overfitting": {"forgetting"},
        "distribution_mismatch": {"forgetting"},
    }
    order = ["new_guard", "overfitting", "forgetting", "distribution_mismatch"]
    assert [f.guard for f in rank(found)] == order


def test_judging_twice_gives_the_same():
    run = pilot("overfitting")
    assert judge(run) == judge(run)
