import json
import math

import pytest

from sft.errors import ConfigError
from sft.evaluate.tasks import (
    TASKS,
    choose_task,
    mean_share,
    normalised,
    parse_object,
    token_f1,
    wilson,
    words,
)

SUMMARIES = ["Parcel came without its lid", "Asks for an invoice copy", "Kettle leaks on the base"]


def ticket(category, urgent=False, summary="Parcel came without its lid", **more):
    return json.dumps({"category": category, "urgent": urgent, "summary": summary, **more})


REFERENCES = [
    ticket("delivery", True, SUMMARIES[0]),
    ticket("billing", False, SUMMARIES[1]),
    ticket("defect", True, SUMMARIES[2]),
]


def values(measures):
    return {name: measure.value for name, measure in measures.items()}


@pytest.mark.parametrize(("share", "n"), [(0.0, 10), (0.5, 10), (0.9, 60), (1.0, 60), (1.0, 1)])
def test_wilson_bounds_are_those_1_96_standard_errors_away(share, n):
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1 and low < high
    for bound in {low, high} - {share}:
        error = math.sqrt(bound * (1 - bound) / n)  # of the bound, not of the share: Wilson's idea
        assert abs(share - bound) == pytest.approx(1.959964 * error)


def test_a_share_carries_n_and_its_interval():
    measure = mean_share([True, False, 1.0, 0.0])
    assert (measure.value, measure.unit, measure.n) == (0.5, "share", 4)
    assert measure.interval == wilson(0.5, 4)


@pytest.mark.parametrize(
    ("references", "task"),
    [
        (REFERENCES, "json"),
        (['{"a": 1}', "yes"], "exact"),
        (["[1, 2]"], "exact"),
        (["Paris", "Berlin."], "exact"),
        ([" ".join(["word"] * 20)], "exact"),
        (["Paris", " ".join(["word"] * 21)], "overlap"),
        (["一" * 21], "overlap"),
    ],
)
def test_auto_picks_from_the_references(references, task):
    assert choose_task("auto", references) == task


def test_a_task_can_be_named():
    assert choose_task("overlap", REFERENCES) == "overlap"
    with pytest.raises(ConfigError, match="Did you mean 'overlap'"):
        choose_task("overlaps", REFERENCES)
    with pytest.raises(ConfigError, match="all JSON objects"):
        choose_task("json", ["yes"])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", '```json\n{"a": 1}\n```', '{"a": NaN}', '{"a": 1} ok', "[" * 99_999],
)
def test_what_is_no_json_object(text):
    assert parse_object(text) is None


def test_json_all_right():
    found = TASKS["json"].score(REFERENCES, REFERENCES)
    assert values(found) == {
        "json_valid": 1.0,
        "json_keys": 1.0,
        "field_accuracy": 1.0,
        "field_accuracy.category": 1.0,
        "field_accuracy.urgent": 1.0,
        "token_f1.summary": 1.0,
    }
    assert {measure.n for measure in found.values()} == {3}


def test_json_by_hand():
    answers = [
        ticket(" delivery ", True, "parcel came with its lid"),  # space does not count
        ticket("Billing", 0, "Asks for an invoice", extra=1),  # 0 is not false
        "Sure! " + REFERENCES[2],  # invalid: 0 for every field
    ]
    found = TASKS["json"].score(answers, REFERENCES)
    assert values(found) == {
        "json_valid": pytest.approx(2 / 3),
        "json_keys": pytest.approx(1 / 3),
        "field_accuracy": pytest.approx((1 + 0 + 0) / 3),
        "field_accuracy.category": pytest.approx(1 / 3),
        "field_accuracy.urgent": pytest.approx(1 / 3),
        "token_f1.summary": pytest.approx((4 / 5 + 8 / 9 + 0) / 3),
    }


def test_a_missing_field_is_wrong():
    found = TASKS["json"].score(['{"a": null}', "{}"], ['{"a": null}', '{"a": null}'])
    assert found["field_accuracy.a"].value == 0.5


def test_a_field_is_measured_on_the_rows_that_have_it():
    references = ['{"a": 1, "b": 2}', '{"a": 1}', "{}"]
    found = TASKS["json"].score(['{"a": 1, "b": 3}', '{"a": 1, "b": 2}', "{}"], references)
    assert (found["field_accuracy.a"].value, found["field_accuracy.a"].n) == (1.0, 2)
    assert (found["field_accuracy.b"].value, found["field_accuracy.b"].n) == (0.0, 1)
    assert (found["field_accuracy"].value, found["field_accuracy"].n) == (0.75, 2)


def test_free_text_is_said_and_identifiers_are_not_free_text():
    references = [
        json.dumps({"order": f"R-{i}", "text": f"This is sentence number {i}"}) for i in range(9)
    ]
    found = TASKS["json"].score(references, references)
    assert {"field_accuracy.order", "token_f1.text"} <= found.keys()
    how = TASKS["json"].describe(references)
    assert "equal values of order;" in how
    assert "text is free text (100% distinct values)" in how


def test_labels_of_many_words_are_no_free_text():
    references = [json.dumps({"label": f"a label of kind {i % 2}"}) for i in range(10)]
    assert "field_accuracy.label" in TASKS["json"].score(references, references)


def test_exact():
    answers = ["  paris.", "It is Paris", "NEW  york"]
    found = TASKS["exact"].score(answers, ["Paris", "Paris", "New York"])
    assert values(found) == {"exact_match": pytest.approx(2 / 3)}
    assert normalised("-5") != normalised("5")


def test_overlap():
    assert token_f1("the cat sat", "The cat, sat!") == 1.0
    assert token_f1("a a b", "a b b c") == pytest.approx(2 * 2 / 7)
    assert token_f1("", "a") == token_f1("x", "a") == 0.0
    assert token_f1("?!", "?!") == 1.0
    assert words("東京 Tower") == ["東", "京", "tower"]
    found = TASKS["overlap"].score(["a b"], ["b c"])
    assert values(found) == {"token_f1": 0.5}
