"""Files that are whole or not there, what is free, and what is wrong with a disk in plain words."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sft.errors import DiskError

TMP_PREFIX = ".tmp-"  # whatever carries it is unfinished, and may be swept under the lock

FREE_SOME = "free some space, or choose another --run or --out on a larger disk"
_ELSEWHERE = "choose another --run or --out"
_WRITABLE = f"make it writable, or {_ELSEWHERE}"

# What is wrong, and what to do about it.
_DISK_ERRORS = {
    errno.ENOSPC: ("the disk is full", FREE_SOME),
    errno.EDQUOT: ("the disk quota is used up", FREE_SOME),
    errno.EFBIG: ("the file size limit is reached", "raise it with `ulimit -f unlimited`"),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.EACCES: ("permission denied", _WRITABLE),
    errno.EPERM: ("the operation is not permitted", _WRITABLE),
    errno.EIO: ("the disk reports an input/output error", f"{_ELSEWHERE} on another disk"),
}


@contextmanager
def disk_errors(path: Path, doing: str = "cannot be written", needed: int = 0) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk inside the block into one `DiskError`.

    `path` is what was to be written, and `needed` how many bytes of it, where that is known. Any
    other `OSError` is our own fault, or the caller's to explain.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        what, remedy = _DISK_ERRORS[error.errno]
        sizes = ""
        if needed:
            free = format_bytes(free_bytes(path))
            sizes = f" ({format_bytes(needed)} are needed, {free} are free)"
        raise DiskError(f"{path}: {doing}: {what}{sizes}; {remedy}") from error


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 that, whatever happens, is the old one or the whole new one."""
    write_file(path, text.encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file that, whatever happens, is the old one or the whole new one."""
    temporary = path.with_name(f"{TMP_PREFIX}{os.getpid()}-{path.name}")
    with disk_errors(path):
        try:
            temporary.write_bytes(content)
            sync_path(temporary)
            os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_path(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON. NaN and infinity are not JSON, and raise `ValueError`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_synced(path: Path, text: str) -> None:
    """Write a file that no one reads yet, and return when it would survive a power loss."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """Return when a file's bytes, or a folder's list of names, would survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_path(path: Path) -> None:
    """Delete a file, a link (never what it leads to), or a folder with all in it.

    Files of a folder that another process has open on NFS stay until the next sweep.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def free_bytes(path: Path) -> int:
    """Bytes free for us on the disk of `path`, or of the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def peak_memory_bytes(who: int = resource.RUSAGE_SELF) -> int:
    """The largest resident memory of this process so far, or of its children."""
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes, but bytes on macOS


def format_bytes(num_bytes: float) -> str:
    """`1.2 GB`: decimal units, as disks are sold and `df -H` shows them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
