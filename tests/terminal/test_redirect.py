"""What libraries write while a line is drawn: seen above it, in a real terminal."""

import io
import logging
import os
import pty
import subprocess
import sys

from sft.terminal.redirect import LineStream, redirect

LIBRARIES = """
import logging, sys, warnings
from sft.terminal.console import Console

early = logging.StreamHandler()  # it keeps the stream it was made with
logging.getLogger("early").addHandler(early)
with Console() as show:
    show.start(50)
    record = {"step": 1, "loss": 1.0, "learning_rate": 1e-4, "tokens_per_second": 10.0}
    show.step(record)
    logging.getLogger("early").warning("from a logger")
    warnings.warn("a warning")
    print("printed", file=sys.stderr)
    sys.stderr.write("\\r 10%\\r 50%\\r100% of a bar\\n")
    sys.stderr.write("\\x1b[31mcoloured\\x1b[0m \\x1b]0;owned\\x07\\n")
    print("out")
    show._drawn_at = 0.0
    show.step({**record, "step": 2})
assert early.stream is sys.stderr and sys.stderr is sys.__stderr__
print("after", file=sys.stderr)
"""


def in_terminal(code, **env):
    """What `code` writes to a terminal of 80 columns as stderr, and to stdout."""
    master, slave = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "FORCE_COLOR")}
    given = {**kept, "TERM": "xterm", "COLUMNS": "80", **env}
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=slave, env=given, check=True
    )
    os.close(slave)
    shown = os.read(master, 100_000).decode().replace("\r\n", "\n")
    os.close(master)
    return done.stdout.decode(), shown


def test_logs_and_warnings_go_above_the_line():
    out, shown = in_terminal(LIBRARIES)
    assert out == "out\n"  # standard output is no terminal here, and stays what it is
    kept = [line.rpartition("\x1b[2K")[2] for line in shown.split("\n")]
    assert kept[0] == "from a logger"
    assert "UserWarning: a warning" in kept[1]
    assert "printed" in kept and "100% of a bar" in kept and "after" in kept
    assert not any("10%" in line for line in kept)
    assert any(line.startswith("coloured") for line in kept) and "\x1b]0;" not in shown
    assert shown.count("1/50") >= 6  # drawn again below each of them
    # The cursor is back once the line is drawn: a process that is killed leaves one.
    assert shown.count("\x1b[?25l") == 1
    assert shown.index("\x1b[?25h") < shown.index("from a logger")


def test_plain_lines_where_a_terminal_asks_for_them():
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("CI", "true")):
        _, shown = in_terminal(LIBRARIES, **{name: value})
        assert "\x1b[2K" not in shown and "\x1b[?25l" not in shown, name
        assert shown.startswith("step 1/50  loss 1.0000"), name
        assert "step 2/50" in shown


def test_only_whole_lines_are_shown():
    shown = []
    stream = io.StringIO()
    lines = LineStream(stream, shown.append)
    lines.write("half")
    assert shown == []
    lines.write(" a line\r\nand ")
    lines.writelines(["a second\n", "third"])
    assert shown == ["half a line", "and a second"]
    lines.close()
    assert shown == ["half a line", "and a second", "third"]
    lines.write("later")
    assert stream.getvalue() == "later"


def test_a_stream_that_is_no_terminal_is_left_alone(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handler = logging.StreamHandler(stream)
    logging.root.addHandler(handler)
    try:
        redirected = redirect(lambda _text: None)
        assert sys.stderr is stream and handler.stream is stream
        redirected.close()
    finally:
        logging.root.removeHandler(handler)
