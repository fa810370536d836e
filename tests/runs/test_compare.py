"""Two runs on the same rows: what is said of them, and when nothing may be said."""

import json
import random

import pytest
import yaml
from scipy import stats

from sft.report.comparison_table import sentence
from sft.runs.compare import compare
from trained import Outcome

FINGERPRINT = {"files": {"rows.jsonl": "aa"}, "model": "m", "template": "t"}


@pytest.fixture
def run(tmp_path):
    """`run(name, losses)`: a finished run folder whose rows have these losses at its best step."""

    def make(name, losses, *, probe="val", tokens=10, step=8, best=None, more=(), first=1, **edits):
        folder = tmp_path / name
        folder.mkdir()
        config = {"config": {}, "fingerprint": {**FINGERPRINT, **edits}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        summary = {"best_step": step, "best": {"val_loss": 1.0, **(best or {})}}
        (folder / "summary.json").write_text(json.dumps(summary))
        lines = [
            {
                "step": at, "probe": probe, "id": f"rows.jsonl:{first + i}",
                "nll": (loss if at == step else 9.0) * tokens, "tokens": tokens,
                "bytes": 4 * tokens, "correct": 1,
            }
            for at in (0, step, step + 4)
            for i, loss in enumerate(losses)
        ]  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in (*lines, *more))
        (folder / "scores.jsonl").write_text(text)
        return folder

    return make


def noise(num, spread, seed=0):
    rng = random.Random(seed)
    return [rng.gauss(0, spread) for _ in range(num)]


BASE = [2 + value for value in noise(40, 0.5)]


def test_a_small_gain_is_seen_among_rows_that_differ_much(run):
    after = [loss - 0.03 + value for loss, value in zip(BASE, noise(40, 0.05, 1), strict=True)]
    a, b = run("a", BASE), run("b", after, step=4)
    found = compare(a, b)
    assert (found.verdict, found.n, found.step_a, found.step_b) == ("better", 40, 8, 4)
    delta = [y - x for x, y in zip(BASE, after, strict=True)]
    expected = stats.ttest_rel(after, BASE, alternative="less")
    assert found.difference == pytest.approx(sum(delta) / 40, abs=1e-12)
    assert found.p_better == pytest.approx(expected.pvalue, rel=1e-9)
    interval = stats.ttest_rel(after, BASE).confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.loss_a == pytest.approx(sum(BASE) / 40)
    assert 0.015 < found.mde < 0.035
    back = compare(b, a)
    assert back.verdict == "worse" and back.difference == -found.difference
    assert back.p_worse == found.p_better and back.mde == found.mde
    assert stats.ttest_ind(after, BASE).pvalue > 0.5  # what is seen without pairing


def test_a_difference_below_the_mde_is_none(run):
    after = [loss + value for loss, value in zip(BASE, noise(40, 0.2, 3), strict=True)]
    found = compare(run("a", BASE), run("b", after))
    assert found.verdict == "no difference seen" and abs(found.difference) < found.mde
    assert f"{found.mde:.4f} would be detected four times in five" in sentence(found)


def test_the_mde_is_seen_four_times_in_five(run):
    """And an effect of nothing is hardly ever called one."""
    names, effect, calls = iter(range(9999)), None, {0.0: 0, 1.0: 0}
    for seed in range(50):
        values = noise(40, 0.1, 1000 + seed)
        for size in calls:
            shift = 0.0 if size == 0 else -(effect or 0.05)
            after = [x + v + shift for x, v in zip(BASE, values, strict=True)]
            found = compare(run(f"a{next(names)}", BASE), run(f"b{next(names)}", after))
            effect = effect or found.mde
            calls[size] += found.verdict != "no difference seen"
    assert calls[0.0] <= 8 and 30 <= calls[1.0] <= 49


def test_seven_rows_are_too_few_and_eight_are_not(run):
    eight = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
    after = [loss - 0.1 - 0.01 * i for i, loss in enumerate(eight)]
    found = compare(run("a", eight), run("b", after))
    assert found.verdict == "better" and found.p_better == 1 / 256
    outcome = Outcome("compare", str(run("c", eight[:7])), str(run("d", after)))
    assert outcome.code == 3
    assert "7 rows of val were scored in both, and a comparison needs 8 or more" in outcome.error()


def test_only_rows_of_both_are_compared(run):
    a, b = run("a", BASE[:20]), run("b", BASE[10:30], first=11)
    found = compare(a, b)
    assert found.n == 10 and found.difference == 0
    assert "10 rows were scored in one run only and are left out" in found.notes
    assert "every row has the same loss in both" in sentence(found)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"tokens": 11}, "40 of 40 rows have other tokens, such as rows.jsonl:1 (10 and 11)"),
        ({"files": {"rows.jsonl": "bb"}}, "rows.jsonl was not the same file in both"),
    ],
)
def test_rows_that_are_not_the_same_are_refused(run, edits, message):
    outcome = Outcome("compare", str(run("a", BASE)), str(run("b", BASE, **edits)))
    assert outcome.code == 3 and message in outcome.error()


def test_other_answers_of_as_many_tokens_are_refused(run):
    b = run("b", BASE)
    text = (b / "scores.jsonl").read_text().replace('"bytes": 40', '"bytes": 41')
    (b / "scores.jsonl").write_text(text)
    outcome = Outcome("compare", str(run("a", BASE)), str(b))
    assert outcome.code == 3 and "other bytes of answer" in outcome.error()


def test_a_run_that_is_not_there_or_not_finished_or_not_scored(run, tmp_path):
    a, b = run("a", BASE), run("b", BASE)
    outcome = Outcome("compare", str(a), str(tmp_path / "bb"))
    assert outcome.code == 2 and "no such run folder" in outcome.error()
    outcome = Outcome("compare", str(a), str(b), "--probe", "usage")
    assert outcome.code == 2
    assert "nothing was scored on usage at step 8; scored were: val" in outcome.error()
    (b / "summary.json").unlink()
    outcome = Outcome("compare", str(a), str(b))
    assert outcome.code == 2 and "this run has not finished" in outcome.error()
    (b / "summary.json").write_text("[]")
    outcome = Outcome("compare", str(a), str(b))
    assert outcome.code == 3 and "summary.json: expected a JSON object" in outcome.error()


def test_what_else_differs_is_told(run):
    a = run("a", BASE)
    b = run("b", BASE, model="n", template="u", best={"blend_alpha": 0.5, "usage_loss": 1.0})
    notes = " | ".join(compare(a, b).notes)
    assert "different models" in notes and "different chat templates" in notes
    assert "was blended with the base model" in notes and "the best evaluation on val" in notes
    for name, losses in (("c", BASE), ("d", BASE)):
        run(name, losses, probe="test")
    assert compare(a.parent / "c", a.parent / "d", "test").notes == []


def test_a_row_without_a_finite_loss_is_left_out(run):
    a, b = run("a", BASE), run("b", BASE)
    text = (b / "scores.jsonl").read_text().splitlines()
    record = json.loads(text[40]) | {"nll": None, "nll_nonfinite": "inf"}
    (b / "scores.jsonl").write_text("\n".join([*text[:40], json.dumps(record), *text[41:]]) + "\n")
    assert compare(a, b).n == 39


def test_the_command_shows_a_table_or_json(run):
    after = [loss + 0.1 for loss in BASE]
    paths = [str(run("a", BASE)), str(run("b\x1b[31m", after))]
    shown = Outcome("compare", *paths)
    assert shown.code == 0 and "\x1b[31m" not in shown.out
    assert "B is worse than A by 0.1000 nats per token" in shown.out and "+0.1000" in shown.out
    outcome = Outcome("compare", *paths, "--json")
    record = json.loads(outcome.out)
    assert outcome.code == 0 and record["verdict"] == "worse" and record["n"] == 40
    assert record["difference"] == pytest.approx(0.1)
