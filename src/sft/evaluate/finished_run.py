"""A run opened again: its settings, the model that it made, and the template of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft.config import Config, ModelConfig, load_config, read_config
from sft.data.template.chat_template import ChatTemplate
from sft.errors import ConfigError
from sft.model.load import TokenizerInfo, load_tokenizer
from sft.runs.run_dir import RunDir


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What `sft eval` and `sft blend` read of a run before they load any weights."""

    folder: RunDir
    config: Config
    tuned: ModelConfig
    tokenizer: TokenizerInfo
    template: ChatTemplate

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Of the rows and the base model that the run was started with, by name."""
        saved = read_config(self.folder.config).get("fingerprint")
        return saved if isinstance(saved, Mapping) else {}


def open_run(run: str | Path) -> FinishedRun:
    """The run in the folder `run`.

    Raises:
        ConfigError: no such run, or it has no model yet.
    """
    folder = RunDir.find(run)
    config, tuned = tuned_model(folder)
    tokenizer = load_tokenizer(tuned, str(folder.model), config.method.kind)
    template = ChatTemplate(tokenizer.tokenizer, config.data.tools)
    return FinishedRun(folder, config, tuned, tokenizer, template)


def tuned_model(run: RunDir) -> tuple[Config, ModelConfig]:
    """The resolved config of a run, and the model it made, with the template of its training.

    Raises:
        ConfigError: `config.yaml` is not one that training wrote, or there is no model yet.
    """
    saved = read_config(run.config).get("config")
    if not isinstance(saved, dict):
        raise ConfigError(f"{run.config}: has no `config:`; it was not written by a run")
    config = load_config(saved)
    if not (run.model / "config.json").is_file():
        raise ConfigError(
            f"{run.path}: this run has no model yet (expected {run.model}); let it finish first"
        )
    changes = {"name": str(run.model), "revision": None, "template": "auto"}
    return config, config.model.model_copy(update=changes)
