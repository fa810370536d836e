import errno
import io
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console as RichConsole
from rich.table import Table

from sft.runs.events import EventLog
from sft.terminal.console import Console, duration, sparkline
from sft.texts.safe import printable


def record(step, loss=1.0):
    return {"step": step, "loss": loss, "learning_rate": 2e-4, "tokens_per_second": 18_234.4}


EVAL = {"step": 6, "val_loss": 1.23456, "val_perplexity": 3.4368, "val_accuracy": 0.5}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CI"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return io.StringIO()


@pytest.fixture
def now(monkeypatch):
    """The reading of the clock, which stands still."""
    seconds = [100.0]
    monkeypatch.setattr("sft.terminal.console.time.monotonic", lambda: seconds[0])
    return seconds


def test_plain_lines_when_it_is_no_terminal(plain, now):
    with Console(plain) as show:
        show.note("first")
        show.progress("reading")
        show.progress("tokenising", 50, 120)
        show.progress("tokenising", 120, 120)
        show.start(5)
        for step in range(1, 6):
            now[0] += 2.0
            show.step(record(step, 4.0 / step))
        show.evaluate(EVAL)
    assert plain.getvalue().splitlines() == [
        "first",
        "reading",
        "tokenising 120/120",  # only the end: a log is not a film
        "step 1/5  loss 4.0000 ▁  lr 0.0002  18,234 tok/s",
        "step 2/5  loss 2.0000 █▁  lr 0.0002  18,234 tok/s",
        "step 3/5  loss 1.3333 █▃▁  lr 0.0002  18,234 tok/s  ETA 0:04",
        # step 4 is less than ten seconds later
        "step 5/5  loss 0.8000 █▄▂▁▁  lr 0.0002  18,234 tok/s",
        "step      6  val_loss 1.2346  val_perplexity 3.4368  val_accuracy 0.5000",
    ]


def test_the_last_eval_is_in_the_lines_after_it(plain):
    with Console(plain) as show:
        show.start(2)
        show.evaluate(EVAL)
        show.step(record(1))
    assert "loss 1.0000 ▁  val 1.2346  lr 0.0002" in plain.getvalue()


def test_a_line_every_ten_seconds(plain, now):
    with Console(plain) as show:
        show.start(100)
        for step in range(1, 40):
            now[0] += 1.0
            show.step(record(step))
    steps = [
        int(line.split("/")[0].removeprefix("step ")) for line in plain.getvalue().splitlines()
    ]
    assert steps == [1, 2, 3, 14, 25, 36]


def screen(text, width=100):
    """What a terminal shows in the end: only what the live display writes is understood."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\n|\r)", text):
        if part == "\n":
            row += 1
            lines.extend([""] * (row + 1 - len(lines)))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part and not part.startswith(("\x1b", "\r")):
            assert len(lines[row] + part) <= width
            lines[row] += part
    return [line.rstrip() for line in lines if line.strip()]


def test_one_live_line_in_a_terminal(terminal):
    with Console(terminal) as show:
        show.progress("reading")
        assert screen(terminal.getvalue()) == ["reading"]
        show.note("a note")
        show.start(50)
        show._drawn_at = 0.0
        show.step(record(1))
        line = "step 1/50  loss 1.0000 ▁         lr 0.0002  18,234 tok/s"
        assert screen(terminal.getvalue()) == ["a note", line]
        show.evaluate(EVAL)
        show._drawn_at = 0.0
        show.step(record(2, 0.5))
        *notes, live = screen(terminal.getvalue())
        assert notes == [
            "a note",
            "step      6  val_loss 1.2346  val_perplexity 3.4368  val_accuracy 0.5000",
        ]
        assert live.startswith("step 2/50  loss 0.5000 █▁        val 1.2346")
        show.progress("validating", 16, 16)
        assert screen(terminal.getvalue())[-1] == "step 2/50  validating 16/16"
    assert screen(terminal.getvalue()) == notes  # the live line is gone, the notes stay


def test_the_live_line_is_not_drawn_more_than_ten_times_a_second(terminal):
    with Console(terminal) as show:
        show.start(5000)
        for step in range(1, 2000):
            show.step(record(step))
    assert terminal.getvalue().count("step ") < 50


def test_a_table_ends_the_live_line(terminal):
    table = Table("metric")
    table.add_row("loss")
    with Console(terminal) as show:
        show.progress("saving the model")
        show.table(table)
        shown = screen(terminal.getvalue())
    assert "saving the model" not in shown
    assert any("metric" in line for line in shown)


def test_forty_columns_are_enough(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    with Console(terminal) as show:
        show.start(123_456)
        show.evaluate(EVAL)
        for step in range(1, 60):
            show._drawn_at = 0.0
            show.step(record(100_000 + step, 1.0 / step))
            lines = [x for x in screen(terminal.getvalue(), width=80) if "val_loss" not in x]
            live = [x for x in lines if x.startswith("step ")]
            assert len(live) == 1, live  # one line, however narrow
            assert len(live[0]) <= 40
            assert live[0].startswith(f"step {100_000 + step:,}/123,456  loss ")


def test_long_lines_break_between_words_and_indented_as_they_begin(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    path = "/a/path/that/is/longer/than/the/line/and/has/to/be/copied"
    with Console(terminal) as show:
        show.note(f"model: {path}\n  -> lower the learning rate, or replay other data")
    assert [line.rstrip() for line in terminal.getvalue().splitlines()] == [
        "model:",
        path,
        "  -> lower the learning rate, or replay",
        "     other data",
    ]


def test_an_evaluation_is_cut_to_the_width_and_recorded_whole(terminal, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "40")
    with Console(terminal) as show:
        show.log_to(EventLog(tmp_path / "events.jsonl"))
        show.evaluate(EVAL)
    assert screen(terminal.getvalue()) == ["step      6  val_loss 1.2346"]
    assert "val_accuracy 0.5" in (tmp_path / "events.jsonl").read_text()


def test_a_quiet_console_shows_warnings_and_the_end(plain):
    table = Table("metric")
    with Console(plain, quiet=True) as show:
        show.note("flat batches")
        show.warn("rows were cut")
        show.progress("reading")
        show.block({"model": "small"})
        show.start(2)
        show.step(record(1))
        show.evaluate(EVAL)
        show.table(table)
        show.note("worse than before", level="error")
        show.speak()
        show.note("model: here")
    assert plain.getvalue().splitlines() == ["rows were cut", "worse than before", "model: here"]


def test_a_block_of_facts(plain, terminal, monkeypatch):
    facts = {"model": "small, 28 k weights, all of them trained", "stop": "Ctrl-C"}
    with Console(plain) as show:
        show.block(facts)
    assert plain.getvalue().splitlines() == [f"{k}: {v}" for k, v in facts.items()]
    monkeypatch.setenv("COLUMNS", "40")
    with Console(terminal) as show:
        show.block(facts)
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert [line.rstrip() for line in text.splitlines()] == [
        "  model  small, 28 k weights, all of",
        "         them trained",
        "  stop   Ctrl-C",
    ]


def test_how_long_a_long_run_takes_is_said_once(plain, now):
    with Console(plain) as show:
        show.start(1000)
        for step in range(1, 40):
            now[0] += 10.0
            show.step(record(step))
    lines = [line for line in plain.getvalue().splitlines() if "to go" in line]
    assert lines == ["about 2 h 45 min to go, with evaluations and checkpoints"]


HOSTILE = [
    "\x1b[2J",
    "\x1b]0;owned\x07",
    "\r",
    "\x08",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\x7f",
    "\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_cannot_steer_the_terminal(text, plain):
    assert not set(printable(f"a{text}b")) & set("\x1b\x07\r\x08\x9b\u202e\u2066\x7f\x00")
    with Console(plain) as show:
        show.note(f"a{text}b")
        show.progress(f"a{text}b")
    assert not set(plain.getvalue()) & set("\x1b\x07\r\x08\x9b\u202e\u2066\x7f\x00")
    assert plain.getvalue().startswith("a�") and plain.getvalue().endswith("b\n")


def test_harmless_text_is_not_changed(plain):
    text = "tab\té 漢字 😀 [bold]not markup[/bold] [/x]"
    assert printable(text + "\n") == text + "\n"
    with Console(plain) as show:
        show.note(text)
    assert plain.getvalue() == text.replace("\t", "     ") + "\n"


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([], 4, ""),
        ([1.0], 4, "▁"),
        ([2.0, 2.0], 4, "▁▁"),
        ([0.0, 7.0], 4, "▁█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([0, 2, 12, 16, 8], 3, "▁█▅"),  # means 1, 14, 8 of at most two: 0, 7, 3.77
        ([1.0, float("nan"), float("inf"), 2.0], 4, "▁█"),
        ([float("nan")], 4, ""),
    ],
)
def test_sparklines(values, width, bars):
    assert sparkline(values, width) == bars


def test_a_sparkline_is_never_wider_than_asked_for():
    assert all(len(sparkline(range(n))) <= 24 for n in range(200))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (3723, "1:02:03"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


class Broken(io.StringIO):
    """A terminal that was closed, a pipe without a reader, or a full disk."""

    def __init__(self, error, tty):
        super().__init__()
        self.error, self.tty, self.calls = error, tty, 0

    def isatty(self):
        return self.tty

    def write(self, text):
        self.calls += 1
        raise OSError(self.error, os.strerror(self.error))

    def flush(self):
        self.write("")


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("error", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_a_stream_that_breaks_stops_nothing(error, tty):
    stream = Broken(error, tty)
    with Console(stream) as show:
        show.note("x")
        show.progress("reading")
        show.start(3)
        show.step(record(1))
        show.evaluate(EVAL)
        show.table(Table("x"))
    assert stream.calls > 0


@pytest.mark.parametrize("redirect", ["pipe", "full", "closed"])
def test_a_process_outlives_its_stderr_and_exits_as_if_nothing_had_been(redirect):
    code = (
        "from sft.terminal.console import Console\n"
        "import sys\n"
        "with Console() as show:\n"
        "    sys.stdin.readline()\n"
        "    for i in range(2000):\n"
        "        show.note('a line that no one reads')\n"
        "print('done')\n"
    )
    shell = {
        "pipe": '"$0" -c "$1"',
        "full": '"$0" -c "$1" 2>/dev/full',
        "closed": '"$0" -c "$1" 2>&-',
    }
    process = subprocess.Popen(
        ["sh", "-c", f"exec {shell[redirect]}", sys.executable, code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stderr.close()
    out, _ = process.communicate(b"go\n")
    assert (out, process.returncode) == (b"done\n", 0)


def test_in_a_real_terminal():
    code = (
        "from sft.terminal.console import Console\n"
        "with Console() as show:\n"
        "    show.progress('reading')\n"
        "    show.note('stays')\n"
        "print('result')\n"
    )
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    for name in ("CI", "NO_COLOR"):  # which ask for plain lines
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=slave, env=env, check=True
    )
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert done.stdout == b"result\n"  # stdout holds results only
    assert "reading" in shown
    assert screen(shown.replace("\r\n", "\n"), 80) == ["stays"]


def test_the_screen_of_these_tests_reads_what_rich_writes():
    out = Terminal()
    RichConsole(file=out, force_terminal=True, width=20).print("x" * 30)
    assert screen(out.getvalue(), 20) == ["x" * 20, "x" * 10]
