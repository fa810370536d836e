"""First-token tables written out: collapse, tasks that are meant to look like it, too little."""

from __future__ import annotations

import pytest

from pilot_runs import changes, only, pilot, told, with_openings
from sft.guards.completions import in_a_loop
from sft.guards.format_collapse import format_collapse

STILL = (0.0, 0.01)
BASE = (0.18, 1.18, 0.0, 0.0)
SURE = (0.96, 0.06, 5.6, 0.12)


def openings(probe, *evals, n=20, labels=None):
    """The base, then `evaluations` of p_top, MI, KL at position 1, KL at 2-5."""
    steps = range(1, len(evals) + 1)
    scores = changes(probe, dict.fromkeys(steps, STILL), n)
    scores = with_openings(scores, {0: BASE, **dict(zip(steps, evals, strict=True))})
    for row in scores if labels else ():
        row["first_label"] = labels[int(row["id"].partition(":")[2])]
    return scores


def verdict(*scores, signal="opener", **told_more):
    return only(format_collapse(told(*scores, **told_more)), signal)


def test_one_opener_for_all_prompts_is_an_alarm():
    finding = verdict(openings("usage", SURE, SURE))
    assert (finding.verdict, finding.n) == ("alarm", 20)
    assert finding.statistic == pytest.approx(0.96)
    assert finding.threshold == pytest.approx(0.737, abs=0.001)  # 4 of 20: at most .437, plus .3


def test_the_first_eval_alarms_only_beyond_doubt():
    assert verdict(openings("usage", SURE)).verdict == "alarm"
    unsure = (0.75, 0.06, 5.6, 0.12)
    assert verdict(openings("usage", unsure)).verdict == "watch"
    assert verdict(openings("usage", unsure, unsure)).verdict == "alarm"


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        ((0.17, 1.18, 0.1, 0.1), "pass"),  # clean pilot
        ((0.32, 1.54, 4.0, 0.93), "pass"),  # tiny pilot
        ((0.28, 0.34, 1.9, 1.5), "pass"),  # forgetting pilot: information is lost, no mass
        ((0.90, 1.00, 5.6, 0.12), "watch"),  # mass, but openers still follow the prompt
        ((0.60, 0.06, 5.6, 0.12), "watch"),  # not .3 above the bound of the references
    ],
)
def test_all_three_conditions_are_needed(evaluation, expected):
    assert verdict(openings("usage", evaluation, evaluation)).verdict == expected


def test_a_json_task_is_meant_to_open_alike():
    """Trap T1: every reference opens with the same brace, in usage too."""
    brace = [3] * 20
    both = openings("val", SURE, SURE, labels=brace), openings("usage", SURE, SURE, labels=brace)
    finding = verdict(*both)
    assert finding.verdict == "pass" and "as the reference answers for usage do" in finding.message
    assert verdict(both[0]).verdict == "watch"
    assert "give `--usage FILE`" in verdict(both[0]).message


def test_openers_of_the_references_but_with_another_token_are_watched():
    finding = verdict(openings("usage", SURE, SURE, labels=[42] * 20))
    assert finding.verdict == "watch" and "another token" in finding.message


def test_usage_decides_where_there_is_one():
    """Validation split from the same answers opens alike by itself and would hide it."""
    val = openings("val", SURE, SURE, labels=[3] * 20)
    assert verdict(val).verdict == "watch"
    assert verdict(val, openings("usage", SURE, SURE)).verdict == "alarm"
    assert verdict(val, openings("usage", SURE, SURE, n=4)).verdict == "watch"  # too few: val


def test_fewer_than_eight_prompts_are_insufficient():
    assert verdict(openings("usage", SURE, SURE, n=7)).verdict == "insufficient"
    assert verdict(openings("usage", SURE, SURE, n=8)).verdict != "insufficient"


def test_what_was_not_measured_never_passes():
    for scores in ([], changes("retain", {8: STILL}), openings("usage")):
        findings = format_collapse(told(scores))
        assert {f.verdict for f in findings} == {"not_measured"}
        assert [f.signal for f in findings if f.primary] == ["opener"]
    no_first_token = verdict(changes("val", {8: STILL}))
    assert no_first_token.verdict == "not_measured"


def test_shallow_kl_tells_the_pilots_apart():
    ratios = {
        name: only(format_collapse(pilot(name)), "shallow_kl")
        for name in ("clean", "overfitting", "format_collapse", "forgetting")
    }
    assert {k: f.verdict for k, f in ratios.items()} == {
        "clean": "pass",
        "overfitting": "pass",
        "format_collapse": "watch",
        "forgetting": "pass",
    }
    assert ratios["format_collapse"].statistic == pytest.approx(5.6 / 0.12)


def test_a_large_ratio_of_nothing_is_nothing():
    assert verdict(openings("val", (0.2, 1.2, 0.02, 0.0005)), signal="shallow_kl").verdict == "pass"


def surface(before, after):
    """Ten rows; `(nll on 4 boilerplate tokens, nll on the other 36)` at the base, then twice."""
    scores = changes("val", dict.fromkeys((1, 2), [0.0] * 10), 10)
    for i, row in enumerate(scores):
        wobble = 0.5 if i % 2 else -0.5
        boilerplate, content = after if row["step"] else before
        row["surface_nll"], row["surface_tokens"] = boilerplate, 4
        row["nll"] = boilerplate + content + (wobble if row["step"] else 0.0)
    return verdict(scores, signal="surface_share")


def test_learning_only_boilerplate_is_an_alarm_that_does_not_decide():
    finding = surface((12.0, 60.0), (2.0, 60.0))
    assert (finding.verdict, finding.primary) == ("alarm", False)
    assert finding.statistic == pytest.approx(1.0)


def test_learning_content_too_is_none():
    finding = surface((12.0, 60.0), (2.0, 55.0))
    assert finding.verdict == "pass" and finding.statistic == pytest.approx(10 / 15)
    assert surface((12.0, 60.0), (12.0, 60.0)).verdict == "insufficient"


PLACES = ["rivers", "towns", "hills", "roads", "lakes", "farms", "ports", "walls", "gates", "inns"]


def sampled(now, base, references):
    return [
        {
            "step": step,
            "probe": "usage",
            "id": f"usage:{i}",
            "prompt": "p",
            "answer": answer,
            "reference": reference,
            "stop_reason": "stop",
            "tokens": 9,
        }
        for step, answers in ((0, base), (8, now))
        for i, (answer, reference) in enumerate(zip(answers, references, strict=True))
    ]


def generation(now, base, references):
    return verdict(
        changes("usage", {8: STILL}),
        signal="generation",
        samples=sampled(now, base, references),
    )


def test_written_answers_that_open_alike():
    plain = [f"{place} are old and {i} of them" for i, place in enumerate(PLACES)]
    sure = [f"Sure! Here is {text}" for text in plain]
    finding = generation(sure, plain, plain)
    assert (finding.verdict, finding.primary) == ("alarm", False)
    assert '10 of 10 sampled answers open with "sure"' in finding.message
    assert "ended by themselves 10 (10)" in finding.message
    assert generation(plain, plain, plain).verdict == "pass"
    assert generation(sure, plain, sure).verdict == "pass"  # as the references do
    assert generation(sure, sure, plain).verdict == "pass"  # as the base model does
    assert generation(sure, plain, [None] * 10).verdict == "watch"
    assert generation(sure[:7], plain[:7], plain[:7]).verdict == "insufficient"


def test_answers_in_a_loop_are_watched():
    plain = [f"{place} are old and {i} of them" for i, place in enumerate(PLACES)]
    loops = [f"{place} " + "is what it is, " * 5 for place in PLACES]
    assert generation(loops, plain, plain).verdict == "watch"


@pytest.mark.parametrize(
    ("count", "reference", "expected"),
    [
        (60, {"n": 32, "opener_count": 1}, "alarm"),
        (60, {"n": 32, "opener_count": 32}, "pass"),  # T1: usage is meant to be so
        (60, None, "watch"),
        (20, {"n": 32, "opener_count": 1}, "watch"),
        (2, {"n": 32, "opener_count": 1}, "pass"),
        (2, None, "pass"),
    ],
)
def test_training_answers_that_open_alike(count, reference, expected):
    answers = {"n": 64, "opener": "sure here is", "opener_count": count, "reference": reference}
    finding = verdict(openings("usage", SURE), signal="openers", preflight={"answers": answers})
    assert (finding.verdict, finding.primary) == (expected, False)
    assert "sure here is" in finding.message


def test_a_loop_is_four_words_three_times():
    assert in_a_loop("so it goes on " * 3) and not in_a_loop("so it goes on " * 2)
