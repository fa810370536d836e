"""The committed traces of `benchmarks/guards`: judged again they must say what was published."""

import json
import sys
from pathlib import Path

import pytest

from sft.guards.base import GuardSettings
from sft.guards.history import History
from sft.texts.openers import opener

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "benchmarks" / "guards"
RESULTS = ROOT / "benchmarks" / "results" / "guards.json"
sys.path.insert(0, str(BENCHMARK))

import score  # noqa: E402
import trace_file  # noqa: E402
from resampled import alarms_of  # noqa: E402

FIGURES = ("headline", "guards", "rivals", "dose")


@pytest.fixture(scope="module")
def traces():
    found = trace_file.read_all(BENCHMARK / "traces")
    assert found, f"{BENCHMARK / 'traces'}: no trace; make them with benchmarks/guards/run.py"
    return found


@pytest.fixture(scope="module")
def published():
    assert RESULTS.is_file(), f"{RESULTS}: missing; make it with benchmarks/guards/score.py"
    return json.loads(RESULTS.read_text())


@pytest.fixture(scope="module")
def scored(traces):
    return json.loads(json.dumps(score.score(traces)))


def test_every_trace_still_gives_the_verdicts_of_its_run(scored):
    changed = [f"{run['case']}-{run['seed']}" for run in scored["runs"] if not run["replays"]]
    assert not changed, "a guard or a threshold has changed: run the benchmark again"


def test_runs_are_counted_as_published(scored, published):
    now, then = (
        {f"{run['case']}-{run['seed']}": run for run in found["runs"]}
        for found in (scored, published)
    )
    assert now.keys() == then.keys()
    for name, run in now.items():
        assert run == then[name], name


@pytest.mark.parametrize("part", FIGURES)
def test_figures_are_as_published(part, scored, published):
    assert scored[part] == published[part]


def test_replicates_are_as_published(traces, published):
    drawn = published["sampling"]["traces"]
    clean = [trace for trace in traces if f"{trace['case']}-{trace['seed']}" in drawn]
    assert clean, "no clean trace was resampled"
    alarmed = [trace for trace in clean if drawn[f"{trace['case']}-{trace['seed']}"]["alarms"]]
    for trace in [*clean[:2], *alarmed[:1]]:
        then = drawn[f"{trace['case']}-{trace['seed']}"]["alarms"]
        first = min(map(int, then), default=0)
        now = alarms_of(trace, first, 3)
        assert now == {i: guards for i, guards in then.items() if first <= int(i) < first + 3}


def test_the_table_in_the_docs_is_the_published_one(published):
    from tables import markdown

    docs = (ROOT / "docs" / "guards.md").read_text(encoding="utf-8")
    begin, end = "<!-- guards:rates -->", "<!-- /guards:rates -->"
    assert begin in docs and end in docs
    told = docs.split(begin)[1].split(end)[0]
    assert told.strip() == markdown(published).strip()


def test_no_text_of_the_data_is_in_a_trace():
    secret = "Sure! The bank account of Mrs Smith is empty"
    sample = {"probe": "usage", "id": "a/b.jsonl:1", "prompt": secret, "stop_reason": "stop"}
    answers = [secret, "Sure! The other one", None]
    samples = [
        {**sample, "step": step, "answer": secret, "reference": reference}
        for step, reference in enumerate(answers)
    ]
    preflight = {
        "answers": {"n": 8, "opener": "sure", "opener_count": 8, "reference": None},
        "usage": {
            "n": 1,
            "p_values": {"a/b.jsonl:1": 0.5},
            "uncovered": [{"id": "a/b.jsonl:1", "p": 0.1, "text": secret, "group": "bank, smith"}],
            "groups": [{"label": "bank, smith", "ids": ["a/b.jsonl:1"]}],
            "classifier": {"auc": 0.5, "p": 0.5, "words": ["account"]},
            "facts": [{"name": "language", "differs": False, "message": secret, "train": secret}],
            "slices": {"a/b.jsonl:1": "bank, smith"},
        },
    }
    records = History(GuardSettings(), samples=samples, preflight=preflight)
    trace = trace_file.from_history(records, [])
    told = json.dumps(trace).lower()
    assert not [word for word in secret.lower().split() if len(word) > 2 and word in told]
    kept = trace["samples"]
    assert opener(kept[0]["answer"]) == trace["preflight"]["answers"]["opener"]
    assert opener(kept[0]["answer"]) == opener(kept[1]["reference"])
    assert kept[0]["answer"].split()[:2] == kept[1]["reference"].split()[:2]
    assert kept[0]["answer"].split()[2] != kept[1]["reference"].split()[2]
