"""Ctrl-C and SIGTERM as a question the loop can ask, so that state is saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sft.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopFlag:
    """Set by the first signal; the second one ends the process at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def requested(self) -> bool:
        """Was the run asked to stop?"""
        return self.signal_number is not None

    def raise_before_training(self) -> None:
        """Leave at a place where there is nothing to save yet."""
        if self.signal_number is not None:
            raise Interrupted(
                "stopped before the first step; nothing was trained", self.signal_number
            )

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.signal_number = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def catch_signals() -> Iterator[StopFlag]:
    """Collect SIGINT, SIGTERM and SIGHUP inside the block; handlers are restored after it.

    Python delivers signals to the main thread only, so elsewhere the flag never rises.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag._handle) for number in _SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
