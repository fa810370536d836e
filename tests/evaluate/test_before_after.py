import io
import json
import math
from dataclasses import replace

import pytest
import torch
import yaml
from rich.console import Console

import tiny
from sft.config import Config, SourceConfig, load_config
from sft.errors import ConfigError, DataError
from sft.evaluate.before_after import evaluate, render
from sft.evaluate.result import Compared
from sft.evaluate.tasks import Measure
from sft.probes.generate import generate

RULES = "Answer the question:"
QUESTIONS = ["What is the capital of France?", "Who jumps over the dog?", "one and two are", "Hi!"]
REPLIES = ["Paris.", "The fox", "three, and two and two are four", "\x1b[31mHi [bold]you"]


def conversation(question, answer, turns=1):
    pair = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": [{"role": "system", "content": RULES}, *pair * turns]}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_run(root, *, base="llama", trained=(), max_seq_len=128):
    """A run folder as training leaves it, whose model is the random one of seed 0."""
    tiny.save(root / "base", base)
    run = root / "run"
    tiny.save(run / "model")
    sections = {
        "model": {"name": str(root / "base"), "dtype": "float32", "attention": "flat"},
        "data": {"train": [str(path) for path in trained], "max_seq_len": max_seq_len},
    }
    config = load_config(sections)
    assert isinstance(config, Config)
    text = yaml.safe_dump({"config": config.model_dump(mode="json"), "reasons": {}})
    (run / "config.yaml").write_text(text, encoding="utf-8")
    return run


def source(path):
    return [SourceConfig.model_validate(str(path))]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    pairs = zip(QUESTIONS, REPLIES, strict=True)
    return write_rows(folder / "held_out.jsonl", [conversation(q, a) for q, a in pairs])


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    """A run whose training changed nothing."""
    return make_run(tmp_path_factory.mktemp("same"))


def test_a_model_that_training_did_not_change_has_changed_nothing(same, rows):
    seen = []
    found = evaluate(same, source(rows), max_new_tokens=8, on_progress=lambda *p: seen.append(p))
    assert {name: both.change for name, both in found.measures.items()} == dict.fromkeys(
        ["loss", "perplexity", "token_accuracy", "stop_rate", "exact_match"], 0.0
    )
    assert all(row.base == row.tuned for row in found.rows)
    assert (found.task, found.num_rows, found.notes) == ("exact", 4, [])
    assert [row.reference for row in found.rows] == REPLIES
    assert {("base: answering", 4, 4), ("tuned: scoring", 4, 4)} <= set(seen)
    saved = json.loads((same / "eval-held_out.json").read_text())
    assert saved["measures"]["stop_rate"]["base"]["n"] == 4
    assert saved["rows"][0]["reference"] == "Paris."
    assert saved["rows"][0]["prompt"].endswith(f"{QUESTIONS[0]}<|im_end|>\n<|im_start|>assistant\n")


def test_the_numbers_are_those_of_transformers(tmp_path, rows):
    """Loss, accuracy and answers against a plain forward and tokenizer, for a gpt2 base."""
    run = make_run(tmp_path, base="gpt2")
    found = evaluate(run, source(rows), max_new_tokens=6)
    tokenizer = tiny.tokenizer()
    for side, model in (("base", tiny.model("gpt2")), ("tuned", tiny.model("llama"))):
        model.eval()
        nll, hits, tokens = 0.0, 0, 0
        for question, reply, row in zip(QUESTIONS, REPLIES, found.rows, strict=True):
            prompt = tokenizer.apply_chat_template(
                conversation(question, reply)["messages"][:2],
                add_generation_prompt=True,
                return_dict=False,
            )
            answer = tokenizer(reply + "<|im_end|>")["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            nll += float(
                torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum")
            )
            hits += int((logits.argmax(-1) == torch.tensor(answer)).sum())
            tokens += len(answer)
            (said,) = generate(model, [prompt], max_new_tokens=6, stop_ids=[4, 2])
            text = tokenizer.decode(said.ids, skip_special_tokens=True)
            assert getattr(row, side).text == text
            assert getattr(row, side).stop_reason == said.stop_reason
        measures = {name: getattr(both, side) for name, both in found.measures.items()}
        assert measures["loss"].value == pytest.approx(nll / tokens, rel=1e-5)
        assert measures["perplexity"].value == pytest.approx(math.exp(nll / tokens), rel=1e-4)
        assert measures["token_accuracy"].value == pytest.approx(hits / tokens)
        assert measures["loss"].n == tokens
    assert found.measures["loss"].change != 0


def test_every_turn_is_scored_and_the_last_is_answered(same, tmp_path):
    data = write_rows(tmp_path / "turns.jsonl", [conversation(QUESTIONS[0], REPLIES[0], turns=3)])
    one = write_rows(tmp_path / "one.jsonl", [conversation(QUESTIONS[0], REPLIES[0])])
    found = evaluate(same, source(data), max_new_tokens=2)
    single = evaluate(same, source(one), max_new_tokens=2)
    assert found.measures["loss"].base.n == 3 * single.measures["loss"].base.n
    assert found.rows[0].prompt.count("Paris") == 2
    assert found.rows[0].reference == "Paris."


def test_max_rows_are_spread_and_the_limit_comes_from_the_references(same, rows):
    found = evaluate(same, source(rows), max_rows=2)
    assert [row.reference for row in found.rows] == [REPLIES[0], REPLIES[2]]
    longest = len(tiny.tokenizer()(REPLIES[2])["input_ids"]) + 1
    assert found.max_new_tokens == math.ceil(1.5 * longest)


def test_json_rows_are_compared_field_by_field(same, tmp_path):
    reply = '{"kind": "fox"}'
    data = write_rows(tmp_path / "json.jsonl", [conversation(q, reply) for q in QUESTIONS])
    found = evaluate(same, source(data), max_new_tokens=4)
    assert found.task == "json"
    assert {"json_valid", "json_keys", "field_accuracy.kind"} <= found.measures.keys()


def test_reasoning_before_the_answer_is_not_compared(same, tmp_path):
    reply = '<think>\na fox?\n</think>\n\n{"kind": "fox"}'
    data = write_rows(tmp_path / "think.jsonl", [conversation(QUESTIONS[0], reply)])
    found = evaluate(same, source(data), max_new_tokens=4)
    assert (found.task, found.rows[0].reference) == ("json", '{"kind": "fox"}')


def test_what_was_left_out_and_what_was_trained_on_is_said(tmp_path, rows):
    long = conversation("Why? " * 60, "So.")
    data = write_rows(tmp_path / "mixed.jsonl", [conversation(QUESTIONS[0], "Paris."), long])
    run = make_run(tmp_path, trained=[data], max_seq_len=64)
    found = evaluate(run, source(data), max_new_tokens=2)
    assert found.num_rows == 1
    assert [note.split(":")[0] for note in found.notes] == [
        "this data was trained on",
        "1 rows are longer than data.max_seq_len (64 tokens) and were left out",
    ]
    only_long = write_rows(tmp_path / "long.jsonl", [long])
    with pytest.raises(DataError, match=r"no row of 1 can be used: .* tokens, max_seq_len is 64"):
        evaluate(run, source(only_long))


def test_rows_without_an_answer_are_an_error(same, tmp_path):
    data = write_rows(tmp_path / "usage.jsonl", [{"messages": [{"role": "user", "content": "Hi"}]}])
    with pytest.raises(DataError, match="assistant"):
        evaluate(same, source(data))


def test_a_run_without_a_model_or_config_is_named(tmp_path, rows):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("config: {}\n")
    with pytest.raises(ConfigError, match="no model yet"):
        evaluate(run, source(rows))
    (run / "config.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected sections"):
        evaluate(run, source(rows))
    with pytest.raises(ConfigError, match="no such run folder"):
        evaluate(tmp_path / "nothing", source(rows))


def shown(evaluation):
    out = io.StringIO()
    Console(file=out, width=100).print(render(evaluation))
    return out.getvalue()


def test_the_table_shows_both_models_and_three_rows_safely(same, rows):
    found = evaluate(same, source(rows), max_new_tokens=2)
    text = shown(found)
    for part in ("metric", "base", "tuned", "change", "token_accuracy", "+0.0 points"):
        assert part in text
    assert text.count("reference") == 3
    assert "(cut: it did not stop)" in text
    ill = Measure(None, "nats", 1)
    strange = replace(
        found,
        rows=found.rows[3:],
        measures={"field.[bold]\ud800": Compared(ill, ill, None)},
    )
    text = shown(strange)
    assert "\x1b" not in text
    assert "Hi [bold]you" in text
    assert "field.[bold]?" in text
    assert "not finite" in text
