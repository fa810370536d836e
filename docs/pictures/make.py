"""Makes the pictures of the README: `python docs/pictures/make.py RUN [OTHER_RUN]`.

Serves the runs with `sft watch`, visits its screens with the Chromium of the system, and writes
PNG files beside this one. With OTHER_RUN the comparison is among them. Needs playwright.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = {"width": 1280, "height": 800}
MOST_BYTES = 250_000
SETTLE = 1500  # milliseconds until charts stand still
# name: (part of the address below the run, colours)
SCREENS = {
    "run-light": ("", "light"),
    "run-dark": ("", "dark"),
    "guards": ("/guards", "light"),
    "samples": ("/samples", "light"),
    "data": ("/data", "light"),
}
# Names runs as the README does, and not by where they lie on this machine.
SHORTEN = """folders => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode())
    for (const folder of folders)
      walker.currentNode.data = walker.currentNode.data.replaceAll(folder + "/", "runs/");
}"""


def main() -> None:
    """Read the command line, and take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default: beside me)")
    options = parser.parse_args()
    runs = [run.resolve() for run in (options.run, options.other) if run]
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    folders = sorted({str(run.parent) for run in runs})
    with watched(runs) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        ids = ids_of(address, runs)

        def picture(name: str, address: str, colours: str = "light") -> None:
            take(browser, address, colours, folders, options.out / f"{name}.png")

        for name, (part, colours) in SCREENS.items():
            picture(name, f"{address}#/run/{ids[0]}{part}", colours)
        if len(ids) > 1:
            picture("compare", f"{address}#/compare?runs={','.join(ids)}")
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "report.html"
            sft("report", str(runs[0]), "--out", str(page))
            picture("report", page.as_uri())
        browser.close()


def sft(*words: str) -> None:
    """Run one command of sft, by this Python."""
    subprocess.run([sys.executable, "-m", "sft", *words], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def watched(runs: list[Path]) -> Iterator[str]:
    """The address of a server that shows `runs`."""
    command = [sys.executable, "-m", "sft", "watch", "--port", "0", *map(str, runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if found := re.search(r"http://[\w.:\[\]]+/?", line):
                    yield found.group().rstrip("/") + "/"
                    break
            else:
                sys.exit("sft watch said no address")
        finally:
            server.terminate()


def ids_of(address: str, runs: list[Path]) -> list[str]:
    """The ids that the server knows `runs` by."""
    with urllib.request.urlopen(f"{address}api/runs") as answer:
        rows: list[dict[str, Any]] = json.load(answer)["runs"]
    by_path = {Path(row["path"]).resolve(): str(row["id"]) for row in rows}
    return [by_path[run] for run in runs]


def take(browser: Browser, address: str, colours: Any, folders: list[str], out: Path) -> None:
    """One picture of one screen, in few enough colours to be small."""
    context = browser.new_context(viewport=SIZE, color_scheme=colours, reduced_motion="reduce")
    page: Page = context.new_page()
    page.goto(address)
    page.wait_for_selector("main .loading:visible", state="detached")  # a report has none
    page.wait_for_timeout(SETTLE)
    page.evaluate(SHORTEN, folders)
    page.screenshot(path=out)
    context.close()
    for colours_left in (256, 128, 64, 32):
        picture = Image.open(out).convert("RGB").quantize(colours_left, dither=Image.Dither.NONE)
        picture.save(out, optimize=True)
        if out.stat().st_size <= MOST_BYTES:
            break
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
