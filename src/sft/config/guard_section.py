"""The section `guards`: what is watched for, and what is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from sft.config.section import Section, named

# `stop` ends the run, `restore_best` also goes back to the best checkpoint.
Action = Literal["off", "warn", "stop", "restore_best"]
GUARD_GROUP = "sft.guards"  # of entry points that guards.custom may name


class CustomGuard(Section):
    """A guard of the user's; its name alone is enough where it only warns."""

    guard: Annotated[str, named(GUARD_GROUP, {})] = Field(
        description="`path.py:name`, or an entry point of the group `sft.guards`."
    )
    action: Action = Field("warn", description="What an alarm does.")

    @property
    def name(self) -> str:
        """What it is called: `name` of `path.py:name`."""
        return name_of(self.guard)

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"guard": value} if isinstance(value, str) else value


class GuardsConfig(Section):
    """What is watched for, and what is done about it (docs/guards.md)."""

    enabled: bool = Field(True, description="`false`: only validation is measured.")
    overfitting: Action = Field("restore_best", description="What an alarm does.")
    format_collapse: Action = Field("warn", description="What an alarm does.")
    distribution_mismatch: Action = Field("warn", description="What an alarm does.")
    forgetting: Action = Field("warn", description="What an alarm does.")
    health: Action = Field("warn", description="What an alarm does.")
    alpha: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Chance of a false alarm in a whole run, shared by its evaluations and tests.",
    )
    margin: float = Field(
        0.02, ge=0, description="Smallest rise of held-out loss that matters, in nats per token."
    )
    forgetting_budget: float = Field(
        0.05, ge=0, description="Largest rise of the loss on `retain`, in nats per token."
    )
    blend: Literal["off", "auto"] = Field(
        "off", description="`auto`: blend with the base model when forgetting alarms at the end."
    )
    custom: list[CustomGuard] = Field(
        default_factory=list,
        description="Your own guards: `path.py:name` or an entry point of the group `sft.guards`; "
        "`{guard: path.py:name, action: stop}` says what an alarm does (docs/extending.md).",
    )

    @field_validator("custom")
    @classmethod
    def _custom(cls, guards: list[CustomGuard]) -> list[CustomGuard]:
        names = [guard.name for guard in guards]
        for name in names:
            if name in cls.model_fields or names.count(name) > 1:
                raise ValueError(f"'{name}' is the name of another guard or setting; rename yours")
        return guards

    def actions(self) -> dict[str, str]:
        """What an alarm does, by the name of the guard; the user's own included."""
        return actions(self.model_dump())


def actions(guards: Mapping[str, Any]) -> dict[str, str]:
    """What an alarm does, by guard, from the section as it is saved in `config.yaml`."""
    known = {name: value for name, value in guards.items() if value in get_args(Action)}
    known.pop("blend", None)
    for custom in guards.get("custom") or ():
        if isinstance(custom, Mapping):
            known[name_of(str(custom.get("guard")))] = str(custom.get("action", "warn"))
    return known


def name_of(spec: str) -> str:
    """What a user's guard is called: `name` of `path.py:name`."""
    return spec.rpartition(":")[2]
