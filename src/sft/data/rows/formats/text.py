"""Plain text: a column `text`, for continued pre-training. No turns, no chat template.

All of a text is trained, and the end-of-text token after it. It must be asked for
(`format: text`): a lone column `text` may as well be a chat that was rendered already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sft.data.rows.conversation import Message
from sft.data.rows.formats.content import filled_text

COLUMNS = ("text",)


def parse(values: Mapping[str, Any]) -> list[Message]:
    """The text as what the assistant says: one message, exactly as it is in the file."""
    return [Message("assistant", filled_text(values["text"], "text"), weight=1.0)]
