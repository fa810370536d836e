"""Model FLOPs of training, without padding and without recomputation.

    N  parameters that take part in matrix products, the head included even when it is tied to
       the embedding; embedding look-ups and norms excluded
    n  the adapter's share of N, when only an adapter is trained
    a  num_heads * head_dim, summed over layers; s the mean attended length of a token

    full      (6 N + 12 a s) T          adapter   (4 (N - n) + 6 n + 12 a s) T

A multiplication and an addition count as two. T is the number of real tokens. Attention is
causal, so a sequence of l tokens attends l (l + 1) / 2 times, fewer under a sliding window.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the formulas need.

    `num_trained` counts the parameters, among `num_matmul`, that get a weight gradient;
    `layers` holds, for each layer, `(num_heads * head_dim, sliding window or None)`.
    """

    num_matmul: int
    num_trained: int
    layers: tuple[tuple[int, int | None], ...]

    def train_flos(self, lengths: Iterable[int]) -> float:
        """Forward and backward over sequences of these lengths."""
        lengths = list(lengths)
        linear = 4 * self.num_matmul + 2 * self.num_trained
        attention = sum(
            width * sum(attended(length, window) for length in lengths)
            for width, window in self.layers
        )
        return float(linear * sum(lengths) + 12 * attention)


def attended(length: int, window: int | None = None) -> int:
    """Pairs (query, key) of a causal sequence: l (l + 1) / 2, at most `window` keys each."""
    if window is None or length <= window:
        return length * (length + 1) // 2
    return window * (window + 1) // 2 + (length - window) * window


def model_shape(model: PreTrainedModel) -> ModelShape:
    """Read the shape off a model, with or without LoRA layers inside."""
    matmul = trained = 0
    head = model.get_output_embeddings()
    for module in model.modules():
        # peft wraps a Linear and keeps it as `base_layer`, so each is met exactly once.
        if isinstance(module, nn.Linear | Conv1D):
            matmul += module.weight.numel()
            trained += module.weight.numel() * module.weight.requires_grad
    # A head that peft wraps holds a Linear, which the loop has met; one of another make is added.
    if head is not None and not any(isinstance(m, nn.Linear | Conv1D) for m in head.modules()):
        matrices = [p for p in head.parameters() if p.dim() == 2]
        matmul += sum(p.numel() for p in matrices)
        trained += sum(p.numel() for p in matrices if p.requires_grad)
    return ModelShape(matmul, trained, _layers(model))


def _layers(model: PreTrainedModel) -> tuple[tuple[int, int | None], ...]:
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types is None:
        types = ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    return tuple(
        (heads * head_dim, window if kind == "sliding_attention" else None) for kind in types
    )
