"""The sections `data` and `data.train[]`: what is trained on and what it is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sft.config.section import Auto, Section, or_auto

_FRACTION = or_auto("at least 0 and below 1", lambda share: 0 <= share < 1)


class SourceConfig(Section):
    """One source of rows. A plain string means `path`."""

    path: str = Field(description="File, folder, or Hugging Face data set id.")
    weight: float = Field(
        1.0, gt=0, le=100, description="How often each row is seen per epoch; 0.5 is every other."
    )
    format: str = Field(
        "auto",
        description="Shape of the rows; `auto` recognises it. Or your own, such as "
        "`./mine.py:parse` (docs/extending.md).",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Column map, from our name to the column's name."
    )
    split: str = Field("train", description="Split of a hub data set.")
    subset: str | None = Field(None, description="Configuration name of a hub data set.")
    streaming: bool = Field(
        False,
        description="Read rows as they arrive, only as many as `optim.max_steps` needs, and keep "
        "them as tokens on disk.",
    )
    max_rows: int | None = Field(None, ge=1, description="Read at most this many rows.")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @field_validator("path", mode="before")
    @classmethod
    def _path_to_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value


class DataConfig(Section):
    """What is trained on and what it is measured on."""

    train: list[SourceConfig] = Field(default_factory=list, description="Training data.")
    val: list[SourceConfig] = Field(
        default_factory=list, description="Validation data; empty: split off from `train`."
    )
    usage: list[SourceConfig] = Field(
        default_factory=list,
        description="Real prompts the model will be used on, with or without answers; measured, "
        "never trained on.",
    )
    retain: list[SourceConfig] = Field(
        default_factory=list,
        description="What must not be forgotten: plain text (.txt) or rows; texts written by the "
        "base model are always measured too.",
    )
    test: list[SourceConfig] = Field(
        default_factory=list,
        description="Rows that decide nothing: scored on the base and on the final model.",
    )
    max_seq_len: Annotated[int | Auto, or_auto("at least 2", lambda n: n >= 2)] = Field(
        "auto", description="Longest example in tokens; `auto`: the model's limit, at most 2048."
    )
    overflow: Literal["drop", "truncate", "error"] = Field(
        "drop", description="What happens to a row longer than `max_seq_len`."
    )
    on_bad_row: Literal["error", "skip"] = Field(
        "error", description="`skip` leaves unusable rows out, and lists them in the account."
    )
    val_fraction: Annotated[float | Auto, _FRACTION] = Field(
        "auto", description="Share of rows split off for validation; `auto`: 5 %, 16 to 128 rows."
    )
    prompt_weight: float = Field(
        0.0, ge=0, le=1, description="Loss weight of prompt tokens; answers have 1."
    )
    tools: Literal["auto", "template", "text"] = Field(
        "auto",
        description="How tools are shown: by the `template`, or as `text` in the messages; `auto` "
        "uses text where the template ignores them.",
    )

    workers: Annotated[int | Auto, or_auto("1 to 256", lambda n: 1 <= n <= 256)] = Field(
        "auto",
        description="Processes that tokenise; `auto`: one below 5,000 rows, else one per core.",
    )
    cache: str = Field(
        "auto",
        description="Folder of tokenised rows that are used again when nothing changed; `auto`: "
        "`tokens` beside the starter model, for 2,000 rows and more; `off`: none.",
    )
    temperature: float = Field(
        1.0,
        ge=1,
        le=100,
        description="Above 1 small sources are seen more often: the share of a source is "
        "proportional to weight * rows^(1 / temperature) (arXiv 1907.05019).",
    )
    openers: Literal["keep", "strip", "drop"] = Field(
        "keep",
        description="What happens to answers whose opening words begin more than `opener_share` "
        "of all: `strip` takes the words off, `drop` leaves the excess rows out.",
    )
    opener_share: float = Field(
        0.1, gt=0, le=1, description="Largest share of the answers that may open alike."
    )
    deduplicate: bool = Field(
        False,
        description="Train on one row of each near-duplicate cluster, and on none that is like a "
        "validation row.",
    )
    select_rows: int | None = Field(
        None, ge=1, description="Train on so many rows, chosen to differ (greedy k-center)."
    )
    usage_weighting: bool = Field(
        False, description="Show training rows that resemble `usage` more often, others less."
    )
    replay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of training rows that are texts written by the base model, which "
        "keeps it from forgetting.",
    )

    @field_validator("train", "val", "usage", "retain", "test", mode="before")
    @classmethod
    def _to_list(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]
