"""A model here as the writer: what it ends itself is taken, once, and only if it agrees."""

import json

import pytest

from sft.augment.ask import Request
from sft.augment.cache import Cache
from sft.augment.own_model import OwnModel
from trained import Outcome, Trained, make_world, write_rows


@pytest.fixture(scope="module")
def parrot(tmp_path_factory):
    """A run whose model answers "Paris." to everything, and has room for our prompts."""
    world = make_world(tmp_path_factory.mktemp("parrot"))
    config = world / "llama" / "config.json"
    text = config.read_text().replace(
        '"max_position_embeddings": 256', '"max_position_embeddings": 2048'
    )
    config.write_text(text)
    rows = write_rows(world / "paris.jsonl", 40, lambda _q, _r: "Paris.")
    Trained(
        world, "parrot", data__train=[str(rows)], optim__learning_rate=1e-2, optim__max_steps=40,
        optim__schedule="constant", guards__enabled=False, eval__every=40,
    )  # fmt: skip
    return world / "parrot"


def test_the_same_request_has_one_answer(parrot, tmp_path):
    requests = [Request((("user", f"Where is {name}?"),), 8) for name in "ABA"]
    with Cache(tmp_path / "cache.jsonl") as cache:
        replies = OwnModel(str(parrot), cache).write(requests)
    assert [reply.text for reply in replies] == ["Paris."] * 3
    assert not any(reply.problem for reply in replies)
    lines = (tmp_path / "cache.jsonl").read_text().splitlines()
    assert len(lines) == 2 and all(json.loads(line)["text"] == "Paris." for line in lines)
    with Cache(tmp_path / "cache.jsonl") as cache:
        changed = [json.loads(line) | {"text": "known"} for line in lines]
        for line in changed:
            cache.put(line["key"], {"text": line["text"]})
        assert {r.text for r in OwnModel(str(parrot), cache).write(requests)} == {"known"}


def test_an_answer_that_does_not_end_is_none(parrot, tmp_path):
    with Cache(tmp_path / "cache.jsonl") as cache:
        writer = OwnModel(str(parrot), cache)
        (reply,) = writer.write([Request((("user", "Where is A?"),), 1)])
    assert reply.problem == "the model did not end its answer"


def test_own_answers_are_kept_where_they_agree(parrot, tmp_path):
    answers = ["paris", "Rome", "It is Paris", "Paris."]
    rows = [{"prompt": f"Name city {i}", "completion": a} for i, a in enumerate(answers)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "new.jsonl"
    args = ["augment", str(path), "--out", str(out), "--way", "self_answer,paraphrase"]
    outcome = Outcome(*args, "--per-row", "2", "--own-model", str(parrot))
    assert outcome.code == 0
    (new,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert new["messages"] == [
        {"role": "user", "content": "Name city 0"},
        {"role": "assistant", "content": "Paris."},
    ]
    ledger = [json.loads(x) for x in (tmp_path / "new.ledger.jsonl").read_text().splitlines()]
    reasons = {
        (x["row"][-1], x["way"]): x.get("reason") for x in ledger if x["status"] == "dropped"
    }
    assert [reasons[line, "self_answer"] for line in "234"] == [
        "another label", "another label", "the same answer"
    ]  # fmt: skip
    paraphrased = {reasons[line, "paraphrase"] for line in "1234"}
    assert paraphrased <= {"loses a number (0)", "loses a number (1)", "loses a number (2)",
                           "loses a number (3)"}  # fmt: skip
    assert json.loads((tmp_path / "new.summary.json").read_text())["own_model"] == str(parrot)


def test_a_model_that_is_not_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    outcome = Outcome(
        "augment", str(path), "--out", str(tmp_path / "new.jsonl"), "--way", "self_answer",
        "--own-model", str(tmp_path),
    )  # fmt: skip
    assert outcome.code == 2 and "holds no config.json" in outcome.err
    assert not (tmp_path / "new.jsonl").exists()
