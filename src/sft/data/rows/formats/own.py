"""A format of the user's: a function of their own from a row to its messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from sft.config.plugins import fingerprint_of, load_named
from sft.data.rows.conversation import ROLES, Message
from sft.data.rows.problems import RowError
from sft.errors import ConfigError

GROUP = "sft.formats"  # of entry points that `format` may name


def own_parser(spec: str) -> Callable[[Mapping[str, Any]], list[Message]]:
    """The user's function, checked: what it raises and returns wrongly is told of the row.

    It returns messages (`sft.data.rows.conversation.Message`), or mappings with `role` and
    `content`, of which those of the assistant are trained unless `weight` says otherwise.

    Raises:
        ConfigError: it cannot be loaded, or is no function.
    """
    function: Any = load_named(spec, GROUP, {})
    if not callable(function):
        raise ConfigError(
            f"format: '{spec}': expected a function from a row to its messages, found "
            f"{type(function).__name__}"
        )

    def parse(values: Mapping[str, Any]) -> list[Message]:
        try:
            turns = list(function(values))
        except RowError:
            raise
        except Exception as error:
            raise RowError(f"{spec}: {type(error).__name__}: {error}") from None
        if not turns:
            raise RowError(f"{spec}: gave no message")
        return [_message(spec, turn) for turn in turns]

    return parse


def code_of(spec: str) -> dict[str, str]:
    """SHA-256 of the file of a user's format, by its path; of an entry point the version, by name.

    Empty for a format of ours.
    """
    if ":" not in spec and not entry_points(group=GROUP, name=spec):
        return {}
    mark = fingerprint_of(spec, GROUP, {})
    return {spec.rpartition(":")[0] or spec: mark} if mark else {}


def _message(spec: str, turn: Any) -> Message:
    if isinstance(turn, Message):
        return turn
    if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
        raise RowError(f"{spec}: expected a message with one of the roles {', '.join(ROLES)}")
    if not isinstance(turn.get("content"), str):
        raise RowError(f"{spec}: content: expected text, found {turn.get('content')!r:.40}")
    weight = turn.get("weight", 1.0) if turn["role"] == "assistant" else 0.0
    return Message(turn["role"], turn["content"], weight=float(weight))
