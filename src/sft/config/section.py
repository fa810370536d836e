"""What all sections of a configuration have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from sft.config.plugins import check_named
from sft.errors import ConfigError

Auto = Literal["auto"]


class Section(BaseModel):
    """Base of all sections: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def or_auto(limits: str, holds: Callable[[Any], bool]) -> AfterValidator:
    """The check of a number that may also be `auto`; `limits` says in words what `holds`."""

    def check(value: float | str) -> float | str:
        if value != "auto" and not holds(value):
            raise ValueError(f"must be {limits}, or `auto`")
        return value

    return AfterValidator(check)


def named(group: str, kinds: Mapping[str, str]) -> AfterValidator:
    """The check of a setting that names one of `kinds`, or code of the user's."""

    def check(spec: str) -> str:
        try:
            check_named(spec, group, kinds)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return spec

    return AfterValidator(check)


AT_LEAST_0 = or_auto("at least 0", lambda value: value >= 0)
AT_LEAST_1 = or_auto("at least 1", lambda value: value >= 1)
