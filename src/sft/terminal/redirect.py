"""What libraries write to a terminal while a line is drawn there is shown above that line."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class LineStream:
    """Stands in for a standard stream: each whole line of it goes to `show`.

    Of a bar that is drawn over and over only what it ends with is seen. What is written by a
    forked child, or after `close`, goes to the stream itself.
    """

    def __init__(self, stream: Any, show: Callable[[str], None]) -> None:
        self._stream = stream
        self._show = show
        self._rest = ""
        self._pid: int | None = os.getpid()

    def write(self, text: str) -> int:
        """Show the lines that `text` completes."""
        if self._pid != os.getpid():
            return int(self._stream.write(text))
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._show_line(line)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Show several texts."""
        for line in lines:
            self.write(line)

    def close(self) -> None:
        """Show what is left. The stream itself stays open."""
        rest, self._rest = self._rest, ""
        self._show_line(rest)
        self._pid = None

    def _show_line(self, line: str) -> None:
        text = _COLOUR.sub("", line.rstrip("\r").rpartition("\r")[2])
        if text.strip():
            self._show(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redirect(show: Callable[[str], None]) -> ExitStack:
    """Standard error and standard output, where they are a terminal, go above the line.

    Closing what is returned puts everything back.
    """
    undo = ExitStack()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if is_terminal(stream):
            lines = undo.enter_context(closing(LineStream(stream, show)))
            undo.callback(_put_back, name, lines, stream)
            setattr(sys, name, lines)
            for handler in _stream_handlers():  # which keep the stream that they were made with
                if handler.stream is stream:
                    handler.setStream(lines)
                    undo.callback(handler.setStream, stream)
    return undo


def _put_back(name: str, lines: LineStream, stream: Any) -> None:
    if getattr(sys, name) is lines:
        setattr(sys, name, stream)


def is_terminal(stream: Any) -> bool:
    """Is the stream a terminal? One that is closed or missing is none."""
    with suppress(AttributeError, ValueError, OSError):
        return bool(stream.isatty())
    return False


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    loggers = [logging.root, *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler):
                yield handler
