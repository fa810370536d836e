"""Settings that may hold a secret, made fit to be shown: where alerts are sent to."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_SECTION = "alerts."
_PLAIN = re.compile(r"[a-z_-]{0,16}|\$\w+")  # `alarm`, `$HOOK`; not a token
_FLAG = re.compile(r"--alert[\w-]*")


def masked(key: str, value: Any) -> Any:
    """The value of the setting `key`; an address or a command of alerts without its secrets.

    Of an address the host stays (`https://host/...`), of a command its first word.
    """
    return _hidden(value) if key.startswith(_SECTION) else value


def masked_command(command: str) -> str:
    """A command line in which settings of alerts are masked."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    if not any(_SECTION in word or _FLAG.match(word) for word in words):
        return command
    shown = []
    for before, word in zip(["", *words], words, strict=False):
        name, equals, value = word.partition("=")
        if equals and (_SECTION in name or _FLAG.match(name)):
            word = f"{name}={_hidden(value)}"
        elif _FLAG.fullmatch(before):
            word = _hidden(word)
        shown.append(word)
    return shlex.join(shown)


def masked_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event in which the command that was typed is masked."""
    command = event.get("command")
    if not isinstance(command, str):
        return dict(event)
    return {**event, "command": masked_command(command)}


def _hidden(value: Any) -> Any:
    if isinstance(value, list):
        return [_hidden(part) for part in value]
    if isinstance(value, dict):
        return {name: _hidden(part) for name, part in value.items()}
    if not isinstance(value, str) or _PLAIN.fullmatch(value):
        return value
    if "://" in value:
        try:
            address = urlsplit(value)
            return f"{address.scheme}://{address.hostname}/..."
        except ValueError:
            return "..."
    return f"{value.split()[0]} ..." if value.split() and "/" not in value.split()[0] else "..."
