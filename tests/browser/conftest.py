"""A real browser, where there is one: Chromium of the system, driven by playwright.

With NEED_BROWSER=1 a missing browser is a failure and not a skip.
"""

import os
import shutil
from contextlib import contextmanager

import pytest

from browser.runs import make_runs
from browser.served import Site, Told, serving

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"wide": (1440, 900), "narrow": (390, 844)}


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright import sync_api as api
    except ImportError:
        missing("playwright is not installed")
    with api.sync_playwright() as driver:
        started = launch(driver.chromium)
        yield started
        started.close()


def launch(chromium, *more):
    """A browser of its own, with `more` options of the command line."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if not program:
        missing(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    # Chromium refuses to start its sandbox as root, as in a container.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    return chromium.launch(executable_path=program, args=[*options, *more])


def missing(why):
    if os.environ.get("NEED_BROWSER", "0") not in ("", "0"):
        pytest.fail(f"{why}, and NEED_BROWSER asks for one")
    pytest.skip(why)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder of runs, one in each state that a run can be found in."""
    return make_runs(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="package")
def site(runs):
    """`sft watch` over that folder."""
    with serving(runs) as started:
        yield started


@pytest.fixture
def tab(browser):
    """Opens a tab; afterwards it must have complained of nothing and asked only its own origin."""

    @contextmanager
    def open_tab(site: Site, size: str = "wide", *, quiet: bool = True, **options):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        told = Told(page, site.url)
        try:
            yield page
            if quiet:
                assert told.complaints() == []
            assert told.foreign() == []
        finally:
            context.close()

    return open_tab
