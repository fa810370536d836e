"""The flat kernels against softmax written out, one example at a time."""

from __future__ import annotations

import pytest
import torch

import tiny
from sft.model.attention import (
    FLAT,
    UnsupportedAttention,
    flat_attention,
    padded_implementation,
    use_attention,
)

LENGTHS = (1, 9, 5, 12)
BOUNDS = torch.tensor([0, 1, 10, 15, 27], dtype=torch.int32)
CAUSAL = torch.nn.Module()
CAUSAL.is_causal = True


def random_qkv(heads=4, kv_heads=2, dim=8, dtype=torch.float32, device="cpu"):
    torch.manual_seed(0)
    sizes = (heads, kv_heads, kv_heads)
    return [torch.randn(1, n, sum(LENGTHS), dim).to(device, dtype) * 2 for n in sizes]


def by_hand(q, k, v, scaling=None, window=None, softcap=None) -> torch.Tensor:
    """float64 `[1, num_tokens, heads, dim]`, a loop over examples, heads and queries."""
    q, k, v = (x.double().cpu() for x in (q, k, v))
    out = torch.zeros_like(q)
    groups = q.shape[1] // k.shape[1]
    start = 0
    for length in LENGTHS:
        for head in range(q.shape[1]):
            for t in range(start, start + length):
                first = start if window is None else max(start, t - window + 1)
                keys = k[0, head // groups, first : t + 1]
                scores = keys @ q[0, head, t] * (scaling or q.shape[-1] ** -0.5)
                if softcap is not None:
                    scores = softcap * torch.tanh(scores / softcap)
                out[0, head, t] = scores.softmax(-1) @ v[0, head // groups, first : t + 1]
        start += length
    return out.transpose(1, 2)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 1, 4, 9, 100])
@pytest.mark.parametrize("scaling", [None, 0.5])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_it_is_softmax_within_each_example(kv_heads, scaling, window, softcap):
    q, k, v = random_qkv(kv_heads=kv_heads)
    out, weights = flat_attention(
        CAUSAL,
        q,
        k,
        v,
        None,
        scaling=scaling,
        sliding_window=window,
        softcap=softcap,
        cu_seq_lens_q=BOUNDS,
        max_length_q=12,
    )
    assert out.shape == (1, 27, 4, 8) and weights is None
    wanted = by_hand(q, k, v, scaling, window, softcap)
    torch.testing.assert_close(out, wanted.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_dropout_drops_and_keeps_the_mean(softcap):
    q, k, v = random_qkv()
    v = torch.ones_like(v)  # without dropout every output is exactly 1
    more = {"softcap": softcap, "cu_seq_lens_q": BOUNDS}
    out, _ = flat_attention(CAUSAL, q, k, v, None, dropout=0.0, **more)
    torch.testing.assert_close(out, torch.ones_like(out))
    draws = [flat_attention(CAUSAL, q, k, v, None, dropout=0.5, **more)[0] for _ in range(50)]
    assert not torch.allclose(draws[0], draws[1])
    assert float(torch.stack(draws).mean()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    "more",
    [{"s_aux": torch.zeros(4)}, {"position_bias": torch.zeros(1)}, {"cu_seq_lens_q": None}],
    ids=["sinks", "position bias", "no boundaries"],
)
def test_what_it_cannot_do_it_refuses(more):
    q, k, v = random_qkv()
    with pytest.raises(UnsupportedAttention):
        flat_attention(CAUSAL, q, k, v, None, **{"cu_seq_lens_q": BOUNDS, **more})


def test_a_model_that_evals_ahead_is_refused():
    module = torch.nn.Module()
    module.is_causal = False
    with pytest.raises(UnsupportedAttention, match="Module"):
        flat_attention(module, *random_qkv(), None, cu_seq_lens_q=BOUNDS)


def test_use_attention_switches_back_and_forth():
    model = tiny.model().eval()
    ids = torch.arange(5, 25)[None]
    before = model(input_ids=ids).logits
    use_attention(model, FLAT)
    assert model.config._attn_implementation == FLAT
    bounds = torch.tensor([0, 20], dtype=torch.int32)
    flat = model(input_ids=ids, cu_seq_lens_q=bounds, max_length_q=20, use_cache=False).logits
    torch.testing.assert_close(flat, before, rtol=1e-4, atol=1e-4)
    use_attention(model, "eager")
    assert model(input_ids=ids, output_attentions=True).attentions[0].shape == (1, 4, 20, 20)
    use_attention(model, "sdpa")
    assert torch.equal(model(input_ids=ids).logits, before)


def test_padding_uses_sdpa_unless_scores_are_capped():
    found = {kind: padded_implementation(tiny.model(kind)) for kind in ("llama", "gpt2", "gemma2")}
    assert found == {"llama": "sdpa", "gpt2": "sdpa", "gemma2": "eager"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen attention runs on CUDA only")
@pytest.mark.parametrize("window", [None, 1, 4, 9, 100])
@pytest.mark.parametrize("scaling", [None, 0.25])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_cuda_kernel_is_softmax_within_each_example(kv_heads, scaling, window):
    q, k, v = random_qkv(kv_heads=kv_heads, dim=64, dtype=torch.bfloat16, device="cuda")
    out, _ = flat_attention(
        CAUSAL,
        q,
        k,
        v,
        None,
        scaling=scaling,
        sliding_window=window,
        cu_seq_lens_q=BOUNDS.cuda(),
        max_length_q=12,
    )
    assert out.shape == (1, 27, 4, 64)
    wanted = by_hand(q, k, v, scaling, window).float()
    torch.testing.assert_close(out.cpu().float(), wanted, rtol=0.02, atol=0.05)
