from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest

from sft.disk import disk_errors, format_bytes, write_json, write_text
from sft.errors import ConfigError, DiskError
from sft.runs.run_dir import RunDir

HOLD = """
import sys
from sft.errors import SFTError
from sft.runs.run_dir import RunDir
assert "torch" not in sys.modules
sys.stdin.readline()
try:
    with RunDir.open(sys.argv[1]):
        print("won", flush=True)
        sys.stdin.readline()
except SFTError as error:
    print(f"lost: {error}", flush=True)
"""


def start(path: Path) -> subprocess.Popen[str]:
    """A process that opens the run folder on its first line of input and closes it on the next."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_open_creates_the_folder_and_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "with space # and ünïcode\nline"
    with RunDir.open(path) as run:
        assert run.path == path and path.is_dir()
        assert json.loads(run.lock.read_text())["pid"] == os.getpid()
    assert [child.name for child in path.iterdir()] == ["run.lock"]
    with RunDir.open(path):
        pass


def test_paths_are_those_of_the_design() -> None:
    run = RunDir("r")
    names = {name: str(value) for name, value in vars(run).items() if name != "path"}
    assert len({*names.values()}) == len(names)
    assert all(name.startswith("r/") for name in names.values())
    assert (
        names.items()
        >= {
            "config": "r/config.yaml",
            "account": "r/account.json",
            "metrics": "r/metrics.jsonl",
            "scores": "r/scores.jsonl",
            "samples": "r/samples.jsonl",
            "summary": "r/summary.json",
            "checkpoints": "r/checkpoints",
            "model": "r/model",
            "lock": "r/run.lock",
        }.items()
    )


def test_open_accepts_a_run_copied_without_its_lock(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {}\n")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with RunDir.open(tmp_path):
        pass


def test_open_refuses_a_folder_of_other_files_and_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds files, but no run"), RunDir.open(tmp_path):
        pass
    assert [child.name for child in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["file", "file/below", "loop", "dangling", "x" * 300, "nul\0"])
def test_open_refuses_what_cannot_be_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="choose another --run"), RunDir.open(tmp_path / name):
        pass


def test_the_lock_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError), RunDir.open(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "keep me"


def test_a_folder_that_cannot_be_written_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").touch()
    (tmp_path / "run" / "run.lock").chmod(0o666)
    (tmp_path / "run").chmod(0o555)
    tmp_path.chmod(0o555)
    script = """
import os, sys
from sft.errors import DiskError
from sft.runs.run_dir import RunDir
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)
for path in ("new", "run"):
    try:
        with RunDir.open(path):
            print("opened")
    except DiskError as error:
        print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    tmp_path.chmod(0o755)
    reason = "cannot be written: permission denied; make it writable, or choose another --run"
    reason += " or --out"
    assert result.stdout.splitlines() == [f"new: {reason}", f"run: {reason}"]


def test_an_error_of_the_caller_is_not_taken_for_ours(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), RunDir.open(tmp_path / "run"):
        raise PermissionError(errno.EACCES, "the caller's own file")
    with RunDir.open(tmp_path / "run"):  # and the lock was freed
        pass


def test_the_second_opener_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").write_text("a longer text of a killed process " * 9)
    with RunDir.open(tmp_path / "run") as run:
        since = json.loads(run.lock.read_text())["started"]
        with pytest.raises(ConfigError) as caught, RunDir.open(tmp_path / "run"):
            pass
    assert f"in use by process {os.getpid()} on {os.uname().nodename} since {since};" in str(
        caught.value
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\x00\xff"])
def test_an_unreadable_lock_text_still_locks(tmp_path: Path, text: str) -> None:
    with RunDir.open(tmp_path / "run") as run:
        run.lock.write_text(text)
        with pytest.raises(ConfigError, match="another process"), RunDir.open(tmp_path / "run"):
            pass


def test_exactly_one_of_several_processes_wins(tmp_path: Path) -> None:
    for race in range(3):
        path = tmp_path / str(race)
        processes = [start(path) for _ in range(4)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
        for process in processes:
            assert process.stdin is not None
            process.stdin.flush()
        answers = [process.stdout.readline() for process in processes if process.stdout]
        for process in processes:
            process.communicate("done\n")
        assert sum(text.startswith("won") for text in answers) == 1
        assert sum("in use by" in text for text in answers) == 3


def test_creating_the_folder_at_the_same_moment_is_no_error_of_another_kind(tmp_path: Path) -> None:
    done = threading.Event()

    def open_at_once(path: Path, ready: threading.Barrier) -> str:
        ready.wait()
        try:
            with RunDir.open(path):
                done.wait(10)  # not for ever: two may have won
                return "won"
        except ConfigError as error:
            return str(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for race in range(40):
            done.clear()
            ready = threading.Barrier(4)
            with ThreadPoolExecutor(4) as pool:
                tries = [pool.submit(open_at_once, tmp_path / str(race), ready) for _ in range(4)]
                for _ in zip(range(3), as_completed(tries), strict=False):
                    pass
                done.set()
            told = sorted(t.result() for t in tries)
            assert sum("in use by" in text for text in told) == 3, told
            assert told[-1] == "won"
    finally:
        sys.setswitchinterval(interval)


def test_the_lock_is_free_after_kill_9_although_its_text_is_stale(tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    assert answer(process) == "won"
    with pytest.raises(ConfigError, match=f"in use by process {process.pid} "):
        RunDir.open(tmp_path / "run").__enter__()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert str(process.pid) in (tmp_path / "run" / "run.lock").read_text()
    with RunDir.open(tmp_path / "run") as run:
        assert json.loads(run.lock.read_text())["pid"] == os.getpid()


def test_the_lock_is_freed_although_a_forked_child_lives_on(tmp_path: Path) -> None:
    read, write = os.pipe()
    with RunDir.open(tmp_path / "run"):
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    with RunDir.open(tmp_path / "run"):
        pass
    os.close(write)
    os.waitpid(child, 0)
    os.close(read)


def test_open_sweeps_what_a_killed_writer_left(tmp_path: Path) -> None:
    with RunDir.open(tmp_path / "run") as run:
        (run.path / ".tmp-9-config.yaml").write_text("mod")
        (run.path / ".tmp-model").mkdir()
        (run.path / ".tmp-model" / "part").write_text("")
        (run.path / ".tmp-link").symlink_to(tmp_path)
    with RunDir.open(tmp_path / "run"):
        assert [child.name for child in run.path.iterdir()] == ["run.lock"]
    assert tmp_path.is_dir()


def test_find_reads_without_locking(tmp_path: Path) -> None:
    with RunDir.open(tmp_path / "gpt2-alpaca"):
        assert RunDir.find(tmp_path / "gpt2-alpaca").path == tmp_path / "gpt2-alpaca"


def test_find_names_the_nearest_run(tmp_path: Path) -> None:
    for name in ("gpt2-alpaca", "llama-dolly"):
        with RunDir.open(tmp_path / name):
            pass
    (tmp_path / "gpt2-alpac").mkdir()
    with pytest.raises(ConfigError, match=r"no such run folder .* Did you mean 'gpt2-alpaca'"):
        RunDir.find(tmp_path / "gpt2-alpacca")
    with pytest.raises(ConfigError, match=r"not a run folder .* Did you mean 'gpt2-alpaca'"):
        RunDir.find(tmp_path / "gpt2-alpac")
    with pytest.raises(ConfigError, match="It holds runs: gpt2-alpaca, llama-dolly"):
        RunDir.find(tmp_path)
    with pytest.raises(ConfigError, match="no such run folder"):
        RunDir.find(tmp_path / "none" / "such")
    with pytest.raises(ConfigError):
        RunDir.find("x" * 300)


def test_check_space_says_how_much_is_missing(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "not" / "yet")
    run.check_space(1)
    with pytest.raises(DiskError, match=r"needs 5000000\.0 TB and [0-9.]+ [kMGT]B are free; free"):
        run.check_space(5 * 10**18)


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO"])
def test_disk_errors_name_the_path_and_a_remedy(tmp_path: Path, code: str) -> None:
    told = rf"^{tmp_path}: cannot be written: .+; .+"
    with pytest.raises(DiskError, match=told), disk_errors(tmp_path):
        raise OSError(getattr(errno, code), "x")


def test_disk_errors_leave_other_errors_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "none").read_text()


def test_write_replaces_the_whole_file_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_text(path, "old\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old\n"
    assert [child.name for child in tmp_path.iterdir()] == ["config.yaml"]
    write_text(path, "neü\n")
    assert path.read_bytes() == "neü\n".encode()
    assert [child.name for child in tmp_path.iterdir()] == ["config.yaml"]


def test_write_syncs_the_file_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    monkeypatch.setattr(os, "rename", lambda a, b: (calls.append("rename"), rename(a, b)))
    write_json(tmp_path / "a.json", {"x": 1})
    assert calls == [f"{tmp_path}/.tmp-{os.getpid()}-a.json", "rename", str(tmp_path)]


def test_write_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, 0.1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": [\n    1,\n    0.1\n  ]\n}\n'
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (3e12, "3.0 TB")],
)
def test_format_bytes(num_bytes: float, text: str) -> None:
    assert format_bytes(num_bytes) == text
