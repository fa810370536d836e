"""The worker's side of taking turns in `vs_trl.py`: nobody runs while another one is timed.

One JSON line a message. In: `{"steps": 4}`, do so many optimizer steps. Out: first the facts of
the engine, then after each turn what it took. When the coordinator goes away, the worker ends.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


class Turns:
    """Blocks on stdin between turns; counts steps and the time of a turn."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # what libraries print goes to the log
        self._left = 0
        self._steps: list[dict[str, Any]] = []
        self._before: dict[str, float] = {}

    def ready(self, facts: dict[str, Any]) -> None:
        """Tell what was built, and wait for the first turn."""
        self._say(facts)
        self._wait()

    def step(self, facts: dict[str, Any]) -> None:
        """One optimizer step is done; hands over when it was the last of this turn."""
        self._steps.append(facts)
        self._left -= 1
        if self._left:
            return
        now = clocks()
        spent = {name: value - self._before[name] for name, value in now.items()}
        self._say({**spent, "peak_rss_bytes": peak_rss_bytes(), "steps": self._steps})
        self._wait()

    def _say(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        self._left, self._steps = json.loads(line)["steps"], []
        self._before = clocks()


def clocks() -> dict[str, float]:
    """Wall time, and what tells a quiet machine from a noisy one.

    `system_seconds` is the part of `cpu_seconds` that the kernel took, mostly for page faults;
    `steal_seconds` is what a hypervisor gave to somebody else, over all cores.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    stat, stolen = Path("/proc/stat"), 0.0
    if stat.is_file():
        stolen = int(stat.read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
    return {
        "seconds": time.perf_counter(),
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "system_seconds": used.ru_stime,
        "page_faults": used.ru_minflt + used.ru_majflt,
        "steal_seconds": stolen,
    }


def peak_rss_bytes() -> int:
    """Most memory this process ever had in RAM; unlike `ru_maxrss`, without its parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def engine_facts(model: Any, optimizer: Any, **versions: str) -> dict[str, Any]:
    """What must be equal for the comparison to be fair; `vs_trl.py` asserts that it is."""
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = {
        (
            type(optimizer).__name__,
            tuple(float(beta) for beta in group["betas"]),
            float(group["eps"]),
            float(group["weight_decay"]),
            bool(group.get("fused")),
        )
        for group in optimizer.param_groups
    }
    dropouts = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    dropouts.add(float(getattr(model.config, "attention_dropout", 0.0) or 0.0))
    return {
        "versions": {"torch": str(torch.__version__), **versions},
        "equal": {
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "dtypes": sorted({str(p.dtype) for p in parameters}),
            "num_trained_parameters": sum(p.numel() for p in parameters),
            "optimizer": [repr(group) for group in sorted(groups)],
            "dropout": max(dropouts),
        },
        "huge_pages": os.environ.get("THP_MEM_ALLOC_ENABLE", "0"),
    }
