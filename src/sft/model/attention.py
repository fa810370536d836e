"""Attention over examples laid end to end, never across their boundaries.

Registered with transformers under the name `sft_flat`, so that every model that uses the
attention registry can run it. The boundaries arrive as `cu_seq_lens_q`, which transformers
hands from the model's `forward` down to every layer.

CPU: one call of scaled_dot_product_attention per example, causal, with native GQA: blocks
above the diagonal are skipped and nothing is padded. CUDA: `varlen_attn` (flash attention).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

FLAT = "sft_flat"


class UnsupportedAttention(NotImplementedError):
    """The model asks for something the flat kernels cannot do, such as attention sinks."""


def flat_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each example of a flat batch.

    `query` is `[1, num_heads, num_tokens, head_dim]`; `key` and `value` have `num_kv_heads`.
    Returns `[1, num_tokens, num_heads, head_dim]`.

    Raises:
        UnsupportedAttention: for sinks, position biases, or a model that is not causal.
    """
    unknown = [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown or cu_seq_lens_q is None or not getattr(module, "is_causal", True):
        raise UnsupportedAttention(f"{type(module).__name__} needs {unknown or 'other masks'}")
    if query.is_cuda and softcap is None and dropout == 0.0 and query.dtype != torch.float32:
        out = _varlen(query, key, value, cu_seq_lens_q, max_length_q or 0, scaling, sliding_window)
        return out, None
    parts = []
    lengths = cu_seq_lens_q.diff().tolist()
    # `split`, not slices: its backward joins the gradients once, where each slice would fill a
    # whole zero tensor.
    for q, k, v in zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True):
        if softcap is not None:
            parts.append(_soft_capped(q, k, v, dropout, scaling, sliding_window, softcap))
            continue
        mask = _window_mask(q.shape[2], sliding_window, query.device)
        parts.append(
            F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=key.shape[1] != query.shape[1],
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """`[length, length]`, True where attended; None when the window reaches everything."""
    if window is None or length <= window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


def _soft_capped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
    softcap: float,
) -> torch.Tensor:
    """Scores bounded by softcap * tanh(scores / softcap), as Gemma 2 has them."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    length = q.shape[2]
    scores = q @ k.transpose(2, 3) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    scores = softcap * torch.tanh(scores / softcap)
    mask = _window_mask(length, window or length, q.device)
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()
    weights = scores.masked_fill(~mask, float("-inf")).float().softmax(-1).to(q.dtype)
    return F.dropout(weights, dropout) @ v


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_lens: torch.Tensor,
    max_length: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [num_tokens, heads, head_dim]
    out = varlen_attn(
        q,
        k,
        v,
        cu_seq_lens,
        cu_seq_lens,
        max_length,
        max_length,
        scale=scaling,
        window_size=((window or 0) - 1, 0),  # (-1, 0): causal without a window
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(out, torch.Tensor)  # a tuple only when auxiliary outputs are asked for
    return out.unsqueeze(0)


def _no_mask(*_args: Any, **_kwargs: Any) -> None:
    """The boundaries are in `cu_seq_lens_q`; a mask would cost memory and switch GQA off."""
    return None


def use_attention(model: PreTrainedModel, name: str) -> None:
    """Run `model` with attention `name` from now on: `sft_flat`, `sdpa` or `eager`.

    Not a context manager: with activation checkpointing the layers run again in backward, and
    must find the same attention then.
    """
    if model.config._attn_implementation == name:
        return
    AttentionInterface.register(FLAT, flat_attention)
    AttentionMaskInterface.register(FLAT, _no_mask)
    model.set_attn_implementation(name)


def padded_implementation(model: PreTrainedModel) -> str:
    """The attention to use with padding: SDPA, or eager where SDPA cannot do what is asked.

    It cannot cap scores, and architectures with sinks or without attention do not offer it.
    """
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return "eager" if capped or not model._supports_sdpa else "sdpa"
