"""Is a finished run ready for what comes next? Checks it without sft: only transformers and TRL.

    $TRL_PYTHON benchmarks/next_stage.py --run runs/demo

1. `RUN/model` is loaded by plain transformers, answers three prompts through its own chat
   template, and each answer must end by itself, on the stop token.
2. TRL's DPOTrainer trains it for two steps on eight preference pairs; every loss must be finite.

The exit code is 0 only if all of that held.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

SYSTEM = (
    "Answer the customer message with one JSON record with the keys category, urgency, product "
    "and summary."
)
PROMPTS = (
    "My kettle arrived without its lid. Can you send one?",
    "I was charged twice for the same lamp this morning.",
    "How do I reset the thermostat to its factory settings?",
)
# (message, better answer, worse answer)
PAIRS = (
    ("The parcel is late.", "I am sorry. I will trace it now.", "Parcels are late sometimes."),
    ("Is the lamp dimmable?", "Yes, in ten steps.", "Maybe. Try it."),
    ("I want my money back.", "I have started the refund.", "No."),
    ("The heater smells burnt.", "Unplug it now; we will replace it.", "That goes away."),
    ("I cannot log in.", "I have sent you a link to reset it.", "Others can log in."),
    ("Where is my invoice?", "Under Orders, at the top right.", "Have a look around."),
    ("The doorbell is silent.", "Please charge it for an hour first.", "Buy another one."),
    ("Do you ship to Malta?", "Yes, in five working days.", "I would have to ask someone."),
)


def answers(folder: Path, max_new_tokens: int) -> bool:
    """Generate for each prompt; True when every answer ended on a stop token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    stops = model.generation_config.eos_token_id
    stops = set(stops if isinstance(stops, list) else [stops])
    stops.discard(None)
    all_stopped = bool(stops)
    print(f"stop tokens: {tokenizer.convert_ids_to_tokens(sorted(stops))}")
    for prompt in PROMPTS:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        ids = output[0, inputs["input_ids"].shape[1] :].tolist()
        stopped = ids[-1] in stops
        all_stopped &= stopped
        how = "stopped by itself" if stopped else f"CUT after {len(ids)} tokens"
        print(f"- {prompt}\n  {tokenizer.decode(ids, skip_special_tokens=True)!r}\n  {how}")
    return all_stopped


def preference_steps(folder: Path, steps: int) -> bool:
    """Train with DPO; True when there is a finite loss for each step."""

    def turn(role: str, content: str) -> list[dict[str, Any]]:
        return [{"role": role, "content": content}]

    pairs = Dataset.from_list(
        [
            {
                "prompt": turn("user", message),
                "chosen": turn("assistant", better),
                "rejected": turn("assistant", worse),
            }
            for message, better, worse in PAIRS
        ]
    )
    with tempfile.TemporaryDirectory() as output:
        config = DPOConfig(
            output_dir=output,
            use_cpu=True,
            bf16=False,
            max_steps=steps,
            per_device_train_batch_size=2,
            max_length=128,
            gradient_checkpointing=False,
            learning_rate=1e-6,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = DPOTrainer(model=str(folder), args=config, train_dataset=pairs)
        before = trainer.model.get_input_embeddings().weight.detach().clone()
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    moved = not torch.equal(before, trainer.model.get_input_embeddings().weight)
    print(f"DPO losses: {losses}; weights {'moved' if moved else 'DID NOT MOVE'}")
    return len(losses) == steps and all(math.isfinite(float(x)) for x in losses) and moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder, finished")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--dpo-steps", type=int, default=2)
    args = parser.parse_args()
    folder = args.run / "model"
    if not (folder / "config.json").is_file():
        parser.error(f"{folder} holds no model; let the run finish first")
    print(
        f"transformers {transformers.__version__}, trl {trl.__version__}, "
        f"torch {torch.__version__}; sft imported: {'sft' in sys.modules}"
    )
    checks = {
        "every answer stopped by itself": answers(folder, args.max_new_tokens),
        "DPO trains it": preference_steps(folder, args.dpo_steps),
    }
    for name, held in checks.items():
        print(f"{'ok  ' if held else 'FAIL'} {name}")
    sys.exit(not all(checks.values()))


if __name__ == "__main__":
    main()
