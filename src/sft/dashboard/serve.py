"""What `sft watch` does: find a port, say the address, and serve until it is told to stop."""

from __future__ import annotations

import getpass
import http.client
import ipaddress
import os
import re
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from sft.dashboard.folders import Folders
from sft.dashboard.security import Gate, is_loopback, new_token
from sft.errors import ConfigError
from sft.runs.index import named_folders
from sft.texts.safe import printable

HOST = "127.0.0.1"
PORT = 8765
MORE_PORTS = 20  # that are tried when nobody asked for a certain one
LINGER = 60.0  # seconds after a run and its last page, until a server that belongs to it ends
START_SECONDS = 5.0
NICE = 10
OUTPUT = "watch.log"  # in the folder of trackers of the run
_ADDRESS = re.compile(rb"^(http://([^\s/]+):(\d+)/?)\s", re.MULTILINE)
_MOST_CONNECTIONS = 256
_started: list[subprocess.Popen[bytes]] = []  # kept, or Python would warn of forgetting them


def watch(
    names: Sequence[str],
    host: str = HOST,
    port: int | None = None,
    *,
    open_page: bool = False,
    for_pid: int | None = None,
) -> None:
    """Serve the runs of the folders `names` until Ctrl-C; writes nothing into them.

    Without `port`, the first free one from 8765 on. With `for_pid`, it ends by itself some time
    after that process has, once no page is connected.

    Raises:
        ConfigError: a folder is not there, or the address cannot be used.
    """
    if open_page and not is_loopback(host):
        # A token would stand in the command line of the browser, which every user can list.
        raise ConfigError(f"--open: not with --host {host}; open the address that is printed")
    folders = Folders(named_folders(names))
    os.nice(NICE)  # whoever trains goes first
    listener = _listen(host, port)
    real_port: int = listener.getsockname()[1]
    if port is None and real_port != PORT:
        click.echo(f"port {PORT} is taken: using {real_port}", err=True)
    token = None if is_loopback(host) else new_token()
    address = _address(host, real_port, token)
    click.echo(_greeting(address, host, real_port))
    if not folders.folders[0].exists():
        click.echo(f"{printable(str(folders.folders[0]))}: no such folder yet", err=True)
    if open_page:
        webbrowser.open(address)
    _serve(folders, listener, host, token, for_pid)


def start_watching(run: Path) -> str:
    """Start `sft watch` for a run in a process of its own, which outlives ours by a minute.

    Returns its address, or a sentence that says why there is none. Never raises: a page that
    cannot be shown is no reason not to train.
    """
    try:
        return _start(run)
    except Exception as error:
        return f"no page to watch: {type(error).__name__}: {error}"


def _start(run: Path) -> str:
    # -P: nothing in the folder we are in is taken for a module of the server's.
    command = [sys.executable, "-P", "-m", "sft", "watch", str(run.resolve())]
    command += ["--for-pid", str(os.getpid())]
    folder = run / "trackers"
    folder.mkdir(exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(folder / OUTPUT, flags, 0o666), "r+b") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # the Ctrl-C of the training is not for the page
        )
        _started.append(process)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            match = _ADDRESS.search(os.pread(output.fileno(), 4096, 0))
            if match and _is_up(match[2].decode(), int(match[3])):
                return match[1].decode()
            if process.poll() is not None:
                last = os.pread(output.fileno(), 4096, 0).decode(errors="replace").strip()
                return f"no page to watch: {printable(last.rpartition(chr(10))[2])}"
            time.sleep(0.02)
    return f"no page to watch yet; its address will be in {folder / OUTPUT}"


def _is_up(host: str, port: int) -> bool:
    """Does a server answer there?"""
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/token")
        return connection.getresponse().status == 204
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listen(host: str, port: int | None) -> socket.socket:
    """A listening socket on `port`, or on the first free one where none was asked for."""
    ports = [port] if port is not None else range(PORT, PORT + 1 + MORE_PORTS)
    reason: OSError | None = None
    for tried in ports:
        try:
            return _bound(host, tried)
        except OSError as error:
            reason = error
            if isinstance(error, socket.gaierror):
                break
    detail = reason.strerror if reason else ""
    where = f"port {port}" if port is not None else f"any port from {PORT} to {PORT + MORE_PORTS}"
    raise ConfigError(f"--host {host}: cannot listen on {where} ({detail}); choose another --port")


def _bound(host: str, port: int) -> socket.socket:
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # The address of IPv4 first: that is what 127.0.0.1 and localhost are to everyone.
    family, kind, protocol, _, address = min(entries, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _address(host: str, port: int, token: str | None) -> str:
    """What to paste into a browser. The token stands behind #, which no server is ever sent."""
    name = socket.gethostname() if _is_any(host) else host.strip("[]")
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"#token={token}" if token else "")


def _greeting(address: str, host: str, port: int) -> str:
    hint = "Ctrl-C ends it"
    if is_loopback(host):
        there = f"{_user()}@{socket.gethostname()}"
        hint += f"; from another machine: ssh -L {port}:127.0.0.1:{port} {there}"
    return f"{address}  ({printable(hint)})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container without names
        return "USER"


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


class _Life:
    """Until when a server that belongs to a process goes on: one minute after the last need."""

    def __init__(self, pid: int | None, num_pages: Callable[[], int]) -> None:
        self._pid = pid
        # The parent is told apart from a later process with its number, and from its own corpse.
        self._is_parent = pid == os.getppid()
        self._num_pages = num_pages
        self._needed = time.monotonic()

    def is_over(self) -> bool:
        """To be asked now and then."""
        if self._pid is None:
            return False
        if self._num_pages() or self._is_alive(self._pid):
            self._needed = time.monotonic()
        return time.monotonic() - self._needed > LINGER

    def _is_alive(self, pid: int) -> bool:
        if self._is_parent:
            return os.getppid() == pid
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


def _serve(
    folders: Folders, listener: socket.socket, host: str, token: str | None, for_pid: int | None
) -> None:
    import uvicorn

    from sft.dashboard.server import Service

    service = Service(folders)
    life = _Life(for_pid, lambda: service.watcher.num_streams)

    class Server(uvicorn.Server):
        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or (counter % 5 == 0 and life.is_over())

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.watcher.stop()  # or it would wait for pages that never leave
            await super().shutdown(sockets)

    gate: Any = Gate(service, host, listener.getsockname()[1], token)
    config = uvicorn.Config(
        gate,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    Server(config).run(sockets=[listener])
