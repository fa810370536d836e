"""`sft watch` as users start it, and what a tab that shows its pages has to say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # conftest.py imports this file, also where there is no playwright
    from playwright.sync_api import Page

SCREENS = ("", "/guards", "/samples", "/data", "/config", "/events")
# A server imports what judges a run when it is first asked, and this machine may be busy.
PATIENCE_MS = 30_000
# Runs before the scripts of a page: what hostile text would call.
SENTINEL = "window.pwned = 0; window.pwn = () => { window.pwned += 1; };"


class Told:
    """All that a tab says, and everything that it asks for."""

    def __init__(self, page: Page, origin: str) -> None:
        self.lines: list[str] = []
        self.requests: list[str] = []
        self._origin = origin
        page.on("console", lambda message: self.lines.append(message.text))
        page.on("pageerror", lambda error: self.lines.append(str(error)))
        page.on("dialog", lambda dialog: (self.lines.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))
        page.add_init_script(SENTINEL)

    def complaints(self) -> list[str]:
        return self.lines

    def foreign(self) -> list[str]:
        """Requests to anything but the origin; pictures in the page itself are none."""
        own = (self._origin + "/", "data:", "blob:" + self._origin)
        return [url for url in self.requests if not url.startswith(own)]


@dataclass
class Site:
    """A started server. `url` has no slash at its end."""

    url: str
    process: subprocess.Popen[str]
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def rows(self) -> dict[str, dict[str, Any]]:
        """Rows of the list of runs, by name."""
        with urllib.request.urlopen(self.url + "/api/runs", timeout=30) as answer:
            return {row["name"]: row for row in json.loads(answer.read())["runs"]}

    def screen(self, name: str, screen: str = "") -> str:
        """Address of a screen of the run called `name`."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while name not in self.ids and time.monotonic() < end:  # new ones are found by and by
            self.ids = {key: row["id"] for key, row in self.rows().items()}
        return f"{self.url}/#/run/{self.ids[name]}{screen}"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[Site]:
    """`sft watch FOLDER`, on a port of its choice, until the end of the block."""
    command = [sys.executable, "-m", "sft", "watch", str(folder), "--port", str(port)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        yield Site(found[0], process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def settled(page: Page) -> None:
    """Wait until the screen is there: nothing is loading, and every chart in sight is drawn."""
    from playwright.sync_api import expect

    expect(page.locator("#main > [data-screen]")).to_have_count(1, timeout=PATIENCE_MS)
    expect(page.locator("#main .loading:visible")).to_have_count(0, timeout=PATIENCE_MS)
    # A chart below the fold is drawn when it comes into sight.
    for chart in page.locator("#main .chart").all():
        box = chart.bounding_box()
        if box and box["height"] and box["y"] < page.viewport_size["height"]:
            expect(chart).to_have_attribute("data-drawn", re.compile(r"\d+"), timeout=PATIENCE_MS)


def show(page: Page, address: str) -> None:
    """Go to a screen and wait for it; within one site only the part behind # changes."""
    from playwright.sync_api import expect

    if page.url.partition("#")[0] == address.partition("#")[0]:
        page.evaluate("(hash) => { location.hash = hash; }", "#" + address.partition("#")[2])
    else:
        page.goto(address)
    name = re.match(r"#/run/\w+/?(\w*)", "#" + address.partition("#")[2])
    expected = (name[1] or "run") if name else ("compare" if "/compare" in address else "runs")
    there = page.locator(f'#main > [data-screen="{expected}"]')
    expect(there).to_have_count(1, timeout=PATIENCE_MS)
    settled(page)


def width(page: Page) -> int:
    """What the page needs: more than the window is a page that scrolls sideways."""
    found: int = page.evaluate("document.documentElement.scrollWidth")
    return found
