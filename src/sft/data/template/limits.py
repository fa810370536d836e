"""A chat template is a program from somewhere else: it is tried out before it is trusted.

Jinja's sandbox keeps it from files and from Python. It does not keep it from counting to 10^10
or from writing a gigabyte. So a template that this process has not met is first rendered in a
child process with little time and memory, on a short and on a long conversation.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft.errors import TemplateError

CPU_SECONDS = 2
MEMORY_BYTES = 512_000_000
MAX_OUTPUT = 10_000_000  # characters, for conversations of 40,000 at most
MAX_TEMPLATE = 1_000_000  # characters; the longest known has 30,000
# By the clock: the child may have to wait for a processor.
_CLOCK_SECONDS = 20

_tried: set[str] = set()


def check_limits(template: str, source: str, special_tokens: Mapping[str, Any]) -> None:
    """Raise `TemplateError` when rendering `template` needs too much; `source` is its model."""
    digest = hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
    if digest in _tried:
        return
    name = f"the chat template of {source} (sha256 {digest[:12]})"
    if len(template) > MAX_TEMPLATE:
        problem = f"has {len(template):,} characters, more than {MAX_TEMPLATE:,}"
    else:
        problem = _problem(template, dict(special_tokens))
    if problem:
        raise TemplateError(
            f"{name} {problem}, so it is not used; set model.template to chatml, plain or the "
            "path of another"
        )
    _tried.add(digest)


def _problem(template: str, special_tokens: dict[str, Any]) -> str:
    """What the template does wrong; empty when it keeps to the limits."""
    request = {
        "template": template,
        "contexts": [context | special_tokens for context in _contexts()],
        "cpu_seconds": CPU_SECONDS,
        "memory_bytes": MEMORY_BYTES,
        "max_output": MAX_OUTPUT,
    }
    # -P keeps the script's folder, in which a module may be called `tokenize`, off the path.
    command = [sys.executable, "-P", str(Path(__file__).with_name("child.py"))]
    too_long = f"needs more than {CPU_SECONDS} seconds of computing time for a conversation"
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request, default=str).encode(),
            capture_output=True,
            timeout=_CLOCK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return too_long
    verdict = done.stdout.decode(errors="replace").strip()
    if done.returncode < 0:
        return too_long if -done.returncode in _OUT_OF_TIME else "crashes when it is rendered"
    problems = {
        "fine": "",
        "memory": f"needs more than {MEMORY_BYTES // 1_000_000} MB of memory for a conversation",
        "output": f"writes more than {MAX_OUTPUT // 1_000_000} MB for a conversation",
    }
    if verdict in problems:
        return problems[verdict]
    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no answer"]
    return f"could not be tried out in a process of its own ({lines[-1]:.200})"


_OUT_OF_TIME = (24, 9)  # SIGXCPU, and the SIGKILL a second later


def _contexts() -> list[dict[str, Any]]:
    """What is rendered: a short conversation, and long ones with and without all there can be."""
    short = [_message("user", "Hi"), _message("assistant", "Yes")]
    text = "The quick brown fox <b> {jumps} over\n" * 5
    long = [_message(role, text) for _ in range(50) for role in ("user", "assistant")]
    long[0] = _message("user", text * 100)
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": text}}}
    function = {"name": "evaluation", "description": text, "parameters": schema}
    call = {
        "id": "call00001",
        "type": "function",
        "function": {"name": "evaluation", "arguments": {}},
    }
    calling = _message("assistant", "") | {"tool_calls": [call]}
    called = [calling, _message("tool", text) | {"name": "evaluation", "tool_call_id": "call00001"}]
    every = [_message("system", text), *long[:-1], *called, long[-1]]
    tools = [{"type": "function", "function": function}]
    return [
        {"messages": short, "tools": None, "add_generation_prompt": False},
        {"messages": long[:-1], "tools": None, "add_generation_prompt": True},
        {"messages": every, "tools": tools, "add_generation_prompt": False},
    ]


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}
