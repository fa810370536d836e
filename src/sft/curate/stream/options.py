"""`CurateConfig`: what `sft curate` is asked to do, from flags or a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from sft.config import Section, SourceConfig, read_config
from sft.errors import ConfigError, did_you_mean


class CurateConfig(Section):
    """Every option; steps run in the order of the fields from `min_answer_words` on."""

    data: list[str] = Field(min_length=1, description="Files and folders to read, in order.")
    out: str = Field(description="The new file, JSON lines.")
    format: str = Field("auto", description="Shape of the rows; `auto` recognises it.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Column map, from our name to the file's."
    )
    min_answer_words: int | None = Field(None, ge=0, description="Drop rows of shorter answers.")
    max_answer_words: int | None = Field(None, ge=1, description="Drop rows of longer answers.")
    quality: bool = Field(
        False, description="Drop rows whose answer repeats itself or is mostly symbols."
    )
    drop: list[str] = Field(
        default_factory=list, description="Drop rows that these checks of `sft check` find."
    )
    decontaminate: list[str] = Field(
        default_factory=list, description="Drop rows that hold a text of these files."
    )
    dedupe: Literal["none", "exact", "near"] = Field("none", description="Which copies go.")
    openers: Literal["drop", "strip"] = Field(
        "drop", description="What happens to answers that open as too many others do."
    )
    cap_openers: float | None = Field(
        None, gt=0, le=1, description="Largest share of the answers that may open alike."
    )
    balance: int | None = Field(
        None, ge=2, description="Group prompts into so many clusters and cap the large ones."
    )
    toward: str | None = Field(None, description="Prompts the rows should resemble.")
    mode: Literal["weight", "select"] = Field(
        "weight",
        description="`toward`: write a column `row_weight`, or draw `select` rows.",
    )
    select: int | None = Field(None, ge=1, description="Keep so many rows.")
    seed: int = Field(0, ge=0, description="Seed of what depends on chance.")
    workers: int = Field(1, ge=1, le=256, description="Processes that read rows.")
    engine: Literal["local", "ray"] = Field("local", description="Where they run.")
    dry_run: bool = Field(False, description="Write nothing, only say what would be done.")

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
