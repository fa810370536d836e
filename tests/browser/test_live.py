"""A run that grows while its page is open, and a server that goes away in between."""

import json
import shutil
import time
from contextlib import contextmanager

import pytest

from browser.runs import hold
from browser.served import serving, show
from long_run import Drawn, write_beginning
from sft.runs.events import EventLog
from sft.runs.run_dir import RunDir
from sft.runs.store import RecordStore

pytest.importorskip("playwright.sync_api")

STEPS = 400
# Steps of the thin line of the train loss, as the chart holds them.
HELD = """() => document.querySelector("#loss-chart .plot").data
  .find((trace) => trace.name.startsWith("train")).x"""
MOST_SECONDS = 3.0


class Growing:
    """A run that is training: `grow` appends the records of the next steps."""

    def __init__(self, path):
        self.path = path
        self.path.mkdir(parents=True)
        self.drawn = Drawn(STEPS, 20)
        write_beginning(RunDir(self.path), self.drawn)
        hold(self.path)
        self.events = EventLog(self.path / "events.jsonl")
        self.events.add("started", "process", num_steps=STEPS)
        time.sleep(0.03)  # no real step is there at once
        self.store = RecordStore(self.path / "metrics.jsonl")
        self.store.append(self.drawn.evaluate(0))
        self.step = 0
        self.offsets = {}

    def grow(self, steps=1):
        for record in self.drawn.steps(self.step + 1, self.step + steps):
            self.store.append(record)
            self.step += 1
            self.offsets[self.step] = self.store.offset
        return time.monotonic()

    def go_back(self, step):
        """What resuming from a checkpoint does: later records are cut off, and it is told."""
        self.store.truncate_to(self.offsets[step])
        self.events.add("resumed", f"from step {step}", step=step)
        self.step = step


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def site(folder):
    with serving(folder) as started:
        yield started


@pytest.fixture
def growing(folder, request):
    run = Growing(folder / request.node.name)
    run.grow(10)
    yield run
    run.store.close()


def wait_for(page, step, seconds=MOST_SECONDS):
    """When the head of the page says `step`; it must within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if page.locator("#steps").inner_text().startswith(f"step {step} "):
            return time.monotonic()
        time.sleep(0.01)
    raise AssertionError(f"no step {step} after {seconds} s: {page.locator('#steps').inner_text()}")


def wait_for_curve(page, step, seconds=MOST_SECONDS):
    """The steps that the chart holds, once `step` is their last."""
    end = time.monotonic() + seconds
    while (held := page.evaluate(HELD))[-1] != step:
        assert time.monotonic() < end, f"the curve ends at {held[-1]} and not at {step}"
        time.sleep(0.02)
    return held


@contextmanager
def watched(tab, site, growing, **options):
    with tab(site, **options) as page:
        show(page, site.screen(growing.path.name))
        yield page


def test_a_new_point_is_there_within_a_second(tab, site, growing):
    with watched(tab, site, growing) as page:
        assert page.locator("#state").inner_text().strip() == "training"
        delays = []
        for _ in range(8):
            time.sleep(0.13)  # at another moment of the server's rounds each time
            written = growing.grow()
            delays.append(wait_for(page, growing.step) - written)
        print(f"from write to page: median {sorted(delays)[4]:.3f} s, most {max(delays):.3f} s")
        assert max(delays) < MOST_SECONDS
        assert wait_for_curve(page, growing.step) == list(range(1, growing.step + 1))
        # An evaluation, an event and the end of the run arrive as well.
        growing.store.append(growing.drawn.evaluate(20))
        growing.events.add("note", "the cat sat on the mat", step=20)
        growing.events.add("interrupted", "SIGTERM", step=growing.step)
        (growing.path / "run.lock").write_text("")
        page.locator("#state", has_text="interrupted").wait_for(timeout=15_000)
        page.keyboard.press("6")
        page.get_by_text("the cat sat on the mat").first.wait_for()


def test_a_server_that_was_killed_leaves_no_gap_and_no_double(tab, growing):
    # The browser itself complains in the console while nobody answers.
    with serving(growing.path) as site, watched(tab, site, growing, quiet=False) as page:
        growing.grow(3)
        wait_for_curve(page, growing.step)
        site.kill()
        page.locator("#connection", has_text="reconnecting").wait_for()
        growing.grow(7)
        with serving(growing.path, site.port):
            growing.grow(5)
            held = wait_for_curve(page, growing.step, seconds=30)
            assert held == list(range(1, growing.step + 1))
            page.locator("#connection", has_text="live").wait_for()
            growing.grow(4)
            assert wait_for_curve(page, 29) == list(range(1, 30))


def test_a_run_that_goes_back_to_a_checkpoint_is_drawn_anew(tab, site, growing):
    with watched(tab, site, growing) as page:
        growing.grow(10)
        wait_for_curve(page, 20)
        growing.go_back(12)
        growing.grow(2)
        assert wait_for_curve(page, 14) == list(range(1, 15))
        wait_for(page, 14)
        discarded = (growing.path / "metrics.discarded.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in discarded] == list(range(13, 21))


def test_a_run_that_begins_later_appears_in_the_list(tab, site, growing):
    with tab(site) as page:
        show(page, f"{site.url}/#/compare")  # / leads to the only run, where there is one only
        show(page, f"{site.url}/#/")
        page.locator("tbody tr", has_text=growing.path.name).wait_for(timeout=15_000)
        shutil.copytree(growing.path, growing.path.with_name("newcomer"))
        page.locator("tbody tr", has_text="newcomer").wait_for(timeout=15_000)
        shutil.rmtree(growing.path.with_name("newcomer"))
        page.locator("tbody tr", has_text="newcomer").wait_for(state="detached", timeout=15_000)


def test_a_hidden_tab_catches_up(tab, site, growing):
    """A tab that is not looked at holds no connection; what it missed comes when it is shown."""
    with watched(tab, site, growing) as page:
        hide(page, True)
        growing.grow(15)
        time.sleep(0.6)
        assert page.evaluate(HELD)[-1] == 10
        hide(page, False)
        assert wait_for_curve(page, 25, seconds=5) == list(range(1, 26))


def hide(page, is_hidden):
    """Headless Chromium hides no tab by itself: the page is told as a browser would."""
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )
