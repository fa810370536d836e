"""`README.md` of the saved model: what it is, what it was trained on, what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(config: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The card as Markdown with the YAML header that model hubs read."""
    base = config["model"]["name"]
    method, optim = config["method"], config["optim"]
    sources = ", ".join(f"`{source['path']}`" for source in config["data"]["train"])
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts["metrics"].items())
    guards = "".join(
        f"- {found['guard'].replace('_', ' ')}: {found['verdict'].replace('_', ' ')}. "
        f"{found['message']}\n"
        for found in facts["guards"]
    )
    guards = guards or "Nothing: they were off.\n"
    return f"""---
base_model: {base}
library_name: transformers
pipeline_tag: text-generation
tags:
- sft
---
# {base}, fine-tuned

Trained from `{base}` on {sources} ({facts["num_train"]} examples) with sft
{facts["version"]}: {method["kind"]} training, {optim["name"]}, peak learning rate
{optim["learning_rate"]}, {facts["steps"]} steps. {facts["chosen"]}

| measured on held-out examples ({facts["num_val"]} for validation) | |
|---|---|
{rows}

What the guards said of the training run:

{guards}
The chat template is stored in this folder (sha256 `{facts["template_sha256"]}`); an answer ends
with `{facts["stop_token"]}`, on which generation stops by itself.
"""
