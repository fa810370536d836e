"""Tiny random models and a tokenizer trained on four sentences: real ones, built in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

TEXT = [
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France? The capital of France is Paris.",
    "Answer the question: one and two are three, and two and two are four.",
    "system user assistant tool Instruction Response",
]
SPECIALS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(template: str | None = CHATML, specials: list[str] = SPECIALS) -> Any:
    """A byte-level BPE tokenizer; `</s>` is its end, `<s>` its beginning."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = template
    return fast


_SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "vocab_size": 400,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CONFIGS: dict[str, Any] = {
    "gpt2": lambda: GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        vocab_size=400,
        bos_token_id=1,
        eos_token_id=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
    "llama": lambda: LlamaConfig(**_SIZE, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**_SIZE, sliding_window=None),
    "mistral-window": lambda: MistralConfig(**_SIZE, sliding_window=8),
    "qwen3": lambda: Qwen3Config(**_SIZE, head_dim=16),
    "gemma": lambda: GemmaConfig(**_SIZE, head_dim=16),
    "gemma2": lambda: Gemma2Config(
        **_SIZE, head_dim=16, sliding_window=8, final_logit_softcapping=5.0
    ),
}


def model(kind: str = "llama", seed: int = 0) -> Any:
    """A random model of `kind`, large enough in its weights that attention matters."""
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(CONFIGS[kind]())
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.15)
    return made


def save(folder: Path, kind: str = "llama", template: str | None = CHATML) -> Path:
    """A model folder as users have it: config, safetensors, tokenizer."""
    model(kind).save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder
