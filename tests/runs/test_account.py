"""The account of rows, summed up: every row is in one line, and reasons alike are one."""

import pytest

from sft.runs.account import FURTHER, account_lines


def rows(*entries):
    return [
        {"row": f"a.jsonl:{line}", "status": status, **({"reason": reason} if reason else {})}
        for line, status, reason in entries
    ]


def summed_up(account, max_places=3):
    return [(e.count, e.status, e.reason, e.places) for e in account_lines(account, max_places)]


def test_reasons_that_differ_in_numbers_only_are_one_line():
    account = {
        "rows": rows(
            (1, "used", ""),
            (2, "dropped", "310 tokens, max_seq_len is 300"),
            (3, "dropped", "1,999 tokens, max_seq_len is 300"),
            (4, "bad", "no role"),
        ),
        "counts": {"used": 1, "dropped": 2, "bad": 3},
    }
    assert summed_up(account) == [
        (1, "used", "", ()),
        (2, "dropped", "# tokens, max_seq_len is 300", ("a.jsonl:2", "a.jsonl:3")),
        (2, "bad", FURTHER, ()),
        (1, "bad", "no role", ("a.jsonl:4",)),
    ]


def test_a_reason_alone_keeps_its_numbers_and_few_places_are_named():
    account = {"rows": rows(*((i, "dropped", "messages[1] is empty") for i in range(9)))}
    assert summed_up(account, 2) == [
        (9, "dropped", "messages[1] is empty", ("a.jsonl:0", "a.jsonl:1"))
    ]


def test_rows_of_a_stream_that_are_not_listed_are_counted():
    account = {"rows": rows((7, "val", "")), "counts": {"used": 5_000, "val": 1, "bad": 0}}
    assert summed_up(account) == [(5_000, "used", "", ()), (1, "val", "", ())]


def test_statuses_come_in_one_order_and_unknown_ones_last():
    names = ("odd", "bad", "dropped", "val", "truncated", "changed", "used")
    account = {"rows": rows(*((i, name, "") for i, name in enumerate(names)))}
    assert [line.status for line in account_lines(account, 1)] == [
        *("used", "changed", "truncated", "val", "dropped", "bad", "odd")
    ]


@pytest.mark.parametrize(
    "account", [{}, {"rows": "none"}, {"rows": [3, None], "counts": []}, {"counts": {"used": "x"}}]
)
def test_an_account_of_another_shape_has_no_lines(account):
    assert account_lines(account, 3) == ()
