"""Rows that are measured and never trained on: `data.usage` and `data.test`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sft.config import DataConfig
from sft.data.chat_template import ChatTemplate
from sft.data.problems import BadRows
from sft.data.prompts import Prompt, read_prompts
from sft.data.read import read_conversations
from sft.data.tokenize import Example, tokenize
from sft.errors import DataError


@dataclass(frozen=True, slots=True)
class HeldOut:
    """`usage` are the prompts with answers as examples; `unanswered` the ids of the others.

    `prompts` holds both kinds, as conversations.
    """

    prompts: list[Prompt] = field(default_factory=list)
    usage: list[Example] = field(default_factory=list)
    unanswered: Mapping[str, list[int]] = field(default_factory=dict)
    test: list[Example] = field(default_factory=list)
    files: Mapping[str, str] = field(default_factory=dict)


def load_held_out(config: DataConfig, template: ChatTemplate) -> HeldOut:
    """Read and tokenise what `config` names. A usage prompt that is too long is left out.

    Raises:
        ConfigError, DataError, TemplateError: with file, line and reason.
    """
    prompts, files = read_prompts(config.usage)
    limit = int(config.max_seq_len)
    bad = BadRows("error")
    answered = [prompt.conversation for prompt in prompts if prompt.has_answer]
    usage = tokenize(answered, template, bad, max_seq_len=limit).examples
    test: list[Example] = []
    if config.test:
        loaded = read_conversations(config.test, config.on_bad_row)
        files |= loaded.files
        test = tokenize(loaded.conversations, template, bad, max_seq_len=limit).examples
    bad.raise_if_any(len(prompts))
    unanswered = {}
    for prompt in prompts:
        if not prompt.has_answer:
            row = prompt.conversation
            ids = template.prompt_ids(row.as_dicts(), row.tools)
            if len(ids) < limit:
                unanswered[str(row.origin)] = ids
    if prompts and not usage and not unanswered:
        raise DataError(f"data.usage: every prompt is longer than data.max_seq_len = {limit}")
    return HeldOut(prompts, usage, unanswered, test, files)
