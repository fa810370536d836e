"""The flag that a signal raises, and where a run stops for it."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from sft.errors import Interrupted
from sft.terminal.console import Console
from sft.training.interrupt import catch_signals
from trained import Trained, contents, left_behind, make_world

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def default_handlers():
    """As in a shell: a test runner in the background may have been started with them ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_the_flag_and_no_exception(number):
    with catch_signals() as stop:
        assert not stop.requested()
        stop.raise_before_training()
        os.kill(os.getpid(), number)
        assert stop.requested()
        assert stop.signal_number == number
        with pytest.raises(Interrupted) as caught:
            stop.raise_before_training()
    assert caught.value.exit_code == 128 + number
    assert signal.Signals(number).name in str(caught.value)
    assert "The same command" in str(caught.value)


def test_handlers_are_as_before_afterwards():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with catch_signals():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ZeroDivisionError), catch_signals():
        _ = 1 / 0
    with catch_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    found = [signal.getsignal(number) for number in SIGNALS]
    assert found == [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL]


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_ignored_stays_ignored(number):
    """`nohup` ignores SIGHUP, and a shell ignores SIGINT for what it runs in the background."""
    signal.signal(number, signal.SIG_IGN)
    other = next(each for each in SIGNALS if each != number)
    with catch_signals() as stop:
        os.kill(os.getpid(), number)
        assert not stop.requested()
        os.kill(os.getpid(), other)
        assert stop.signal_number == other
        assert signal.getsignal(number) is signal.SIG_IGN
    assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_the_process_at_once(number):
    code = (
        "import os, signal, sys\n"
        "from sft.training.interrupt import catch_signals\n"
        f"for n in {[int(n) for n in SIGNALS]}: signal.signal(n, signal.SIG_DFL)\n"
        "with catch_signals():\n"
        f"    os.kill(os.getpid(), {int(signal.SIGTERM)})\n"
        "    print('alive', flush=True)\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    print('still alive', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("alive\n", "", -number)


def test_in_another_thread_nothing_is_caught_and_nothing_breaks():
    found = []

    def inside():
        with catch_signals() as stop:
            found.append((stop.requested(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(False, signal.SIG_DFL)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


# So small that an evaluation takes several forward passes.
SETTINGS = {"batch__micro_batch_tokens": 64, "optim__neftune_alpha": 5, "checkpoint__every": 4}


def train(world, name):
    return Trained(world, name, **SETTINGS)


@pytest.fixture(scope="module")
def whole(world):
    train(world, "whole")
    return left_behind(world / "whole")


class Stopper(Console):
    """Sends a signal to this process when the run comes to `moment`."""

    moment = ""

    def note(self, text, **event):
        super().note(text, **event)
        self._maybe(text)

    def progress(self, what, done=0, total=0):
        super().progress(what, done, total)
        self._maybe(f"{what} {done}")

    def step(self, record):
        super().step(record)
        self._maybe(f"step {record['step']}")

    def _maybe(self, moment):
        if moment == self.moment:
            Stopper.moment = ""
            os.kill(os.getpid(), signal.SIGTERM)


def without_run_dir(digests):
    return {name: digest for name, digest in digests.items() if name != "config.yaml"}


@pytest.mark.parametrize(
    ("moment", "newest"),
    [
        ("step 1", 1),
        ("step 5", 5),  # no checkpoint and no evaluation is due
        ("step 8", 8),  # an evaluation is due and not begun
        ("evaluating 4", None),  # in the middle of an evaluation
        ("step 11", 11),
    ],
)
def test_a_run_stops_after_the_step_and_saves_it(world, whole, moment, newest, monkeypatch):
    folder = world / f"stopped-{moment}"
    monkeypatch.setattr(Stopper, "moment", moment)
    monkeypatch.setattr("trained.Console", Stopper)
    with pytest.raises(Interrupted) as caught:
        train(world, folder.name)
    if newest is None:
        assert len((folder / "scores.jsonl").read_bytes()) == 0  # half an evaluation is none
        newest = 0
    assert f"stopped by SIGTERM after step {newest} of 12; saved in " in str(caught.value)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names[-1] == f"step-{newest:06d}"
    again = train(world, folder.name)
    assert f"resuming after step {newest} of 12" in again.shown
    assert without_run_dir(left_behind(folder)) == without_run_dir(whole)


@pytest.mark.parametrize(
    "moment",
    ["reading 0", "tokenising 48", "loading the model 0", "checking that flat equals padded 0"],
)
@pytest.mark.parametrize("begun", [False, True])
def test_before_training_nothing_is_changed(world, whole, moment, begun, monkeypatch):
    folder = world / f"before-{moment}-{begun}"
    monkeypatch.setattr("trained.Console", Stopper)
    if begun:
        monkeypatch.setattr(Stopper, "moment", "step 6")
        with pytest.raises(Interrupted):
            train(world, folder.name)
    before = contents(folder)
    monkeypatch.setattr(Stopper, "moment", moment)
    with pytest.raises(Interrupted) as caught:
        train(world, folder.name)
    assert caught.value.exit_code == 143
    assert "stopped by SIGTERM before training began; nothing was changed" in str(caught.value)
    assert contents(folder) == before
    train(world, folder.name)
    assert without_run_dir(left_behind(folder)) == without_run_dir(whole)
