"""Answers of a model: many at once from token ids, or one as it is written, for a chat.

Both are transformers' own `generate` with nothing but what is asked for here: penalties and
sampling settings that a model brings in its `generation_config` are left out, so that two models
are compared on equal terms.
"""

from __future__ import annotations

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
    """One answer: its token ids without the stop token, and why it ended.

    `stop`: the model ended it; `length`: it was cut.
    """

    ids: tuple[int, ...]
    stop_reason: StopReason


def load_for_answers(config: ModelConfig, folder: str, tokenizer: TokenizerInfo) -> PreTrainedModel:
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
    pad_id: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    batch_tokens: int = 8192,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> list[Completion]:
    """Answers to `prompts`, in their order; greedy and repeatable with `temperature` 0.

    Prompts of similar length share a batch of at most `batch_tokens` tokens, answers included.
    An answer also ends where the model has no more positions. `on_progress` is told how many
    answers are done. Sampling draws from torch's global generator.
    """
    budgets = [min(max_new_tokens, _room(model, len(prompt))) for prompt in prompts]
    answers: dict[int, Completion] = {}
    with _ready(model):
        for group in _groups(prompts, budgets, batch_tokens):
            settings = _settings(budgets[group[0]], stop_ids, pad_id, temperature, top_p)
            input_ids, mask = _pad_left([prompts[i] for i in group], pad_id)
            rows = _run(model, input_ids, mask, settings)
            answers |= {i: _completion(row, stop_ids) for i, row in zip(group, rows, strict=True)}
            on_progress(len(answers))
    nothing = Completion((), "length")  # the prompt alone fills the model
    return [answers.get(i, nothing) for i in range(len(prompts))]


class AnswerStream:
    """One answer, as pieces of text while it is written; iterate over it once.

    When the pieces have ended, `completion` holds the whole answer. Leaving early (a closed
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
            input_ids, mask = _pad_left([prompt_ids], settings.pad_token_id)
            with _ready(model):
                rows = _run(
                    model,
                    input_ids,
                    mask,
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
    pad_id: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> AnswerStream:
    """The answer to one prompt, piece by piece, without special tokens.

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
    settings = _settings(budget, stop_ids, pad_id, temperature, top_p)
    return AnswerStream(model, tokenizer, prompt_ids, settings, stop_ids)


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
    budget: int, stop_ids: Sequence[int], pad_id: int, temperature: float, top_p: float
) -> GenerationConfig:
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=budget,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=pad_id,
        use_cache=True,
        **(sampling if temperature > 0 else {"do_sample": False}),
    )


def _pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`input_ids` and `attention_mask`, both `[len(prompts), longest]`, padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    rows = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(rows), torch.tensor(mask)


# Not inference mode: a buffer that a model makes anew in here could not be trained with later.
@torch.no_grad()
def _run(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    mask: torch.Tensor,
    settings: GenerationConfig,
    **extra: Any,
) -> list[list[int]]:
    """New token ids of every row, with stop tokens and what follows them."""
    device = next(model.parameters()).device
    out: torch.Tensor = model.generate(
        input_ids=input_ids.to(device),
        attention_mask=mask.to(device),
        generation_config=settings,
        **extra,
    )
    new: list[list[int]] = out[:, input_ids.shape[1] :].tolist()
    return new


def _completion(ids: list[int], stop_ids: Sequence[int]) -> Completion:
    for t, token in enumerate(ids):
        if token in stop_ids:
            return Completion(tuple(ids[:t]), "stop")
    return Completion(tuple(ids), "length")
