"""The exception tree. Every message names what was found, where, and what to do.

    SFTError
    ├── ConfigError      exit 2   a flag, key or value is wrong
    ├── DataError        exit 3   a file or row is wrong
    │   └── TemplateError         the chat template cannot give a trustworthy mask
    ├── CheckpointError  exit 4   a run cannot be resumed as asked
    ├── DivergedError    exit 5   loss or gradient is not finite
    ├── OutOfMemoryError exit 6   the device ran out of memory
    ├── DiskError        exit 7   the disk is full or not writable
    ├── GuardAlarm       exit 8   `sft guards --fail-on` found what it was asked to fail on
    └── Interrupted      exit 130 (SIGINT) or 143 (SIGTERM): state was saved

The command line prints the message without a traceback and exits with the code.
Anything that is not an `SFTError` is our own fault and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SFTError(Exception):
    """Base of every error a user can cause and repair."""

    exit_code = 2


class ConfigError(SFTError):
    """A flag, configuration key or value is wrong."""

    exit_code = 2


class DataError(SFTError):
    """A data file or a row in it cannot be used."""

    exit_code = 3


class TemplateError(DataError):
    """The chat template cannot give a mask that two methods agree on."""


class CheckpointError(SFTError):
    """A run folder cannot be resumed as asked."""

    exit_code = 4


class DivergedError(SFTError):
    """Loss or gradient became NaN or infinite; the weights were not updated."""

    exit_code = 5


class OutOfMemoryError(SFTError):
    """The device ran out of memory."""

    exit_code = 6


class DiskError(SFTError):
    """The disk is full, or a folder cannot be written."""

    exit_code = 7


class GuardAlarm(SFTError):
    """A guard's verdict is as bad as the user asked to be told of by exit code."""

    exit_code = 8


class Interrupted(SFTError):
    """The run was asked to stop and saved its state first."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'learning_rate'?`, or an empty string when nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
