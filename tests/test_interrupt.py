import os
import signal
import subprocess
import sys
import threading

import pytest

from sft.errors import Interrupted
from sft.interrupt import catch_signals

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
        "from sft.interrupt import catch_signals\n"
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
