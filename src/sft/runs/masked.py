"""Settings that may hold a secret, made fit to be shown: where alerts are sent to."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

_SECTION = "alerts."
_PLAIN = re.compile(r"[a-z_-]{0,16}|\$\w+")  # `alarm`, `$HOOK`; not a token


def masked(key: str, value: Any) -> Any:
    """The value of the setting `key`; an address or a command of alerts without its secrets.

    Of an address the host stays (`https://host/...`), of a command its first word.
    """
    return _hidden(value) if key.startswith(_SECTION) else value


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
