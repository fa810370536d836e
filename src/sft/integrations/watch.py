"""One run of another trainer, watched: its parts, its looks, its records, its best weights."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sft.config import Config
from sft.data.chat_template import ChatTemplate
from sft.data.dataset import account, load_data
from sft.data.held_out import load_held_out
from sft.errors import ConfigError, DivergedError
from sft.guards.early_stopping import best_look
from sft.integrations.unchanged import unchanged
from sft.interrupt import StopFlag
from sft.looks import Looks, may_restore
from sft.model import load
from sft.model.forward import Forward
from sft.model.self_check import check_layout
from sft.probes.build import ProbeSource, build_probes
from sft.probes.look import Looker
from sft.records.record import perplexity
from sft.records.store import RecordStore, open_stores, read_records
from sft.resolve import Resolver
from sft.run_dir import RunDir, write_json
from sft.setup import Tokens, examine, identity, objective_of, same_run, saved_identity
from sft.state import Counters
from sft.trackers.console import Console
from sft.verdicts import lines, newest, read_findings
from sft.verdicts import table as guards_table

# Names in a trainer's log, and ours.
_LOGGED = {
    "learning_rate": "learning_rate",
    "epoch": "epoch",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "accuracy",  # TRL
    "num_tokens": "num_tokens",  # TRL
}


@dataclass
class Watched:
    """What looks are taken at (`sft.looks.Subject`)."""

    config: Config
    model: PreTrainedModel
    tokenizer: Any
    stop_ids: list[int]
    looker: Looker
    objective: str | None
    num_steps: int
    counters: Counters
    epoch: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the run is, how often it is looked at, and what its examples add up to."""

    config: Config
    num_steps: int
    every: int
    dtype: torch.dtype

    def visits(self, num_rows: int, count: Any) -> int:
        """Examples seen in the whole run, when `num_rows` can be used."""
        return int(count(num_rows))


class Watch:
    """Holds the run folder from the first step to `close`."""

    def __init__(self, folder: Path, show: Console) -> None:
        self._stack = ExitStack()
        self.run = self._stack.enter_context(RunDir.open(folder))
        self._show = show
        self._stores: Mapping[str, RecordStore] = {}
        self._best: tuple[int, dict[str, torch.Tensor]] | None = None
        self._started = 0.0

    def close(self) -> None:
        """Give the run folder back."""
        self._stack.close()
