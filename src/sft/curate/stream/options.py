"""`CurateConfig`: what `sft curate` is asked to do, from flags or a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from sft.config import Section, SourceConfig, read_config
from sft.errors import ConfigError, did_you_mean


class CurateConfig(Section):
    """Every option, as the help of its flag describes it.

    Steps run in the order of the fields from `min_answer_words` on.
    """

    data: list[str] = Field(min_length=1)
    out: str
    format: str = "auto"
    columns: dict[str, str] = Field(default_factory=dict)  # from our name to the file's
    min_answer_words: int | None = Field(None, ge=0)
    max_answer_words: int | None = Field(None, ge=1)
    quality: bool = False
    drop: list[str] = Field(default_factory=list)
    decontaminate: list[str] = Field(default_factory=list)
    dedupe: Literal["none", "exact", "near"] = "none"
    openers: Literal["drop", "strip"] = "drop"
    cap_openers: float | None = Field(None, gt=0, le=1)
    balance: int | None = Field(None, ge=2)
    toward: str | None = None
    mode: Literal["weight", "select"] = "weight"  # of `toward`: a column `row_weight`, or a draw
    select: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    workers: int = Field(1, ge=1, le=256)
    engine: Literal["local", "ray"] = "local"
    dry_run: bool = False

    @field_validator("data", "drop", "decontaminate", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _agree(self) -> CurateConfig:
        low, high = self.min_answer_words, self.max_answer_words
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_answer_words {low} is more than max_answer_words {high}")
        if "openers" in self.model_fields_set and self.cap_openers is None:
            raise ValueError("openers needs cap_openers: the share that may open alike, as 0.1")
        if self.toward and self.mode == "select" and self.select is None:
            raise ValueError("toward with mode select needs select: how many rows to keep")
        if self.mode == "select" and not self.toward:
            raise ValueError("mode select needs toward: the prompts that rows should resemble")
        if Path(self.out).suffix.lower() != ".jsonl":
            raise ValueError(f"out: {self.out!r} must end in .jsonl, for JSON lines are written")
        return self

    def sources(self) -> list[SourceConfig]:
        """One source for each entry of `data`."""
        return [
            SourceConfig.model_validate(
                {"path": path, "format": self.format, "columns": self.columns}
            )
            for path in self.data
        ]

    def parameters(self) -> dict[str, Any]:
        """What the result depends on: neither where it goes nor how many work on it."""
        return self.model_dump(exclude={"out", "workers", "engine", "dry_run"})


def load_curate_config(
    flags: Mapping[str, Any], config_file: str | Path | None = None
) -> CurateConfig:
    """The options of a YAML file, if any, with those of `flags` that are not None over them.

    The file has the options themselves, or holds them in a section `curate`.

    Raises:
        ConfigError: an option is unknown or wrong; one message for all of them.
    """
    values = dict(read_config(config_file)) if config_file else {}
    if isinstance(values.get("curate"), dict):
        values = dict(values["curate"])
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        return CurateConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(dict(one)) for one in error.errors())) from None


def _explain(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(CurateConfig.model_fields)
        return f"{where}: unknown option.{did_you_mean(where, known)} Known: {', '.join(known)}."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not where:
        return message
    if problem["type"] == "missing":
        return f"{where}: missing. Give it with {'DATA' if where == 'data' else f'--{where}'}."
    return f"{where}: {message} (found {problem.get('input')!r:.60})"
