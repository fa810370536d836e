"""Samples of a model from itself: its own distribution, repeatable, and nothing else disturbed."""

from __future__ import annotations

import random

import pytest
import torch

import tiny
from sft.probes.generate import continuations, seed_for


@pytest.fixture(scope="module")
def model():
    return tiny.model()


def sample(model, *, num=6, num_tokens=8, seed=0, stop_ids=(), bos_ids=(1,), batch=16):
    prompts = [bos_ids] * num
    texts = continuations(model, prompts, num_tokens, seed, stop_ids=stop_ids, batch=batch)
    return [[*bos_ids, *ids] for ids in texts]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_samples_follow_the_seed_and_leave_the_random_state_alone(kind):
    model = tiny.model(kind)
    torch.manual_seed(7)
    random.seed(7)
    before = torch.get_rng_state(), random.getstate()
    first = sample(model)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    torch.rand(5)
    assert sample(model) == first != sample(model, seed=1)
    assert len(set(map(tuple, first))) == 6
    assert all(ids[0] == 1 and len(ids) == 9 for ids in first)


def test_the_model_is_left_in_its_mode_and_with_its_settings(model):
    own = model.generation_config
    model.train()
    sample(model)
    assert model.training and model.generation_config is own


def test_a_sample_ends_with_its_stop_token_and_is_otherwise_the_same(model):
    free = sample(model, num=12)
    stop = [free[0][3], free[1][2]]
    cut = sample(model, num=12, stop_ids=stop)
    assert cut[0][-1] in stop and len(cut[0]) <= 4
    for whole, part in zip(free, cut, strict=True):
        assert whole[: len(part)] == part
        assert not set(part[1:-1]) & set(stop)
        assert part[-1] in stop or part == whole


def test_first_tokens_are_distributed_as_the_model_says(model):
    """Chi-square of 4,000 first tokens, at temperature 1 and without top-k."""
    with torch.no_grad():
        wanted = model.eval()(torch.tensor([[1, 9]])).logits[0, -1].softmax(-1)
    draws = sample(model, num=4000, num_tokens=1, bos_ids=(1, 9), batch=4000)
    counts = torch.bincount(torch.tensor([ids[2] for ids in draws]), minlength=400)
    expected = 4000 * wanted
    common = expected > 5
    assert (~common).any() and counts[~common].sum() > 0  # rare ones are drawn too
    chi = ((counts - expected)[common] ** 2 / expected[common]).sum() / common.sum()
    assert 0.6 < chi < 1.4


def test_each_prompt_gets_its_own_continuation(model):
    prompts = [[1, 5, 6], [1], [1, 7]]
    found = continuations(model, prompts, 4, 0, stop_ids=())
    assert [len(ids) for ids in found] == [4, 4, 4]
    again = continuations(model, prompts[::-1], 4, 0, stop_ids=())
    assert again == found[::-1]  # whatever their order
    assert continuations(model, [], 4, 0, stop_ids=()) == []


def test_nothing_to_start_from_is_refused(model):
    with pytest.raises(ValueError, match="at least one token"):
        sample(model, bos_ids=())


def test_purposes_do_not_share_a_seed():
    seeds = {seed_for(seed, what) for seed in range(20) for what in ("retain", "replay", "anchor")}
    assert len(seeds) == 60 and max(seeds) < 2**63
