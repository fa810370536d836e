"""Completions by a model: many at once from token ids, or one as it is written, for a chat.

Both are transformers' own `generate` with nothing but what is asked for here: penalties and
sampling settings that a model brings in its `generation_config` are left out, so that two models
are compared on equal terms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Literal

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from sft.config import ModelConfig
from sft.errors import DataError
from sft.model.attention import padded_implementation, use_attention
from sft.model.load import TokenizerInfo, load_model

StopReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Completion:
    """Token ids without the stop token, and why they ended.

    `stop`: the model ended it; `length`: it was cut.
    """

    ids: tuple[int, ...]
    stop_reason: StopReason


def load_for_generation(
    config: ModelConfig, folder: str, tokenizer: TokenizerInfo
) -> PreTrainedModel:
    """The model on the GPU (in bf16 unless fp32 is asked for), else on the CPU in fp32."""
    on_cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_cuda and config.dtype != "float32" else torch.float32
    model = load_model(config, folder, tokenizer, dtype=dtype)
    model.to(torch.device("cuda" if on_cuda else "cpu"))
    return model


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    batch_tokens: int = 8192,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> list[Completion]:
    """Completions of `prompts`, in their order; greedy and repeatable with `temperature` 0.

    Prompts of similar length share a batch of at most `batch_tokens` tokens, completions
    included. A completion also ends where the model has no more positions. `on_progress` gets the
    number of completions so far. Sampling draws from torch's global generator.
    """
    budgets = [min(max_new_tokens, _room(model, len(prompt))) for prompt in prompts]
    completions: dict[int, Completion] = {}
    with _ready(model):
        for group in _groups(prompts, budgets, batch_tokens):
            settings = _settings(budgets[group[0]], stop_ids, temperature, top_p)
            rows = _run(model, [prompts[i] for i in group], settings)
            for i, row in zip(group, rows, strict=True):
                completions[i] = _completion(row, stop_ids)
            on_progress(len(completions))
    nothing = Completion((), "length")  # the prompt alone fills the model
    return [completions.get(i, nothing) for i in range(len(prompts))]


class CompletionStream:
    """One completion, as pieces of text while it is written; iterate over it once.

    When the pieces have ended, `completion` holds all of it. Leaving early (a closed
    iterator, Ctrl-C) stops the model after its current token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        prompt_ids: Sequence[int],
        settings: GenerationConfig,
        stop_ids: Sequence[int],
    ) -> None:
        self.completion: Completion | None = None
        self._streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._cancel = Event()
        self._error: BaseException | None = None
        arguments = (model, prompt_ids, settings, stop_ids)
        self._thread = Thread(target=self._write, args=arguments, name="sft-answer", daemon=True)

    def __iter__(self) -> Iterator[str]:
        self._thread.start()
        try:
            yield from filter(None, self._streamer)
        finally:
            self._cancel.set()
            self._thread.join()
        if self._error:
            raise self._error

    def _write(
        self,
        model: PreTrainedModel,
        prompt_ids: Sequence[int],
        settings: GenerationConfig,
        stop_ids: Sequence[int],
    ) -> None:
        try:
            with _ready(model):
                rows = _run(
                    model,
                    [prompt_ids],
                    settings,
                    streamer=self._streamer,
                    stopping_criteria=StoppingCriteriaList([_Cancelled(self._cancel)]),
                )
            self.completion = _completion(rows[0], stop_ids)
        except BaseException as error:  # handed to the thread that reads the pieces
            self._error = error
            self._streamer.on_finalized_text("", stream_end=True)


def stream(
    model: PreTrainedModel,
    tokenizer: Any,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> CompletionStream:
    """The completion of one prompt, piece by piece, without special tokens.

    Raises:
        DataError: the prompt alone is as long as the model can read.
    """
    room = _room(model, len(prompt_ids))
    if room <= 0:
        raise DataError(
            f"the prompt has {len(prompt_ids):,} tokens and leaves no room for an answer; "
            f"the model reads at most {len(prompt_ids) + room:,}"
        )
    budget = min(max_new_tokens, room)
    settings = _settings(budget, stop_ids, temperature, top_p)
    return CompletionStream(model, tokenizer, prompt_ids, settings, stop_ids)


class _Cancelled(StoppingCriteria):  # type: ignore[misc]
    """Stops every row once the event is set."""

    def __init__(self, event: Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._event.is_set(), device=input_ids.device)


@contextmanager
def _ready(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, padded attention, and no generation settings of the model's own."""
    own, training = model.generation_config, model.training
    # generate() fills whatever is not asked for (a repetition penalty, say) from here.
    model.generation_config = GenerationConfig()
    use_attention(model, padded_implementation(model))
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        model.generation_config = own


def _room(model: PreTrainedModel, prompt_length: int) -> int:
    """Positions the model has left after a prompt."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return (limit or 2**31) - prompt_length


def _groups(
    prompts: Sequence[Sequence[int]], budgets: Sequence[int], batch_tokens: int
) -> Iterator[list[int]]:
    """Indices of prompts to run together: longest first, one budget, within `batch_tokens`."""
    group: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
        if budgets[i] <= 0:
            continue
        if group:
            size = len(prompts[group[0]]) + budgets[group[0]]
            if budgets[i] != budgets[group[0]] or (len(group) + 1) * size > batch_tokens:
                yield group
                group = []
        group.append(i)
    if group:
        yield group


def _settings(
    budget: int, stop_ids: Sequence[int], temperature: float, top_p: float
) -> GenerationConfig:
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=budget,
        eos_token_id=list(stop_ids) or None,
        # Any id will do: padding is masked before a prompt, and cut off behind a stop token.
        pad_token_id=stop_ids[0] if stop_ids else 0,
        use_cache=True,
        **(sampling if temperature > 0 else {"do_sample": False}),
    )


# Not inference mode: a buffer that a model makes anew in here could not be trained with later.
@torch.no_grad()
def _run(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: GenerationConfig,
    **extra: Any,
) -> list[list[int]]:
    """New token ids of every row, with stop tokens and what follows them."""
    device = next(model.parameters()).device
    width = max(len(prompt) for prompt in prompts)  # padded on the left
    rows = [[settings.pad_token_id] * (width - len(ids)) + list(ids) for ids in prompts]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    out: torch.Tensor = model.generate(
        input_ids=torch.tensor(rows, device=device),
        attention_mask=torch.tensor(mask, device=device),
        generation_config=settings,
        **extra,
    )
    new: list[list[int]] = out[:, width:].tolist()
    return new


def _completion(ids: list[int], stop_ids: Sequence[int]) -> Completion:
    for t, token in enumerate(ids):
        if token in stop_ids:
            return Completion(tuple(ids[:t]), "stop")
    return Completion(tuple(ids), "length")


# ------------------------------------------------------------------------- texts of its own

# Text that a model writes by itself is a sample of what it knows, which needs no external data. On
# text sampled from a model p at temperature 1, the rise of the loss under a changed model q is an
# unbiased estimate of KL(p || q), because KL(p || q) = E_p[log p - log q].


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
        # Without stop ids, because the completions of generate() no longer tell which one it was.
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
