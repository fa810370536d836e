"""Runs of the real command line in forked processes: torch is imported once, not by each run.

    with Zygote() as zygote:
        run = zygote.start(["train", "--data", "rows.jsonl"], folder)
        run.send(signal.SIGKILL)
        code = run.wait()  # -9

A run is a process of its own, with its own signals, lock and exit code; what it writes to stderr
and stdout goes to files in `folder`, which is also where it runs.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

CATCHABLE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Run:
    """A started process."""

    zygote: Zygote
    pid: int
    folder: Path

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code, or minus the number of the signal that ended it."""
        return int(self.zygote.ask({"wait": self.pid}))

    @property
    def stderr(self) -> str:
        return (self.folder / f"stderr-{self.pid}").read_text(encoding="utf-8")

    @property
    def stdout(self) -> str:
        return (self.folder / f"stdout-{self.pid}").read_text(encoding="utf-8")


class Zygote:
    """The process that has imported everything and forks."""

    def __enter__(self) -> Zygote:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()

    def ask(self, request: dict[str, Any]) -> Any:
        self._process.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return json.loads(self._process.stdout.readline())  # type: ignore[union-attr]

    def start(self, args: list[str], folder: Path) -> Run:
        return Run(self, self.ask({"start": args, "folder": str(folder)}), folder)

    def run(self, args: list[str], folder: Path) -> tuple[int, str]:
        """Run to the end: exit code and what went to stderr."""
        run = self.start(args, folder)
        return run.wait(), run.stderr


def become(args: list[str], folder: str) -> None:
    """In the child: the command line, as if started by a shell in `folder`."""
    for number in CATCHABLE:  # a test runner in the background may ignore them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        path = os.devnull if name == "stdin" else f"{name}-{os.getpid()}"
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, descriptor)
        os.close(file)
    from sft.cli import main

    main(args)
    sys.exit(0)


def serve() -> None:
    import peft  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    import sft.train  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what is imported need not be walked, nor copied, by every run
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                return become(request["start"], request["folder"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
