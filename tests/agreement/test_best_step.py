"""Which step a run hands back: page, list of runs, report, card and the training itself."""

import pytest

from agreement.tellers import page, report, runs_json
from report.run_folders import edit, finished_run, unfinished_run
from sft.config import load_config
from sft.report.card import card
from sft.runs.best_step import best_step, rule_of
from sft.runs.compare import compare
from sft.runs.evaluations import evals_of
from sft.runs.files import identity
from sft.training.state import Counters

# val_loss is 2.0, 1.5, 1.0 and 1.1 after steps 0, 4, 8 and 12: the lowest is that of step 8.
CASES = {
    "the lowest loss": ({}, {}, 8),
    "over the forgetting budget": ({}, {8: 0.9}, 12),
    "all over the budget": ({}, {4: 0.9, 8: 0.9, 12: 0.9}, 8),
    "the budget is kept by blending": ({"guards__blend": "auto"}, {8: 0.9}, 8),
    "the last": ({"checkpoint__choose": "last"}, {}, 12),
    "a guard stops": ({"guards__forgetting": "stop"}, {12: "alarm"}, 12),
    "a guard restores": (
        {"checkpoint__choose": "last", "guards__forgetting": "restore_best"},
        {12: "alarm"},
        8,
    ),
}


def with_retention(run, by_step):
    """The forgetting guard measured next to nothing, except after these steps."""

    def change(record):
        if record["guard"] != "forgetting":
            return {**record, "verdict": "pass"}
        value = by_step.get(record["step"], 0.01)
        alarm = value == "alarm"
        statistic = 0.02 if alarm else value
        return {**record, "statistic": statistic, "verdict": "alarm" if alarm else "pass"}

    edit(run.findings, change)
    return run


def by_training(run, by_step):
    """The answer of the training itself, from what it counts as it goes."""
    rule = rule_of(load_config(identity(run)["config"]))
    counters = Counters(step=12, evals=[(r["step"], r["val_loss"]) for r in evals_of(run)])
    counters.over_budget = [
        step
        for step, value in by_step.items()
        if value != "alarm" and value > 0.05 and rule.budget is not None
    ]
    if "alarm" in by_step.values():
        counters.restore_best = rule.actions["forgetting"] == "restore_best"
        counters.keep_last = rule.actions["forgetting"] == "stop"
    step = rule.best_step(
        counters.evals,
        counters.over_budget,
        restore_best=counters.restore_best,
        keep_last=counters.keep_last,
    )
    return counters.step if step is None else step


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_has_not_finished(tmp_path, name):
    settings, by_step, expected = CASES[name]
    run = with_retention(unfinished_run(tmp_path / "mine", **settings), by_step)
    row = runs_json(run)
    tellers = {
        "training": by_training(run, by_step),
        "page": page(run, "snapshot")["best_step"],
        "sft runs": row["best_step"],
        "report": report(run)["run"]["best_step"],
    }
    assert tellers == dict.fromkeys(tellers, expected)
    assert row["best_val_loss"] == {8: 1.0, 12: 1.1}[expected]


@pytest.mark.parametrize("name", CASES)
def test_a_finished_run(tmp_path, name):
    settings, by_step, expected = CASES[name]
    losses = {"val_loss": {8: 1.0, 12: 1.1}[expected], "step": expected}
    run = finished_run(tmp_path / "mine", best={"best_step": expected, "best": losses}, **settings)
    with_retention(run, by_step)
    facts = report(run)
    tellers = {
        "the rule, had it not finished": by_training(run, by_step),
        "page": page(run, "snapshot")["best_step"],
        "sft runs": runs_json(run)["best_step"],
        "report": facts["run"]["best_step"],
        "the step compared": facts["run"]["compared_step"],
        "sft compare": compare(run.path, run.path).step_a,
    }
    assert tellers == dict.fromkeys(tellers, expected)
    assert f"These are the weights of step {expected}." in card(facts)


@pytest.mark.parametrize("name", CASES)
def test_what_chose_the_step(tmp_path, name):
    settings, by_step, expected = CASES[name]
    chosen = "val" if best_by_loss(name) else None
    run = finished_run(tmp_path / "mine", best={"best_step": expected}, **settings)
    with_retention(run, by_step)
    notes = report(run)["answer"]["notes"]
    compared = str(compare(run.path, run.path).notes)
    tellers = {
        "records": best_step(run, evals_of(run)).probe or None,
        "report": report(run)["run"]["chosen_by"],
        "the note": "val" if any("The step was chosen" in note for note in notes) else None,
        "sft compare": "val" if "chose the step" in compared else None,
    }
    assert tellers == dict.fromkeys(tellers, chosen)


def best_by_loss(name):
    return name not in ("the last", "a guard stops")
