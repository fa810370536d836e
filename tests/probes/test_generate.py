import threading
import time

import pytest
import torch

import tiny
from sft.errors import DataError
from sft.model.attention import FLAT, use_attention
from sft.probes.generate import generate, stream

PROMPTS = [[5, 9, 30, 12], [7], [40, 41, 42, 43, 44, 45, 46, 47], [11, 12], [90, 80, 70, 60, 50]]
NEVER = []  # no id ends an answer
PLAIN = {"max_new_tokens": 8, "stop_ids": [4]}


def by_hand(model, prompt, num_tokens):
    """Greedy ids, one full forward per token: no cache, no padding, no generate()."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(num_tokens):
            ids.append(int(model.eval()(torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral-window", "gemma2"])
def test_a_batch_gives_what_a_plain_forward_gives_one_by_one(kind):
    model = tiny.model(kind)
    wanted = [by_hand(model, prompt, 8) for prompt in PROMPTS]
    assert len(set(wanted)) == len(wanted)
    found = generate(model, PROMPTS, **{**PLAIN, "stop_ids": NEVER})
    assert [answer.ids for answer in found] == wanted
    assert {answer.stop_reason for answer in found} == {"length"}


def test_small_batches_change_nothing(model):
    done = []
    small = generate(model, PROMPTS, **PLAIN, batch_tokens=1, on_progress=done.append)
    assert small == generate(model, PROMPTS, **PLAIN)
    assert done == [1, 2, 3, 4, 5]


def test_every_stop_id_ends_an_answer_and_is_not_part_of_it(model):
    free = generate(model, PROMPTS, **{**PLAIN, "stop_ids": NEVER})
    first, second = free[0].ids[5], free[1].ids[3]
    found = generate(model, PROMPTS, **{**PLAIN, "stop_ids": [first, second]})
    for answer, whole in zip(found, free, strict=True):
        ends = [t for t, token in enumerate(whole.ids) if token in (first, second)]
        assert answer.ids == whole.ids[: ends[0] if ends else None]
        assert answer.stop_reason == ("stop" if ends else "length")
    assert found[0].stop_reason == found[1].stop_reason == "stop"


def test_padding_with_a_stop_token_does_no_harm(model):
    free = generate(model, PROMPTS, **{**PLAIN, "stop_ids": NEVER})
    stop = free[0].ids[2]
    settings = {"max_new_tokens": 8, "stop_ids": [stop]}
    each = [generate(model, [prompt], **settings)[0] for prompt in PROMPTS]
    assert generate(model, PROMPTS, **settings) == each


def test_it_works_whatever_the_model_was_set_to_and_leaves_it_so(model):
    wanted = generate(model, PROMPTS, **PLAIN)
    use_attention(model, FLAT)
    model.train()
    own = model.generation_config
    own.repetition_penalty = 5.0
    own.max_length = 3
    assert generate(model, PROMPTS, **PLAIN) == wanted
    assert model.training and model.generation_config is own
    model.eval()
    generate(model, PROMPTS, **PLAIN)
    assert not model.training


def test_sampling_follows_the_seed_and_the_temperature(model):
    def sample(seed, temperature, top_p=1.0):
        torch.manual_seed(seed)
        return generate(model, PROMPTS, **PLAIN, temperature=temperature, top_p=top_p)

    assert sample(1, 1.0) == sample(1, 1.0) != sample(2, 1.0)
    greedy = generate(model, PROMPTS, **PLAIN)
    assert sample(1, 1e-4) == greedy
    assert sample(1, 1.0, top_p=1e-6) == greedy
    # Top-k of 50, which transformers sets by itself, would leave most of the vocabulary out.
    torch.manual_seed(0)
    hot = generate(model, [[5]] * 200, **{**PLAIN, "max_new_tokens": 1}, temperature=100.0)
    assert len({answer.ids for answer in hot}) > 60


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_answer_ends_where_the_model_has_no_more_positions(kind):
    model = tiny.model(kind)
    prompts = [[7] * 250, [8] * 10, [9] * 256, [9] * 300]
    found = generate(model, prompts, max_new_tokens=20, stop_ids=NEVER)
    assert [len(answer.ids) for answer in found] == [6, 20, 0, 0]
    assert {answer.stop_reason for answer in found} == {"length"}


def test_the_stream_is_the_answer_in_pieces(model):
    tokenizer = tiny.tokenizer()
    prompt = tokenizer("What is the capital of France?")["input_ids"]
    (wanted,) = generate(model, [prompt], **{**PLAIN, "max_new_tokens": 40})
    answer = stream(model, tokenizer, prompt, **{**PLAIN, "max_new_tokens": 40})
    assert answer.completion is None
    pieces = list(answer)
    assert "".join(pieces) == tokenizer.decode(wanted.ids, skip_special_tokens=True)
    assert len(pieces) > 1
    assert answer.completion == wanted


def test_leaving_a_stream_early_stops_the_model():
    model, tokenizer = tiny.model(), tiny.tokenizer()
    # A tiny model could be done before the reader is told of its first token.
    model.register_forward_pre_hook(lambda *_: time.sleep(0.01))
    settings = {**PLAIN, "stop_ids": NEVER, "max_new_tokens": 240}
    answer = stream(model, tokenizer, [5, 6], **settings)
    pieces = iter(answer)
    next(pieces)
    pieces.close()
    assert "sft-answer" not in [thread.name for thread in threading.enumerate()]
    assert answer.completion is not None
    assert len(answer.completion.ids) < 240


def test_an_error_in_the_thread_surfaces():
    answer = stream(tiny.model(), tiny.tokenizer(), [5, 10_000], **PLAIN)
    with pytest.raises(IndexError):
        list(answer)


def test_a_prompt_that_fills_the_model_is_refused_with_both_lengths(model):
    with pytest.raises(DataError, match=r"300 tokens .* at most 256"):
        stream(model, tiny.tokenizer(), [5] * 300, **PLAIN)
