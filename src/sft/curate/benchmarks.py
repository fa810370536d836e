"""Texts that must not be trained on: the questions of public tests, from the user's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sft.config import SourceConfig
from sft.data.repeats import prompt_text
from sft.data.rows.conversation import Conversation
from sft.data.rows.prompts import read_prompts
from sft.errors import ConfigError


def read_benchmarks(paths: Sequence[str]) -> dict[str, list[str]]:
    """The texts of each file by its name without ending: prompts, or lines.

    A `.txt` file has one text a line; any other is read like training data, answers optional.

    Raises:
        ConfigError, DataError: a file cannot be read.
    """
    return {Path(path).stem: benchmark_texts(path, "--benchmark") for path in paths}


def held_out_rows(path: str) -> list[Conversation]:
    """The rows of one file, for those that repeat one to be left out; none of a `.txt` file."""
    if Path(path).suffix.lower() == ".txt":
        return []
    return [p.conversation for p in read_prompts([SourceConfig.model_validate(path)]).prompts]


def benchmark_texts(path: str, flag: str) -> list[str]:
    """The texts of one file, as above; `flag` is what it was given by, for errors."""
    if Path(path).suffix.lower() != ".txt":
        return [prompt_text(row) for row in held_out_rows(path)]
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path}: cannot be read ({error})") from None
    return [line for line in text.splitlines() if line.strip()]
