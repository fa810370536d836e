"""What opening and using one page costs, in a headless Chromium of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watched_tools import Tool, descendants, memory_bytes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

SIZE = {"width": 1440, "height": 900}
WAIT_SECONDS = 60
MOVES = 90
MOVE_SECONDS = 1.5
QUIET_MS = 1_000  # a chart that did not change for so long is finished

# Runs in the page before its own scripts. Each frame asks whether the curve is drawn; `drawn` is
# the time of the frame after the one that found it, in ms since the navigation began.
WATCH = """
window.timing = {drawn: null, changed: [], frames: null};
const chartOf = () => { try { %(chart)s } catch (error) { return null; } };
const viewOf = (chart) => { try { if (!chart) return ''; %(view)s } catch (error) { return ''; } };
let last = '', released = null;
const frame = (now) => {
  const t = window.timing;
  if (t.frames) t.frames.push(now);
  if (t.drawn === null || t.watching) {
    const view = viewOf(chartOf());
    if (view && t.drawn === null) requestAnimationFrame(() => { t.drawn = performance.now(); });
    if (view !== last) { last = view; t.changed.push(performance.now()); }
  }
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
addEventListener('pointerup', () => { window.timing.released = performance.now(); }, true);
addEventListener('mouseup', () => { window.timing.released ??= performance.now(); }, true);
"""

PAINTS = """() => Object.fromEntries(
  performance.getEntriesByType('paint').map((entry) => [entry.name, entry.startTime / 1000]))"""

BOX = """() => {
  const chart = (() => { %(chart)s })();
  chart.scrollIntoView({block: 'center'});
  const inner = [...chart.querySelectorAll('canvas, .nsewdrag')].map((e) =>
    e.getBoundingClientRect()).sort((a, b) => b.width * b.height - a.width * a.height)[0];
  const box = inner || chart.getBoundingClientRect();
  return {x: box.x, y: box.y, width: box.width, height: box.height};
}"""


@contextmanager
def chromium(program: str) -> Iterator[tuple[Browser, int]]:
    """A browser of its own, and the id of the process that started it."""
    import os

    from playwright.sync_api import sync_playwright

    options = ["--enable-precise-memory-info", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    before = {*descendants(os.getpid())}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=options)
        [parent] = [p for p in descendants(os.getpid()) if p not in before and is_browser(p)]
        try:
            yield browser, parent
        finally:
            browser.close()


def curve_seconds(browser: Browser, tool: Tool, url: str) -> float:
    """From the start of the navigation to the frame with the loss curve, in a fresh profile."""
    context = browser.new_context(viewport=SIZE)
    page = opened(context, tool, url)
    seconds: float = page.evaluate("window.timing.drawn") / 1000
    context.close()
    return seconds


def opened(context: BrowserContext, tool: Tool, url: str) -> Page:
    """The page, once its loss curve is drawn."""
    page = context.new_page()
    page.add_init_script(WATCH % {"chart": tool.chart, "view": tool.view})
    page.goto(url)
    # Not `wait_for_function`: it needs `eval`, which a page may forbid. Frames are counted in the
    # page, so that how often we ask does not matter.
    end = time.monotonic() + WAIT_SECONDS
    while page.evaluate("window.timing.drawn") is None:
        if time.monotonic() > end:
            raise SystemExit(f"{tool.name}: no loss curve at {url} after {WAIT_SECONDS} s")
        time.sleep(0.05)
    return page


def measure(browser: Browser, parent: int, tool: Tool, url: str) -> dict[str, Any]:
    """Open the page in a fresh profile, wait for the loss curve, move over it, and zoom in."""
    context = browser.new_context(viewport=SIZE)
    page = opened(context, tool, url)
    result: dict[str, Any] = {
        "first_paint_seconds": page.evaluate(PAINTS).get("first-contentful-paint"),
        "curve_seconds": page.evaluate("window.timing.drawn") / 1000,
    }
    box = page.evaluate(BOX % {"chart": tool.chart})
    time.sleep(0.5)  # until late work of the page is done: scrolling, fonts
    result |= moving(page, box)
    result |= zooming(page, box)
    session = context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    result["heap_bytes"] = page.evaluate("performance.memory.usedJSHeapSize")
    result["renderer_bytes"] = renderer_bytes(parent)
    context.close()
    return result


def moving(page: Page, box: dict[str, float]) -> dict[str, float]:
    """Milliseconds between frames while the mouse moves over the chart."""
    middle = box["y"] + box["height"] / 2
    page.evaluate("window.timing.frames = []")
    for number in range(MOVES):
        share = 0.1 + 0.8 * number / MOVES
        page.mouse.move(box["x"] + share * box["width"], middle)
        time.sleep(MOVE_SECONDS / MOVES)
    frames = page.evaluate(
        "() => { const f = window.timing.frames; window.timing.frames = null; return f; }"
    )
    gaps = sorted(after - before for before, after in pairwise(frames))
    return {
        "frame_ms_p50": statistics.median(gaps),
        "frame_ms_p95": gaps[int(0.95 * len(gaps))],
        "frame_ms_max": gaps[-1],
    }


def zooming(page: Page, box: dict[str, float]) -> dict[str, float | None]:
    """Seconds from letting the button go to the first new picture, and to the last."""
    at = [box["x"] + share * box["width"] for share in (0.35, 0.5, 0.65)]
    middle = box["y"] + box["height"] / 2
    page.mouse.move(at[0], middle)
    page.mouse.down()
    for x in at[1:]:
        page.mouse.move(x, middle + 2, steps=5)
    page.evaluate("Object.assign(window.timing, {watching: true, changed: [], released: null})")
    page.mouse.up()
    page.wait_for_timeout(2 * QUIET_MS)
    released, changed = page.evaluate("[window.timing.released, window.timing.changed]")
    page.evaluate("window.timing.watching = false")
    after = [moment - released for moment in changed if moment >= released]
    if not after:
        return {"zoom_seconds": None, "zoom_settled_seconds": None}
    return {"zoom_seconds": after[0] / 1000, "zoom_settled_seconds": after[-1] / 1000}


def is_browser(pid: int) -> bool:
    """A process of Chromium that is no child of one: it has no `--type`."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"--remote-debugging-pipe" in words and not any(w.startswith(b"--type") for w in words)


def renderer_bytes(parent: int) -> int | None:
    """Memory of the largest renderer: that of the page, as nothing else is open."""
    sizes = [
        memory_bytes(pid) or 0
        for pid in descendants(parent)
        if b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return max(sizes, default=None)
