"""Ctrl-C and SIGTERM as a question the loop can ask, so that state is saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sft.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopFlag:
    """Set by the first signal; the second one ends the process at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.caught: dict[int, Any] = {}  # signal to the handler it had before

    def requested(self) -> bool:
        """Was the run asked to stop?"""
        return self.signal_number is not None

    def raise_before_training(self) -> None:
        """Leave where nothing was changed yet, in a fresh run as in a resumed one."""
        if self.signal_number is not None:
            raise Interrupted(
                f"stopped by {signal.Signals(self.signal_number).name} before training began; "
                "nothing was changed. The same command starts or resumes the run.",
                self.signal_number,
            )

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.signal_number = number
        for each in self.caught:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def catch_signals() -> Iterator[StopFlag]:
    """Collect SIGINT, SIGTERM and SIGHUP inside the block; handlers are restored after it.

    A signal that is ignored stays so: `nohup sft train` survives its terminal. Python delivers
    signals to the main thread only, so elsewhere the flag never rises.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            flag.caught[number] = signal.signal(number, flag._handle)
    try:
        yield flag
    finally:
        for caught, handler in flag.caught.items():
            signal.signal(caught, handler)


pressed: list[int] = []  # not empty any more once Ctrl-C was pressed


def remember_ctrl_c() -> None:
    """Note that Ctrl-C was pressed; what it does stays the same."""
    pressed.clear()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)
