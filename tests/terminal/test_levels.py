"""The level of an event: its colour on a terminal, and what the log holds."""

import io
import json

from sft.runs.events import EventLog
from sft.terminal.console import Console


class Terminal(io.StringIO):
    """A terminal to whoever asks."""

    def isatty(self):
        return True


def test_a_level_has_a_colour_and_is_logged(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    log = tmp_path / "events.jsonl"
    with Console(terminal) as show:
        show.log_to(EventLog(log))
        show.note("plain")
        show.warn("careful")
        show.note("broken", level="error", kind="alarm", step=3, guard="health")
        show.print("only printed", level="warning")
        show.log("checkpoint", "only logged", step=3)
    coloured = terminal.getvalue()
    assert "\x1b[33mcareful" in coloured
    assert "\x1b[1;31mbroken" in coloured
    assert "only logged" not in coloured
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(e["kind"], e["level"], e["text"]) for e in events] == [
        ("note", "info", "plain"),
        ("note", "warning", "careful"),
        ("alarm", "error", "broken"),
        ("checkpoint", "info", "only logged"),
    ]
    assert events[2]["guard"] == "health"
