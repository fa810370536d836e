"""The routes of `sft watch`: the page, its files from a fixed table, and JSON about runs by id.

`security.Gate` stands in front. Nothing here writes, and no path comes from a request.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from sft import report
from sft.dashboard.cursor import Cursor
from sft.dashboard.folders import Folders, NotServed
from sft.dashboard.live import Messages, Threads, Watcher, json_bytes
from sft.dashboard.security import REPORT_POLICY
from sft.errors import ConfigError
from sft.runs.run_dir import RunDir
from sft.texts.safe import printable

STATIC = Path(__file__).parent / "static"
BASE_STYLE = Path(report.__file__).parent / "base.css"  # of all pages
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
VIEWS = ("series", "guards", "samples", "data", "config", "events")
MOST_COMPARED = 20
MOST_REPORT_BYTES = 64 << 20
_SEND_SECONDS = 60.0  # a page that takes no message for so long is gone


def log(text: str) -> None:
    """One line on stderr, without what could steer the terminal."""
    with suppress(OSError):  # the terminal is gone; the pages are not
        print(f"sft watch: {printable(text)}", file=sys.stderr, flush=True)


class Service:
    """An ASGI application over some folders of runs. `watcher` has the pages that listen."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.watcher = Watcher(folders, log)
        self._threads = Threads(4)
        self._static = _static_files()
        self._plotly = _plotly()
        self._warmed = False
        self._router = Router(
            [
                Route("/", self._page),
                Route("/static/{name}", self._static_file),
                Route("/plotly.min.js", self._plotly_file),
                Route("/runs/{id}/report.html", self._report),
                Route("/api/runs", self._runs),
                Route("/api/stream", self._rows_stream),
                Route("/api/compare", self._compare),
                Route("/api/runs/{id}", self._view),
                Route("/api/runs/{id}/stream", self._run_stream),
                Route("/api/runs/{id}/{view}", self._view),
            ],
            redirect_slashes=False,  # it would build an address out of what the client says
            default=_no_route,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; an error becomes a line here and a 500 there, never an end."""
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._router(scope, receive, watched)
        except Exception as error:
            response = _failed(scope["path"], error)
            if not started:
                await response(scope, receive, send)

    def _warm_up(self) -> None:
        """Read the newest run: that is what most pages are opened for."""
        with suppress(Exception):  # the first question will tell
            from sft.dashboard.page_data import PAGE_DATA

            newest = self.folders.find(self.folders.rows()[0]["id"])
            for name in ("snapshot", "series"):
                PAGE_DATA[name](newest, {})

    # ------------------------------------------------------------------ files

    async def _page(self, request: Request) -> Response:
        if not self._warmed:  # while the browser still loads the scripts
            self._warmed = True
            threading.Thread(target=self._warm_up, daemon=True).start()
        return await self._file(request, self._static.get("index.html"))

    async def _static_file(self, request: Request) -> Response:
        return await self._file(request, self._static.get(request.path_params["name"]))

    async def _plotly_file(self, request: Request) -> Response:
        return await self._file(request, self._plotly)

    async def _file(self, request: Request, path: Path | None) -> Response:
        """A file of a package: the browser keeps it, and asks whether it is still the same."""
        if path is None:
            return _error(404, "there is no such file")
        status = await self._threads.run(os.stat, path)
        headers = {
            "etag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
            "cache-control": "private, no-cache",
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        data = await self._threads.run(path.read_bytes)
        return Response(data, headers=headers, media_type=MEDIA[path.suffix])

    async def _report(self, request: Request) -> Response:
        known_as = request.path_params["id"]
        return await self._answer(request, lambda: _report_response(self.folders.find(known_as)))

    # ------------------------------------------------------------------ JSON

    async def _runs(self, request: Request) -> Response:
        folder = ", ".join(str(folder) for folder in self.folders.folders)
        return await self._answer(
            request, lambda: _json({"folder": folder, "runs": self.folders.rows()})
        )

    async def _view(self, request: Request) -> Response:
        known_as, view = request.path_params["id"], request.path_params.get("view")
        if view is not None and view not in VIEWS:
            return _error(404, "there is no such view")

        def answer() -> Response:
            from sft.dashboard.page_data import PAGE_DATA

            run = self.folders.find(known_as)
            return _json(PAGE_DATA[view or "snapshot"](run, request.query_params))

        return await self._answer(request, answer)

    async def _compare(self, request: Request) -> Response:
        names = [name for name in request.query_params.get("runs", "").split(",") if name]
        if not 1 <= len(names) <= MOST_COMPARED:
            return _error(400, f"expected runs=ID,ID... of 1 to {MOST_COMPARED} runs")

        def answer() -> Response:
            from sft.dashboard.page_data import compare

            runs = [self.folders.find(name) for name in names]
            return _json(compare(runs, request.query_params))

        return await self._answer(request, answer)

    async def _answer(self, request: Request, answer: Callable[[], Response]) -> Response:
        """What `answer` says, in a thread."""
        try:
            return await self._threads.run(answer)
        except NotServed as error:
            return _error(404, str(error))
        except ConfigError as error:  # of what was asked
            return _error(400, str(error))
        except Exception as error:
            return _failed(request.scope["path"], error)

    # ------------------------------------------------------------------ streams

    async def _rows_stream(self, request: Request) -> Response:
        return _Stream(self.watcher, self.watcher.rows_messages)

    async def _run_stream(self, request: Request) -> Response:
        try:
            run = await self._threads.run(self.folders.find, request.path_params["id"])
        except NotServed as error:
            return _error(404, str(error))
        given = request.headers.get("last-event-id") or request.query_params.get("from")
        try:
            cursor = Cursor.parse(given) if given else Cursor()
        except ValueError as error:
            return _error(400, str(error))
        return _Stream(self.watcher, lambda: self.watcher.run_messages(run, cursor))


class _Stream(Response):
    """Server-sent events until the page is gone or the server ends."""

    media_type = "text/event-stream"

    def __init__(self, watcher: Watcher, messages: Callable[[], Messages]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._watcher, self._messages = watcher, messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return

        async def write(text: bytes) -> None:
            async with asyncio.timeout(_SEND_SECONDS):
                await send({"type": "http.response.body", "body": text, "more_body": True})

        sending = asyncio.create_task(self._watcher.send(self._messages(), write))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            ended = await asyncio.gather(sending, gone, return_exceptions=True)
        if not isinstance(ended[0], TimeoutError):  # else it would wait for the same page again
            await send({"type": "http.response.body"})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    await _error(404, "there is no such page")(scope, receive, send)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json_bytes(value), status_code=status, media_type="application/json")


def _error(status: int, text: str) -> Response:
    return _json({"error": text}, status)


def _failed(path: str, error: Exception) -> Response:
    text = f"{type(error).__name__}: {error}"
    log(f"{path}: {text}")
    return _error(500, text)


def _static_files() -> dict[str, Path]:
    """The files of the page by name: the only ones that can be asked for."""
    files = [*STATIC.iterdir(), BASE_STYLE]
    return {path.name: path for path in files if path.suffix in MEDIA}


def _plotly() -> Path | None:
    """The script in the plotly package, which is found without being imported: that takes long."""
    spec = importlib.util.find_spec("plotly")
    folders = (spec.submodule_search_locations or []) if spec else []
    paths = [Path(folder) / "package_data" / "plotly.min.js" for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def _report_response(run: RunDir) -> Response:
    """The report of a run, if it is a file of its own: no link, no pipe, and not too large."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(run.report, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size <= MOST_REPORT_BYTES:
                headers = {"content-security-policy": REPORT_POLICY}
                return Response(file.read(), headers=headers, media_type=MEDIA[".html"])
    except OSError:
        pass
    return _error(404, "this run has no report; `sft report RUN` writes one")
