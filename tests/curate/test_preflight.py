"""`preflight.json`: every field of it, on rows with planted faults."""

import json
import random
import subprocess
import sys

import pytest

from sft.curate.preflight import preflight
from sft.data.rows.conversation import Conversation, Message, Origin


def test_repeated_rows_and_leaks(rows):
    rng = random.Random(0)
    prompts = [" ".join(f"w{rng.randrange(900)}" for _ in range(30)) for _ in range(6)]
    train = rows(prompts[:4] * 16, source="train.jsonl")
    val = rows([prompts[2].upper(), prompts[5]], source="val.jsonl")
    found = preflight(train, val, None, visits=128)
    assert found["usage"] is None
    assert found["rows"] == {
        "train": 64,
        "val": 2,
        "effective": pytest.approx(4),
        "clusters": 4,
        "visits": 128.0,
        "repeats": pytest.approx(32),
        "duplicates": [
            [f"train.jsonl:{(line - 1) % 4 + 1}", f"train.jsonl:{line}"] for line in range(5, 25)
        ],
        "num_leaks": 1,
        "leaks": [{"val": "val.jsonl:1", "train": "train.jsonl:3"}],
    }
    # Four answers, not 64: that each comes sixteen times is no shared opener.
    assert (found["answers"]["n"], found["answers"]["opener_count"]) == (4, 4)
    assert found["answers"]["reference"] is None


def test_a_planted_opener(rows, topic):
    prompts = topic("food", 0).prompts(64)
    train = rows(prompts, [f"Sure! Here is my answer to {p}" for p in prompts])
    usage = rows(topic("food", 1).prompts(20), [f"{i} is right" for i in range(20)], source="use")
    answers = preflight(train, [], usage, visits=64)["answers"]
    assert answers["opener"] == "sure"
    assert answers["opener_count"] == answers["n"] > 60
    assert answers["reference"]["n"] == 20 and answers["reference"]["opener_count"] == 1
    assert set(answers) - {"reference"} == set(answers["reference"])


def test_usage(rows, row, topic):
    law = topic("law", 1).prompts(20)
    food = topic("food", 0).prompts(120)
    train = rows(food[:100])
    usage = [row(p, None, line, "use") for line, p in enumerate([*law, *food[100:]], start=1)]
    found = preflight(train, [], usage, visits=100, facts={"template": ("a", "a")})["usage"]
    assert json.loads(json.dumps(found)) == found
    ids = [f"use:{line}" for line in range(1, 41)]
    assert found["n"] == 40 and [*found["p_values"]] == ids
    uncovered = {entry["id"]: entry for entry in found["uncovered"]}
    assert {id for id, p in found["p_values"].items() if p <= 0.1} == set(uncovered)
    assert len(set(ids[:20]) & set(uncovered)) >= 15 and len(set(ids[20:]) & set(uncovered)) <= 6
    assert uncovered["use:1"]["text"] == law[0][:200]
    assert uncovered["use:1"]["p"] == found["p_values"]["use:1"]
    members = {id: g["label"] for g in found["groups"] for id in g["ids"]}
    assert members == {id: entry["group"] for id, entry in uncovered.items()}
    assert members["use:1"].startswith("law")
    assert found["classifier"]["auc"] > 0.6 and found["classifier"]["p"] < 0.05
    assert any(word.startswith("law") for word in found["classifier"]["words"])
    assert sorted(found["slices"]) == sorted(ids)
    names = [fact["name"] for fact in found["facts"]]
    assert names == ["length", "language", "turns", "system_prompt", "template"]
    assert set(found) == {
        *("n", "p_values", "uncovered", "groups", "classifier", "facts", "slices")
    }


def test_usage_like_training_is_not_accused(rows, topic):
    prompts = topic("food", 0).prompts(160)
    found = preflight(rows(prompts[:120]), [], rows(prompts[120:], source="use"), visits=120)
    assert len(found["usage"]["uncovered"]) < 0.2 * 40
    assert found["usage"]["classifier"]["p"] > 0.01
    assert not any(fact["differs"] for fact in found["usage"]["facts"])
    assert found["rows"]["effective"] == pytest.approx(120)


def test_few_rows_of_everything(rows, row):
    usage = [row("Who?", None, source="use")]
    found = preflight(rows(["Hi"]), [], usage, visits=1)
    assert found["usage"]["classifier"] is None and found["usage"]["groups"] == []
    assert found["usage"]["slices"] == {"use:1": "other"}
    assert json.loads(json.dumps(found)) == found


def test_rows_without_text():
    call = ({"function": {"name": "now", "arguments": {}}},)
    said = Message("assistant", "", tool_calls=call, weight=1.0)
    train = [Conversation((Message("user", "time?"), said), Origin("f", i)) for i in (1, 2)]
    found = preflight(train, [], None, visits=2)
    assert found["answers"]["n"] == 0 and found["rows"]["clusters"] == 1


def test_importing_it_is_cheap():
    code = (
        "import sys, sft.curate.preflight, sft.curate.remedies\n"
        "print({'sklearn', 'scipy', 'datasketch', 'torch', 'transformers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
