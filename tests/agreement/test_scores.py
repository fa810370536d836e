"""Which rows of `scores.jsonl` have a loss: report, comparison, guards and the page's examples."""

import json

import pytest

from agreement.tellers import guards_json, page, report
from report.run_folders import FALL, NUM_VAL, edit, finished_run
from sft.runs.compare import compare
from sft.runs.history import history_of

UNUSABLE = {
    "not finite": {"nll": None, "nll_nonfinite": "inf"},
    "no loss": {"nll": "3"},
    "no tokens": {"tokens": 0},
    "tokens missing": {"tokens": None},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_the_same_rows_are_left_out(tmp_path, name):
    run = finished_run(tmp_path / "mine")

    def change(record):
        broken = record["probe"] == "val" and record["id"].endswith(":3") and record["step"] == 8
        return {**record, **UNUSABLE[name]} if broken else record

    edit(run.scores, change)
    claims = {claim["id"]: claim for claim in report(run)["answer"]["claims"]}
    table = history_of(run).table("val")
    tellers = {
        "report": claims["val_loss"]["n"],
        "sft compare": compare(run.path, run.path).n,
        "guards": int((table.loss[table.steps.index(8)] < 99).sum()),
    }
    assert tellers == dict.fromkeys(tellers, NUM_VAL - 1)


def test_the_loss_of_a_row_is_the_same(tmp_path):
    change = [0.1 * i - 0.5 for i in range(NUM_VAL)]
    run = finished_run(tmp_path / "mine", fall=change, best={"best_step": 12})
    table = history_of(run).table("val")
    rise = table.loss[-1] - table.loss[0]
    claims = {claim["id"]: claim for claim in report(run)["answer"]["claims"]}
    assert claims["val_loss"]["value"] == pytest.approx(rise.mean())
    (shown,) = page(run, "guards")["evidence"]["overfitting"]
    order = sorted(range(NUM_VAL), key=lambda i: -rise[i])
    assert [item["id"] for item in shown["items"]] == [
        table.ids[i] for i in order if rise[i] > 1e-9
    ]
    assert shown["items"][0]["figure"].startswith(f"{rise.max():+.3f} nats per token")


def test_an_unusable_row_breaks_nobody(tmp_path):
    run = finished_run(tmp_path / "mine", fall=FALL)
    edit(run.scores, lambda r: {**r, "nll": None} if r["id"].endswith(":0") else r)
    assert all(line["message"] for line in guards_json(run))
    json.dumps(page(run, "guards"), allow_nan=False)
