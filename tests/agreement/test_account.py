"""What became of the rows: the page, the report and the account itself."""

from agreement.tellers import page, report
from report.run_folders import ACCOUNT, edit, finished_run
from sft.runs.account import FURTHER, TRAINED_ON, account_lines


def lines(told, rows):
    return [(line["status"], line["reason"], line["count"], line[rows][:3]) for line in told]


def test_status_reason_count_and_order_are_the_same(tmp_path):
    run = finished_run(tmp_path / "mine")
    more = [
        {"row": f"a:{i}", "status": "dropped", "reason": f"{300 + i} tokens, more than 256"}
        for i in range(5)
    ]
    edit(run.account, lambda account: {**account, "rows": [*account["rows"], *more]})
    account = {**ACCOUNT, "rows": [*ACCOUNT["rows"], *more]}
    expected = [
        (line.status, line.reason, line.count, list(line.places))
        for line in account_lines(account, 3, places_of_all=True)
    ]
    assert ("dropped", "# tokens, more than 256", 5, ["a:0", "a:1", "a:2"]) in expected
    seen = page(run, "data")["account"]["reasons"]
    told = report(run)["data"]["rows"]
    assert lines(seen, "rows") == expected
    # Of rows that are used as they are the report names no places.
    assert [line[:3] for line in lines(told["lines"], "places")] == [x[:3] for x in expected]
    assert told["used"] == sum(n for status, _, n, _ in expected if status in TRAINED_ON)


def test_rows_that_are_counted_and_not_listed(tmp_path):
    run = finished_run(tmp_path / "mine")
    edit(run.account, lambda a: {**a, "counts": {**a["counts"], "used": 5_048, "bad": 11}})
    for told in (
        page(run, "data")["account"]["reasons"],
        report(run)["data"]["rows"]["lines"],
    ):
        counts = {(line["status"], line["reason"]): line["count"] for line in told}
        assert counts["used", ""] + counts.get(("used", FURTHER), 0) == 5_048
        assert counts["bad", FURTHER] == 10
