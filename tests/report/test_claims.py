import json

import pytest

from report.run_folders import FALL, NUM_VAL, RISE, append, edit, finished_run, scores
from sft.guards.statistics import paired
from sft.report.conclusion import answer
from sft.runs.run_records import read_run


def told(run):
    return answer(read_run(run))


def claims(run):
    return {claim.id: claim for claim in told(run).every}


def test_the_change_of_each_row_with_its_interval(tmp_path):
    run = finished_run(tmp_path / "mine")
    found = claims(run)
    loss, test = found["val_loss"], paired(FALL)
    assert loss.value == pytest.approx(sum(FALL) / NUM_VAL)
    assert loss.interval == pytest.approx(test.interval)
    assert (loss.before, loss.after) == pytest.approx((2.0, 2.0 + sum(FALL) / NUM_VAL))
    assert (loss.n, loss.verdict) == (NUM_VAL, "better")
    assert loss.p == pytest.approx(1 / 2**NUM_VAL)  # of 4,096 patterns of signs, this one alone
    assert 0 < loss.mde < 0.05
    assert "scores.jsonl" in [source.file for source in loss.sources]
    assert found["val_accuracy"].value == pytest.approx(0.3)
    assert (found["val_perplexity"].before, found["val_perplexity"].after) == (7.389, 2.718)
    assert (found["retain_loss"].verdict, found["retain_loss"].budget) == (
        "within the budget",
        0.05,
    )


def test_a_layman_is_told_first_what_was_won_and_what_it_cost(tmp_path):
    found = told(finished_run(tmp_path / "mine"))
    assert (found.kind, found.title) == ("good", "Better than the base model on held-out rows")
    first, second = found.sentences
    assert first == (
        "On 12 validation rows the model predicts the right answers better than the base model: "
        "word piece by word piece it is as unsure as between 2.7 equal choices, where the base "
        "model is as unsure as between 7.4. The loss of a row changed by \N{MINUS SIGN}1.005 nats "
        "per token (95 % interval \N{MINUS SIGN}1.024 to \N{MINUS SIGN}0.986, p < 0.001)."
    )
    assert second.startswith("What the base model knew, it kept. On 10 texts")
    assert any(
        "best of 3 evaluations on these same validation rows" in note for note in found.notes
    )


@pytest.mark.parametrize(
    ("fall", "title", "kind"),
    [
        ([-x for x in FALL], "Worse than the base model on held-out rows", "error"),
        ([0.5, -0.5] * 6, "No difference to the base model was seen", "info"),
    ],
)
def test_worse_and_the_same_are_called_so(tmp_path, fall, title, kind):
    found = told(finished_run(tmp_path / "mine", fall=fall))
    assert (found.title, found.kind) == (title, kind)
    if kind == "info":
        assert "within what chance does (one of 0." in found.sentences[0]
        assert "would be detected four times in five" in found.sentences[0]


def test_seven_rows_are_too_few_to_tell(tmp_path):
    run = finished_run(tmp_path / "mine")
    kept = [line for line in run.scores.read_text().splitlines() if _below(line, 7)]
    run.scores.write_text("\n".join(kept) + "\n")
    found = told(run)
    assert found.title == "Too few held-out rows to tell whether it is better"
    assert found.claims[0].verdict == "too few rows to tell"
    assert found.claims[0].mde is None


def _below(line, number):
    return any(f':{i}"' in line for i in range(number))


def test_what_was_forgotten_is_in_the_headline(tmp_path):
    over = told(finished_run(tmp_path / "over", rise=[0.2 + r for r in RISE]))
    assert over.title == "Better on the task, but it forgot more than the budget allows"
    assert over.kind == "warning"
    assert over.sentences[1].startswith("The price: it forgot.")
    rise = [0.3, -0.2] * 5
    unsure = told(finished_run(tmp_path / "unsure", rise=rise))
    assert unsure.sentences[1].startswith("Whether it forgot more than allowed cannot be told.")


def test_nothing_held_out_cannot_be_answered(tmp_path):
    run = finished_run(tmp_path / "mine")
    run.scores.unlink()
    edit(run.metrics, lambda r: {k: v for k, v in r.items() if not k.startswith("val_")})
    found = told(run)
    assert found.title == "Whether it is better cannot be said"
    assert "No rows were held out" in found.sentences[0]
    assert "was not measured" in found.sentences[1]
    assert found.kind == "info"


def test_rows_that_decide_nothing_answer_before_those_that_chose(tmp_path):
    run = finished_run(tmp_path / "mine")
    for step in (0, 8):
        append(run.scores, *scores("test", NUM_VAL, [-x for x in FALL], step))
    found = told(run)
    assert found.title == "Worse than the base model on held-out rows"
    assert "12 test rows" in found.sentences[0]
    assert not any("too good" in note for note in found.notes)


def test_better_here_and_worse_there_are_both_said(tmp_path):
    run = finished_run(tmp_path / "mine")
    for step in (0, 8):
        append(run.scores, *scores("usage", NUM_VAL, [-x for x in FALL], step))
        append(run.scores, *scores("test", NUM_VAL, FALL, step))
    assert told(run).title == "Better on test rows, worse on usage rows"


def test_written_answers_are_told_with_their_interval(tmp_path):
    found = told(finished_run(tmp_path / "mine", evaluated=True))
    (sentence,) = [text for text in found.sentences if "written answers" in text]
    assert sentence == (
        "In its written answers to 60 rows (eval-held_out.json), field accuracy is 70.0 % "
        "(57.0 % to 80.0 %), 10.0 % for the base model."
    )
    verdicts = {c.name: c.verdict for c in found.evaluations["eval-held_out.json"]}
    assert verdicts == {
        "loss": "not tested",
        "field accuracy": "better",
        "field accuracy.colour": "no difference seen",
    }
    assert "eval-held_out.json: 1 rows cannot be used and were left out" in found.notes


def test_rows_that_were_trained_on_are_told(tmp_path):
    run = finished_run(tmp_path / "mine")
    edit(run.preflight, lambda p: {**p, "rows": {**p["rows"], "num_leaks": 3}})
    assert "3 validation rows are in training too: their figures are too good." in told(run).notes


def test_the_last_step_was_chosen_by_no_eval(tmp_path):
    run = finished_run(tmp_path / "mine", checkpoint__choose="last", best={"best_step": 12})
    assert not any("too good" in note for note in told(run).notes)


def test_an_alarm_and_another_model_take_the_praise_back(tmp_path):
    guards = [{"guard": "forgetting", "verdict": "alarm"}, {"guard": "health", "verdict": "pass"}]
    alarmed = told(finished_run(tmp_path / "alarm", best={"guards": guards}))
    assert alarmed.kind == "warning"
    assert "these guards alarm: forgetting (the model is that of step 8" in alarmed.sentences[-1]
    wrong = {"verified": "DIFFERENT: the loss differs by 0.2"}
    other = told(finished_run(tmp_path / "other", best=wrong))
    assert (other.kind, other.title) == (
        "error",
        "The saved model is not the one that was measured",
    )
    assert other.sentences[0] == "DIFFERENT: the loss differs by 0.2"


def test_a_model_blended_afterwards_is_another_one(tmp_path):
    run = finished_run(tmp_path / "mine")
    point = {"alpha": 0.25, "task": {"mean": -0.4}, "retain": {"mean": 0.02}}
    run.blend.write_text(json.dumps({"alpha": 0.25, "points": [point]}))
    assert told(run).notes[-1] == (
        "Blending made a second model (0.25 of the way from the base model, blend.json): loss on "
        "the task \N{MINUS SIGN}0.400, on what the base model knew +0.020 nats per token. No other "
        "figure here is of that model."
    )


def test_a_blend_has_figures_of_its_own(tmp_path):
    best = {"step": 8, "blend_alpha": 0.5, "val_perplexity": 3.5}
    run = finished_run(tmp_path / "mine", best={"best": best})
    points = [
        {"alpha": alpha, "task": {"mean": mean, "se": 0.1, "n": 12}, "retain": {"mean": None}}
        for alpha, mean in ((0.0, 0.0), (0.5, -0.6))
    ]
    run.blend.write_text(json.dumps({"points": points}))
    found = told(run)
    blended = next(claim for claim in found.claims if claim.id == "blend_task")
    assert (blended.value, blended.interval) == (-0.6, pytest.approx((-0.796, -0.404)))
    assert any("blended with its base (0.5 of the way)" in note for note in found.notes)
    assert next(c for c in found.claims if c.id == "val_perplexity").after == 3.5
