"""A batch through the model to its loss: flat without padding, or padded as a fallback."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from sft.data.packing import Batch, pad, trained_positions
from sft.model.attention import FLAT, padded_implementation, use_attention
from sft.model.losses import (
    NLL,
    Loss,
    LossSums,
    chunk_rows,
    linear_loss,
    logits_loss,
    module_loss,
    token_scores,
)

Layout = Literal["flat", "padded"]


class Forward:
    """Runs batches through `model` (already on its device, LoRA already inserted).

    `flat`: one stream of real tokens, our attention, and the head on supervised positions only.
    `padded`: the model's own forward with an attention mask, for models that are not equal flat.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        layout: Layout = "flat",
        loss: Loss = NLL,
        neftune_alpha: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.layout: Layout = layout
        self._loss = loss
        self._neftune_alpha = neftune_alpha
        self.dtype = dtype
        self._head = model.get_output_embeddings()
        self._config = model.config.get_text_config()
        self._transformed = any(
            getattr(self._config, name, None) not in (None, 1, 1.0)
            for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
        )

    def loss(self, batch: Batch) -> LossSums:
        """Differentiable sums of `batch`, in training mode."""
        self.model.train()
        positions = trained_positions(batch)
        labels, weights = batch.labels[positions], batch.weights[positions]
        with self._autocast(batch):
            if self.layout == "padded":
                logits = self._padded_logits(batch, positions)
                return _detached(*logits_loss(logits, labels, weights, self._loss))
            hidden = self._hidden(batch, self._neftune_alpha)[positions]
            if type(self._head) is nn.Linear and not self._transformed:
                head = self._head
                return linear_loss(hidden, head.weight, head.bias, labels, weights, self._loss)
            return module_loss(hidden, self._logits, labels, weights, self._loss)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits `[num_trained, vocab]` of the supervised positions; differentiable.

        All at once: for a few short examples only.
        """
        positions = trained_positions(batch)
        with self._autocast(batch):
            if self.layout == "padded":
                return self._padded_logits(batch, positions)
            return self._logits(self._hidden(batch)[positions])

    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """`nll` and `correct` of each supervised token, fp32 `[num_trained]`, in eval mode."""
        parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.read(batch, lambda logits, labels: parts.append(token_scores(logits, labels)))
        return torch.cat([nll for nll, _ in parts]), torch.cat([ok for _, ok in parts])

    @torch.no_grad()
    def read(self, batch: Batch, visit: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        """Show `visit` the logits `[n, vocab]` and labels `[n]` of all supervised positions.

        In eval mode, in order, a chunk at a time: the logits of a whole batch may not fit.
        """
        self.model.eval()
        positions = trained_positions(batch)
        labels = batch.labels[positions]
        with self._autocast(batch):
            if self.layout == "padded":
                visit(self._padded_logits(batch, positions), labels)
                return
            hidden = self._hidden(batch)[positions]
            rows = chunk_rows(self._config.vocab_size, hidden.device)
            for h, y in zip(hidden.split(rows), labels.split(rows), strict=True):
                visit(self._logits(h), y)

    def _autocast(self, batch: Batch) -> AbstractContextManager[None]:
        reduced = self.dtype != torch.float32
        return torch.autocast(batch.input_ids.device.type, dtype=self.dtype, enabled=reduced)

    def _hidden(self, batch: Batch, neftune_alpha: float = 0.0) -> torch.Tensor:
        """Last hidden states `[num_tokens, d]` of the flat stream."""
        longest = max(batch.lengths)
        inputs = {"input_ids": batch.input_ids[None]}
        if neftune_alpha:
            inputs = {"inputs_embeds": self._noisy_embeddings(batch, neftune_alpha)[None]}
        use_attention(self.model, FLAT)
        out = self.model.base_model(
            **inputs,
            position_ids=batch.position_ids[None],
            use_cache=False,
            cu_seq_lens_q=batch.cu_seq_lens,
            cu_seq_lens_k=batch.cu_seq_lens,
            max_length_q=longest,
            max_length_k=longest,
        )
        hidden: torch.Tensor = out.last_hidden_state[0]
        return hidden

    def _noisy_embeddings(self, batch: Batch, alpha: float) -> torch.Tensor:
        """NEFTune (arXiv 2310.05914): uniform noise in ±alpha / sqrt(seq_len * d)."""
        embeddings: torch.Tensor = self.model.get_input_embeddings()(batch.input_ids)
        lengths = torch.tensor(batch.lengths, device=embeddings.device)
        size = (lengths * embeddings.shape[-1]).float().rsqrt() * alpha
        noise = torch.rand_like(embeddings) * 2 - 1
        return embeddings + noise * size.repeat_interleave(lengths)[:, None]

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The head, with the scaling some architectures apply to its output."""
        logits: torch.Tensor = self._head(hidden)
        config = self._config
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if divisor := getattr(config, "logits_scaling", None):
            logits = logits / divisor
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = cap * torch.tanh(logits / cap)
        return logits

    def _padded_logits(self, batch: Batch, positions: torch.Tensor) -> torch.Tensor:
        """Logits `[num_trained, vocab]` from the model's own forward on a padded batch."""
        input_ids, mask = pad(batch)
        use_attention(self.model, padded_implementation(self.model))
        logits = self.model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
        real: torch.Tensor = logits[mask.bool()]
        return real[positions]


def _detached(
    objective: torch.Tensor, nll: torch.Tensor, correct: torch.Tensor, token_nll: torch.Tensor
) -> LossSums:
    return LossSums(objective, nll.detach(), correct.detach(), token_nll.detach())
