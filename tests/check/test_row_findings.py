import numpy as np
import pytest

from sft.check.row_findings import row_findings
from sft.data.account import DataSet
from sft.data.lengths import lengths
from sft.data.rows.conversation import Origin
from sft.data.splits import Split
from sft.data.tokenize import IGNORE_INDEX, Example, RowFate


def example(line, num_tokens, num_trained):
    labels = np.full(num_tokens, IGNORE_INDEX)
    labels[num_tokens - num_trained :] = 7
    weights = (labels != IGNORE_INDEX).astype(np.float32)
    origin = Origin("a.jsonl", line)
    return Example(str(origin), origin, 0, np.arange(num_tokens), labels, weights, 1)


def data_set(fates, *, num_bad=0, train=(), val=()):
    rows = [RowFate(Origin("a.jsonl", i), status, reason) for i, (status, reason) in fates.items()]
    return DataSet(
        train=list(train),
        val=list(val),
        fates=rows,
        num_rows=len([r for r in rows if r.status != "bad"]) + num_bad,
        num_bad=num_bad,
        files={},
        notes=[],
        split=Split([], [], []),
    )


def test_lengths_count_every_example_once():
    found = lengths([example(1, 10, 4), example(2, 30, 5), example(3, 100, 60)], 512)
    assert sum(found.all_counts) == sum(found.trained_counts) == 3
    assert len(found.edges) == len(found.all_counts) + 1 and found.edges[-1] == 100
    assert (found.num_tokens, found.num_trained, found.max_seq_len) == (140, 69, 512)
    assert (found.all_quantiles[0], found.all_quantiles[1], found.all_quantiles[3]) == (10, 30, 100)


@pytest.mark.parametrize(("policy", "severity"), [("error", "error"), ("skip", "warning")])
def test_bad_rows_are_as_severe_as_they_would_be_in_training(policy, severity):
    data = data_set({1: ("used", ""), 4: ("bad", "no role")}, num_bad=2, val=[example(9, 3, 1)])
    (found,) = row_findings(data, policy)
    assert (found.check, found.severity, found.count) == ("unusable", severity, 2)
    assert found.rows == ("a.jsonl:4",) and "no role [a.jsonl:4]" in found.message


def test_long_rows_name_the_limit_that_keeps_them():
    fates = {i: ("used", "") for i in range(1, 19)}
    fates[19] = ("dropped", "310 tokens, max_seq_len is 300")
    fates[20] = ("truncated", "477 tokens, max_seq_len is 300")
    found = row_findings(data_set(fates, val=[example(9, 3, 1)]), "error")
    assert [(f.check, f.severity, f.count) for f in found] == [
        ("too_long", "info", 1),  # a twentieth of the rows
        ("truncated", "warning", 1),
    ]
    assert "data.max_seq_len=310" in found[0].fix and "data.max_seq_len=477" in found[1].fix
    many = {i: ("dropped", "310 tokens, max_seq_len is 300") for i in (1, 2)}
    (first, *_) = row_findings(data_set({**fates, **many}, val=[example(9, 3, 1)]), "error")
    assert (first.severity, first.count) == ("warning", 3)


def test_no_validation_is_worth_a_warning():
    (found,) = row_findings(data_set({1: ("used", "")}), "error")
    assert (found.check, found.severity) == ("no_validation", "warning")
