"""Text that a model writes by itself: a sample of what it knows, which needs no external data.

On text sampled from a model p at temperature 1, the rise of the loss under a changed model q is an
unbiased estimate of KL(p || q), because KL(p || q) = E_p[log p - log q].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from sft.probes.generate import generate


def self_samples(
    model: PreTrainedModel,
    bos_ids: Sequence[int],
    num: int,
    num_tokens: int,
    seed: int,
    stop_ids: Sequence[int],
    pad_id: int,
    batch: int = 16,
) -> list[list[int]]:
    """`num` texts that start with `bos_ids` and go on for at most `num_tokens` tokens.

    Plain sampling: temperature 1, no top-k, no top-p. A text ends with its stop token where one
    was sampled. The same seed and `batch` give the same samples; the global random state is left
    as it was.
    """
    written = continuations(
        model, [bos_ids] * num, num_tokens, seed, stop_ids=stop_ids, pad_id=pad_id, batch=batch
    )
    return [[*bos_ids, *ids] for ids in written]


def continuations(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    num_tokens: int,
    seed: int,
    *,
    stop_ids: Sequence[int],
    pad_id: int,
    batch: int = 16,
) -> list[list[int]]:
    """What the model writes after each of `prompts`, in their order; sampled in the same way."""
    if not all(prompts):
        raise ValueError("a model needs at least one token to go on from; give a BOS or EOS token")
    longest = max((len(prompt) for prompt in prompts), default=0)
    with seeded(seed):
        # Without stop ids, because the answers of generate() no longer tell which one it was.
        completions = generate(
            model,
            prompts,
            max_new_tokens=num_tokens,
            stop_ids=(),
            pad_id=pad_id,
            temperature=1.0,
            batch_tokens=batch * (longest + num_tokens),
        )
    return [_until(completion.ids, stop_ids) for completion in completions]


def seed_for(seed: int, purpose: str) -> int:
    """A seed of its own for each `purpose` of one run, so that no two share their samples."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:6])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random state follows `seed` inside the block and is what it was behind it."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _until(ids: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    """`ids` up to the first stop token, which is kept."""
    for t, token in enumerate(ids):
        if token in stop_ids:
            return list(ids[: t + 1])
    return list(ids)
