"""Replay: the base model's own texts, supervised where it wrote, in the share asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from sft.data.batches import Batches
from sft.data.packing import pack
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import IGNORE_INDEX, Example
from sft.model.forward import Forward
from sft.remedies.replay import mixed, replay_examples

END = 4  # <|im_end|>


def built(template: str = tiny.CHATML, ends: float = 0.0, kind: str = "llama"):
    """A model, its template and tokenizer; `ends` is added to what it gives <|im_end|>."""
    model = tiny.model(kind)
    if ends:
        hidden = model.get_input_embeddings().weight.shape[1]
        biased = torch.nn.Linear(hidden, 400)
        with torch.no_grad():
            biased.weight.copy_(model.get_output_embeddings().weight)
            biased.bias.zero_()
            biased.bias[END] = ends
        model.set_output_embeddings(biased)
    tokenizer = tiny.tokenizer(template)
    return model, ChatTemplate(tokenizer), tokenizer


def replay(parts, num=8, max_tokens=16, seed=0, source=1):
    return replay_examples(*parts, num, max_tokens=max_tokens, seed=seed, source=source, batch=num)


def supervised(example: Example) -> list[int]:
    """Positions of the tokens that are to be predicted."""
    return (np.flatnonzero(example.labels != IGNORE_INDEX) + 1).tolist()


def test_the_model_asks_and_answers_and_learns_what_it_wrote_itself():
    parts = built(ends=4.0)
    tokenizer = parts[2]
    opening = tokenizer("<|im_start|>user\n")["input_ids"]
    closing = tokenizer("<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    examples = replay(parts, num=24)
    answered = 0
    for example in examples:
        ids, own = example.input_ids.tolist(), supervised(example)
        assert ids[: len(opening)] == opening and own[0] == len(opening)
        assert len(own) <= 16 and example.source == 1
        assert [example.labels[t - 1] for t in own] == [ids[t] for t in own]
        assert example.num_bytes == len(tokenizer.decode([ids[t] for t in own]).encode())
        first_end = ids.index(END) if END in ids else len(ids)
        if first_end == len(ids):  # cut before it came to an end
            assert own == list(range(len(opening), len(ids))) and len(own) == 8
            continue
        answered += 1
        given = range(first_end + 1, first_end + len(closing))
        assert ids[first_end : given.stop] == closing
        assert own == [t for t in range(len(opening), len(ids)) if t not in given]
        answer = ids[given.stop :]
        assert END not in answer[:-1] and (len(answer) == 8 or answer[-1] == END)
    assert 4 < answered < 24
    assert len({example.id for example in examples}) == 24


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_replay_follows_its_seed_and_leaves_the_random_state_alone(kind):
    parts = built(kind=kind)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = [example.input_ids.tolist() for example in replay(parts)]
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert [example.input_ids.tolist() for example in replay(parts)] == first
    assert [example.input_ids.tolist() for example in replay(parts, seed=1)] != first


def test_without_an_end_of_the_users_turn_it_just_goes_on_writing():
    """The turn ends with text: whether the model has ended it cannot be seen."""
    text = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}"
    text += "{% if m['role'] == 'assistant' %}{{ '</s>' }}{% endif %}{% endfor %}"
    parts = built(text)
    opening = parts[2]("user: ")["input_ids"]
    for example in replay(parts):
        assert example.input_ids.tolist()[: len(opening)] == opening
        assert supervised(example) == list(range(len(opening), len(opening) + 16))


def test_the_loss_on_replay_is_the_models_own_entropy_at_first():
    """A model cannot be taught by its own texts: E[nll] is its entropy, where KL is least."""
    parts = built()
    model = parts[0]
    examples = replay(parts, num=64, max_tokens=12)
    forward = Forward(model, layout="padded")
    nll, _ = forward.scores(pack(examples))
    entropies = []
    for example in examples:
        with torch.no_grad():
            logits = model.eval()(torch.from_numpy(example.input_ids)[None]).logits[0]
        log_p = logits.log_softmax(-1)[[t - 1 for t in supervised(example)]]
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    assert float(nll.mean()) == pytest.approx(float(torch.cat(entropies).mean()), abs=0.1)


def rows(num: int, source: int) -> list[Example]:
    ids = np.array([1, 2])
    one = np.ones(2, dtype=np.float32)
    return [Example(f"{source}:{i}", None, source, ids, ids, one, 0) for i in range(num)]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("num_replay", [3, 40, 500])
def test_an_epoch_holds_the_share_asked_for(share, num_replay):
    train = [*rows(60, 0), *rows(30, 1)]
    examples, weights = mixed(train, [1.0, 0.5], rows(num_replay, 0), share)
    assert weights[:2] == [1.0, 0.5] and len(weights) == 3
    batches = Batches(examples, 5, weights, seed=0)
    assert batches.epoch_size == pytest.approx(75 / (1 - share), abs=0.51)
    seen = [e.source for _ in range(batches.epoch_size) for e in batches.next()]
    assert seen.count(2) / len(seen) == pytest.approx(share, abs=0.01)


def test_a_share_of_nothing_changes_nothing():
    train = rows(4, 0)
    assert mixed(train, [1.0], rows(3, 0), 0.0) == (train, [1.0])
    assert mixed(train, [1.0], [], 0.1) == (train, [1.0])
