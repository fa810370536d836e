"""One evaluation at a tiny model: its scores are those of the loss, its divergences those of the
base.
"""

import pytest
import torch

import tiny
from sft.data.rows.conversation import Origin
from sft.data.tokenize import continuation
from sft.errors import CheckpointError
from sft.model.forward import Forward
from sft.probes.base_logits import TOP
from sft.probes.evaluator import EvaluationStopped, Evaluator, complete_prompts
from sft.probes.pack import Probe
from sft.probes.val_loss import score_examples, summarize

TOKENS = 64  # of a micro-batch: several of them to a probe
SIZES = {"train_probe": 3, "val": 5, "usage": 4, "retain": 6, "test": 3}


def examples(name, num, seed):
    made = torch.Generator().manual_seed(seed)

    def ids(size):
        return torch.randint(5, 390, (size,), generator=made).tolist()

    return [
        continuation(f"{name}:{i}", Origin(name, i), ids(6 + 3 * i), ids(1 + 2 * i), 9)
        for i in range(num)
    ]


def probes(**given):
    sizes = {**SIZES, **given}
    found = [Probe(name, examples(name, n, i)) for i, (name, n) in enumerate(sizes.items())]
    marked = {e.id: (e.labels[e.labels >= 0] % 2 == 0) for e in found[1].examples}
    return [Probe(p.name, p.examples, marked if p.name == "val" else {}) for p in found]


def quiet(_what, _done, _total):
    """Progress that nobody reads."""


def take(evaluator, *, at_base, **more):
    return evaluator.evaluate(at_base=at_base, progress=quiet, **more)


@pytest.fixture(params=["flat", "padded"])
def forward(request):
    return Forward(tiny.model("llama"), layout=request.param)


def move(model, by=0.02):
    """As a few steps of training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=by)


def log_probs(forward, example):
    """Of the supervised positions of one example, `[num_trained, vocab]`, by the model itself."""
    with torch.no_grad():
        plain = tiny.model("llama")  # with the attention that transformers chooses
        plain.load_state_dict(forward.model.state_dict())
        found = plain.eval()(torch.tensor(example.input_ids)[None]).logits[0]
    return found[torch.tensor(example.labels >= 0)].double().log_softmax(-1)


def bound(base, now):
    """The divergence over the likeliest tokens and the rest, summed over positions."""
    total = 0.0
    for p, q in zip(base.exp(), now.exp(), strict=True):
        top = p.argsort(descending=True)[:TOP]
        head = (p[top] * (p[top] / q[top]).log()).sum()
        total += float(head + (1 - p[top].sum()) * ((1 - p[top].sum()) / (1 - q[top].sum())).log())
    return total


def test_scores_are_those_of_the_loss_on_every_probe(forward):
    evaluator = Evaluator(forward, probes(), TOKENS)
    evaluation = take(evaluator, at_base=True)
    assert set(evaluation.scores) == set(SIZES)
    for probe in evaluator.probes:
        plain = {s.id: s for s in score_examples(forward, probe.examples, TOKENS)}
        assert len(evaluation.scores[probe.name]) == len(plain) == len(probe.examples)
        for score in evaluation.scores[probe.name]:
            one = plain[score.id]
            assert (score.nll, score.tokens, score.correct) == (one.nll, one.tokens, one.correct)
    assert evaluation.seconds > 0


def test_the_divergence_on_retain_is_nothing_at_the_base_and_right_after_it(forward, monkeypatch):
    # Logits come in pieces that do not end where the examples do.
    monkeypatch.setattr("sft.model.forward.chunk_rows", lambda *_: 3)
    evaluator = Evaluator(forward, probes(), TOKENS)
    retained = evaluator.probes[3].examples
    assert {s.more["kl"] for s in take(evaluator, at_base=True).scores["retain"]} == {0.0}
    again = take(evaluator, at_base=False).scores["retain"]
    assert max(abs(s.more["kl"]) for s in again) < 1e-4
    before = {e.id: log_probs(forward, e) for e in retained}
    move(forward.model)
    for score in take(evaluator, at_base=False).scores["retain"]:
        example = next(e for e in retained if e.id == score.id)
        now = log_probs(forward, example)
        exact = float((before[score.id].exp() * (before[score.id] - now)).sum())
        assert score.more["kl"] == pytest.approx(bound(before[score.id], now), rel=1e-3)
        assert 0 < score.more["kl"] <= exact


def test_columns_of_each_probe(forward):
    evaluator = Evaluator(forward, probes(), TOKENS)
    openings = {"first_label", "first_token", "first_mass", "first_info", "first_entropy"}
    surface = {"surface_nll", "surface_tokens"}
    for at_base, moved in ((True, set()), (False, {"kl_first", "kl_next"})):
        evaluation = take(evaluator, at_base=at_base)
        columns = {
            name: set().union(*[s.more.keys() for s in scores])
            for name, scores in evaluation.scores.items()
        }
        assert columns["train_probe"] == columns["test"] == set()
        assert columns["retain"] == {"kl"}
        assert columns["usage"] == openings | moved
        assert columns["val"] == openings | surface | moved
    shortest = [s for s in evaluation.scores["val"] if s.tokens == 1]
    assert shortest and all("kl_next" not in s.more for s in shortest)


def test_boilerplate_is_a_part_of_the_loss(forward):
    evaluator = Evaluator(forward, probes(), TOKENS)
    val = evaluator.probes[1]
    seen = {}
    for example in val.examples:
        nll = -log_probs(forward, example).gather(
            1, torch.tensor(example.labels[example.labels >= 0])[:, None]
        )
        mask = torch.tensor(val.surface[example.id])
        seen[example.id] = (float(nll[mask].sum()), float(mask.sum()))
    for score in take(evaluator, at_base=True).scores["val"]:
        assert score.more["surface_nll"] == pytest.approx(seen[score.id][0], abs=1e-3)
        assert score.more["surface_tokens"] == seen[score.id][1]


@pytest.fixture
def evaluator():
    return Evaluator(Forward(tiny.model("llama"), layout="padded"), probes(), TOKENS)


def test_openings_are_left_alone_where_they_are_not_wanted():
    """With guards off, an evaluation scores and does nothing more."""
    forward = Forward(tiny.model("llama"), layout="padded")
    evaluator = Evaluator(forward, [Probe("val", examples("val", 3, 0), openings=False)], TOKENS)
    evaluation = take(evaluator, at_base=True)
    assert [dict(score.more) for score in evaluation.scores["val"]] == [{}, {}, {}]
    assert "val/val:0" not in evaluator.base


def test_metrics_of_a_eval(evaluator):
    found = take(evaluator, at_base=True)
    metrics = found.metrics()
    expected = {f"{p}_{m}" for p in ("val", "usage", "test") for m in ("loss", "accuracy")}
    expected |= {f"{p}_perplexity" for p in ("val", "usage", "test")}
    assert set(metrics) == expected | {"train_probe_loss", "retain_loss", "retain_kl"}
    assert metrics["val_loss"] == summarize(found.scores["val"])["val_loss"]
    assert metrics["retain_kl"] == 0.0
    move(evaluator._forward.model)
    later = take(evaluator, at_base=False)
    tokens = sum(score.tokens for score in later.scores["retain"])
    kl = sum(score.more["kl"] for score in later.scores["retain"])
    assert later.metrics()["retain_kl"] == pytest.approx(kl / tokens)


def test_only_what_is_named_is_scored(evaluator):
    assert set(take(evaluator, at_base=True, probes=["test", "val"]).scores) == {"val", "test"}


def test_progress_counts_the_examples_of_all_probes(evaluator):
    told = []
    evaluator.evaluate(at_base=True, progress=lambda *what: told.append(what))
    total = sum(SIZES.values())
    assert told == [("evaluating", done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_eval_that_is_stopped_does_not_count(evaluator, after):
    asked = iter(range(100))
    with pytest.raises(EvaluationStopped):
        take(evaluator, at_base=True, stop_requested=lambda: next(asked) >= after)
    # Taken again from the start, nothing is remembered twice.
    take(evaluator, at_base=True)
    for example in evaluator.probes[3].examples:
        assert evaluator.base.num_positions(f"retain/{example.id}") == example.num_trained
    again = take(evaluator, at_base=False)
    assert max(abs(score.more["kl"]) for score in again.scores["retain"]) < 1e-4


def test_what_the_base_model_predicted_is_loaded_when_a_run_is_continued(evaluator, tmp_path):
    take(evaluator, at_base=True)
    evaluator.save_base(tmp_path / "probes" / "base.safetensors")
    move(evaluator._forward.model)
    expected = take(evaluator, at_base=False)
    other = Evaluator(evaluator._forward, evaluator.probes, TOKENS)
    other.load_base(tmp_path / "probes" / "base.safetensors")
    assert take(other, at_base=False).scores == expected.scores


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_without_what_the_base_model_predicted_a_run_cannot_go_on(evaluator, tmp_path, content):
    path = tmp_path / "base.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"base\.safetensors: what the base model predicted"):
        evaluator.load_base(path)
    nothing = Evaluator(
        evaluator._forward, [Probe("val", evaluator.probes[1].examples, openings=False)], 64
    )
    nothing.load_base(path)  # nothing is compared, so nothing is missing


def test_answers_are_greedy_and_to_the_first_probe_of_real_prompts(evaluator):
    tokenizer = tiny.tokenizer()

    probe = evaluator.sampled_probe
    samples = complete_prompts(
        evaluator._forward.model,
        tokenizer,
        probe.examples[:2],
        step=7,
        probe=probe.name,
        stop_ids=[2],
        max_new_tokens=5,
    )
    assert [sample["id"] for sample in samples] == ["usage:0", "usage:1"]
    for sample, example in zip(samples, evaluator.probes[2].examples, strict=False):
        assert (sample["step"], sample["probe"]) == (7, "usage")
        prompt = example.input_ids[: int((example.labels >= 0).argmax()) + 1].tolist()
        reference = example.input_ids[len(prompt) : -1].tolist()  # without its stop token
        assert sample["prompt"] == tokenizer.decode(prompt)
        assert sample["reference"] == tokenizer.decode(reference, skip_special_tokens=True)
        assert sample["stop_reason"] in ("stop", "length") and 0 <= sample["tokens"] <= 5
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(sample["tokens"]):
                ids.append(
                    int(evaluator._forward.model(torch.tensor([ids])).logits[0, -1].argmax())
                )
        written = tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
        assert sample["answer"] == written


def test_answers_without_any_prompt(evaluator):
    nothing = Evaluator(evaluator._forward, [Probe("retain", examples("retain", 2, 0))], TOKENS)
    assert nothing.sampled_probe is None
