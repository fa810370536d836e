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


def continuations(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    num_tokens: int,
    seed: int,
    *,
    stop_ids: Sequence[int],
    batch: int = 16,
) -> list[list[int]]:
    """What the model writes after each of `prompts`, in their order: at most `num_tokens` tokens.

    Plain sampling: temperature 1, no top-k, no top-p. A text ends with its stop token where one
    was sampled. The same seed and `batch` give the same samples; the global random state is left
    as it was.
    """
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
            temperature=1.0,
            batch_tokens=batch * (longest + num_tokens),
        )
    texts = [list(completion.ids) for completion in completions]
    ends = [next((t + 1 for t, i in enumerate(ids) if i in stop_ids), len(ids)) for ids in texts]
    return [ids[:end] for ids, end in zip(texts, ends, strict=True)]


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
