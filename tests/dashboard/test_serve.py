"""`sft watch` as a command: its address, its ports, its end, and starting it beside a training."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from served import Server, write_run
from sft.cli import main
from sft.dashboard import serve
from sft.dashboard.serve import _Life, _listen, start_watching
from sft.errors import ConfigError
from trained import Outcome, make_world


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "runs" / "a")
    return tmp_path / "runs"


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# ------------------------------------------------------------------ the address


def test_it_says_where_it_is_and_how_to_get_there_and_ends_with_ctrl_c(runs):
    with Server(runs) as server:
        assert re.fullmatch(
            rf"http://127\.0\.0\.1:{server.port}/  \(Ctrl-C ends it; from another machine: "
            rf"ssh -L {server.port}:127\.0\.0\.1:{server.port} \S+@\S+\)\n",
            server.line,
        )
        assert list(server.ids()) == ["a"]
        assert server.end() < 15
        out, err = server.process.communicate()
        assert (server.process.returncode, out, err.strip()) == (130, "", "stopped")


def test_sigterm_ends_it_too(runs):
    with Server(runs) as server:
        server.end(signal.SIGTERM)
        assert server.process.returncode == -signal.SIGTERM


def test_runs_is_where_it_evals_without_being_told(tmp_path):
    with Server(cwd=tmp_path) as server:
        assert server.json("/api/runs")["runs"] == []
        write_run(tmp_path / "runs" / "late")
        time.sleep(1.1)
        assert list(server.ids()) == ["late"]
        server.end()
        told = server.process.stderr.read()
    assert "runs: no such folder yet\n" in told


def test_two_servers_show_the_same(runs):
    with Server(runs) as one, Server(runs / "a") as other:
        assert one.port != other.port
        shown = [server.json("/api/runs")["runs"] for server in (one, other)]
        assert shown[0] == shown[1]


def test_the_next_free_port_is_taken_and_a_certain_one_is_not_replaced(taken, monkeypatch):
    monkeypatch.setattr(serve, "PORT", taken)
    with _listen("127.0.0.1", None) as listener:
        assert taken < listener.getsockname()[1] <= taken + serve.MORE_PORTS
    with pytest.raises(ConfigError, match=rf"port {taken} \(Address already in use\); choose anot"):
        _listen("127.0.0.1", taken)
    monkeypatch.setattr(serve, "MORE_PORTS", 0)
    with pytest.raises(ConfigError, match=f"any port from {taken} to {taken}"):
        _listen("127.0.0.1", None)


def test_a_taken_port_is_told(runs, taken):
    before = f"import sft.dashboard.serve as c; c.PORT = {taken}"
    with Server(runs, before=before, port=None) as server:
        assert server.port > taken
        server.end()
        told = server.process.stderr.read()
    assert told.startswith(f"port {taken} is taken: using {server.port}\n")


def test_what_cannot_be_is_one_error(runs, taken, monkeypatch, capsys):
    monkeypatch.chdir(runs.parent)
    (runs / "file").touch()
    for arguments, text in (
        (["rums"], "rums: no such folder. Did you mean 'runs'?"),
        (["runs/file"], "runs/file: expected a run folder or a folder that holds runs"),
        (["runs", "--port", taken], f"--host 127.0.0.1: cannot listen on port {taken}"),
        (["runs", "--host", "192.0.2.7"], "--host 192.0.2.7: cannot listen on any port"),
        (["runs", "--host", "no.such.name.invalid"], "--host no.such.name.invalid: cannot listen"),
        (["runs", "--host", "0.0.0.0", "--open"], "--open: not with --host 0.0.0.0"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["watch", *map(str, arguments)])
        told = capsys.readouterr()
        assert (end.value.code, told.out) == (2, "")
        assert told.err.startswith(f"error: {text}")
        assert told.err.count("\n") == 1


def test_the_page_is_opened_in_a_browser(runs, tmp_path):
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened.new\n')
    with script.open("a") as file:
        file.write(f"mv {tmp_path}/opened.new {tmp_path}/opened\n")
    script.chmod(0o755)
    before = f"import os; os.environ['BROWSER'] = '{script} %s'"
    with Server(runs, "--open", before=before) as server:
        wait_until((tmp_path / "opened").exists)
        assert (tmp_path / "opened").read_text().strip() == f"http://127.0.0.1:{server.port}/"


# ------------------------------------------------------------------ beside a training


def test_it_ends_some_time_after_the_process_and_the_last_page(runs):
    training = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    before = "import sft.dashboard.serve as c; c.LINGER = 1.0"
    with Server(runs, "--for-pid", training.pid, before=before) as server:
        stream = server.stream("/api/stream")
        time.sleep(1.5)
        training.kill()
        training.wait()
        time.sleep(1.5)
        assert server.process.poll() is None  # somebody is still looking
        stream.close()
        server.process.wait(timeout=20)
        assert server.process.returncode == 0


def test_how_long_a_server_is_needed(monkeypatch):
    now, pages = [0.0], [0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    ended, ours, for_ever = (_Life(p, lambda: pages[0]) for p in (child.pid, os.getpid(), None))
    parent = _Life(os.getppid(), lambda: pages[0])
    now[0] = serve.LINGER - 1
    assert not ended.is_over()
    pages[0] = 1
    now[0] += 100
    assert not ended.is_over()
    pages[0] = 0
    now[0] += serve.LINGER - 1
    assert not ended.is_over()
    now[0] += 2
    assert ended.is_over()
    assert not ours.is_over() and not for_ever.is_over() and not parent.is_over()


STARTS = """
import sys, time
from pathlib import Path
from sft.dashboard.serve import start_watching
print(start_watching(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_a_training_starts_a_server_of_its_own(runs):
    run = runs / "a"
    training = subprocess.Popen(
        [sys.executable, "-c", STARTS, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    server = None
    try:
        address = training.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        with urlopen(address + "api/runs", timeout=20) as answer:
            assert b'"name":"a"' in answer.read()
        server = next(pid for pid in children(training.pid))
        assert os.getsid(server) == server  # Ctrl-C of the training does not reach it
        assert os.getpriority(os.PRIO_PROCESS, server) == min(
            os.getpriority(os.PRIO_PROCESS, training.pid) + serve.NICE, 19
        )
        assert (run / "trackers" / serve.OUTPUT).read_text().startswith(address)
        training.kill()
        training.wait()
        with urlopen(address, timeout=20) as answer:  # it outlives the training
            assert answer.status == 200
    finally:
        training.kill()
        training.communicate()
        if server:
            os.kill(server, signal.SIGKILL)


def children(parent):
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                yield int(name)


def test_a_server_that_cannot_start_is_told_and_no_error(runs, monkeypatch, tmp_path):
    run = runs / "a"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    assert start_watching(run).startswith("no page to watch: FileNotFoundError")
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho first\necho 'error: it is broken' >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    assert start_watching(run) == "no page to watch: error: it is broken"
    script.write_text("#!/bin/sh\nexec sleep 1\n")
    monkeypatch.setattr(serve, "START_SECONDS", 0.2)
    output = run / "trackers" / "watch.log"
    assert start_watching(run) == f"no page to watch yet; its address will be in {output}"
    output.unlink()
    output.symlink_to(tmp_path / "elsewhere")  # is not written through
    assert start_watching(run).startswith("no page to watch: OSError")
    assert not (tmp_path / "elsewhere").exists()
    assert start_watching(tmp_path / "no run").startswith("no page to watch: FileNotFoundError")
    for process in serve._started:
        process.wait()


def wait_until(is_true, seconds=20):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_train_watch_prints_an_address_where_the_run_is(tmp_path):
    world = make_world(tmp_path)
    known = len(serve._started)
    done = Outcome(
        *("train", "--model", str(world / "llama"), "--data", str(world / "rows.jsonl")),
        *("--run", str(world / "run"), "--max-steps", "2", "--watch"),
    )
    [server] = serve._started[known:]
    try:
        assert done.code == 0
        [address] = re.findall(r"^watch: (http://127\.0\.0\.1:\d+/)$", done.err, re.MULTILINE)
        with urlopen(f"{address}api/runs") as answer:
            [row] = json.load(answer)["runs"]
        assert (row["name"], row["state"], row["step"]) == ("run", "finished", 2)
    finally:
        server.terminate()
        server.wait()
