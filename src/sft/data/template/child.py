"""Renders a chat template under limits of time and memory; run as a script, on its own.

It imports Jinja and the standard library only, so that it starts in a tenth of a second. What
transformers adds to Jinja is added here too, as `transformers.utils.chat_template_utils` does
it. Reads the template and what to render as JSON, and writes one word: `fine`, `memory` or
`output`. A template that needs too much time ends it by a signal. What a template refuses, or
cannot do, is fine here: the caller will see it for itself.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, ext, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Generation(ext.Extension):
    """The tag `{% generation %}`, which marks what an assistant says."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """What is between the tags, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_say"), [], [], body).set_lineno(line)

    def _say(self, caller: Callable[[], str]) -> str:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, ext.loopcontrols]
    )

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the caller's clock is the only limit
        return
    for what, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
    ):
        # Where a system has no such limit, or a tighter one already, the others must do.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (soft, hard))


def _verdict(template: str, contexts: list[Mapping[str, Any]], max_output: int) -> str:
    try:
        compiled = _environment().from_string(template)
        for context in contexts:
            size = 0
            try:
                for piece in compiled.generate(context):
                    size += len(piece)
                    if size > max_output:
                        return "output"
            except MemoryError:
                return "memory"
            except Exception:
                continue
    except MemoryError:
        return "memory"
    except Exception:
        pass
    return "fine"


def main() -> None:
    """Read the request from the standard input, and answer it."""
    request = json.loads(sys.stdin.buffer.read())
    _limit(request["cpu_seconds"], request["memory_bytes"])
    print(_verdict(request["template"], request["contexts"], request["max_output"]))


if __name__ == "__main__":
    main()
