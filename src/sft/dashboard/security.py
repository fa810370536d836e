"""Who may ask this server for what, decided before anything else looks at the request.

A web page that is open in the same browser can send requests to every server of this machine, and
with a name of its own that leads to 127.0.0.1 it could read the answers. So: the `Host` must be
ours, only GET and HEAD exist, other sites are refused, and no header lets one of them read.
Nothing is ever decided on `request.url`, which is built from what the client claims.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The report holds its styles and pictures in itself, and no script at all.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox"
)
_HEADERS = {  # of every answer, which may set them otherwise
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
TOKEN_HEADER = b"x-token"
TOKEN_PATH = "/token"
# Without the cookie: the page itself, which asks for it, and what the page is made of.
_OPEN_PATHS = ("/", "/plotly.min.js")
_OPEN_FOLDER = "/static/"


def new_token() -> str:
    """A secret for one start of the server."""
    return secrets.token_urlsafe(32)


def is_loopback(host: str) -> bool:
    """Can only this machine reach `host`? A name counts when all its addresses do."""
    try:
        return _address(host).is_loopback
    except ValueError:
        pass
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return all(_address(str(entry[4][0])).is_loopback for entry in entries)
    except (OSError, ValueError):
        return False


class Gate:
    """The ASGI application in front of the real one. `host` and `port` are what it is bound to.

    With a `token`, everything but the page itself needs the cookie that the token is exchanged
    for; without one the address must be loopback.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, token: str | None = None) -> None:
        self._app = app
        self._hosts, self._any_address = _allowed_hosts(host)
        self._port = port
        self._token = token
        # Cookies are shared by all ports of a host: two servers must not overwrite each other's.
        self._cookie = f"sft-watch-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the real application answer; all answers carry the same headers."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope) or self._token_answer(scope) or self._app
        await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is refused whoever sends it."""
        if not self._is_ours(values(scope, b"host")):
            return _error(
                421,
                "this name is none of this server's; use the address that `sft watch` printed "
                "(through ssh -L with the same port on both sides), or start it with --host NAME",
            )
        if scope["method"] not in METHODS:
            response = _error(405, "only GET and HEAD: nothing can be changed here")
            response.headers["allow"] = ", ".join(METHODS)
            return response
        # `GET http://other/ HTTP/1.1` names a host too, which would win over the header.
        if not scope["raw_path"].startswith(b"/"):
            return _error(421, "the request line must hold a path")
        sites = {value.lower() for value in values(scope, b"sec-fetch-site")}
        modes = {value.lower() for value in values(scope, b"sec-fetch-mode")}
        if b"cross-site" in sites or (b"same-site" in sites and modes != {b"navigate"}):
            return _error(
                403,
                "requests of other web sites are refused; paste the address instead of following "
                "a link",
            )
        return None

    def _is_ours(self, hosts: list[bytes]) -> bool:
        if len(hosts) != 1:
            return False
        try:
            name, port = _split(hosts[0].decode("ascii").lower())
        except (UnicodeDecodeError, ValueError):
            return False
        if port != self._port:
            return False
        if name in self._hosts:
            return True
        # A name can be made to lead here by whoever owns it; an address cannot.
        return self._any_address and _is_address(name)

    def _token_answer(self, scope: Scope) -> Response | None:
        """A cookie for the token, or why there is nothing without one; None: let it in."""
        path: str = scope["path"]
        if path == TOKEN_PATH:
            # Without a token there is nothing to exchange, and no need.
            response = Response(status_code=204)
            if self._token is not None:
                given = values(scope, TOKEN_HEADER)
                if len(given) != 1 or not _same(given[0], self._token):
                    return _error(401, "not the token of this server")
                cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
                response.headers["set-cookie"] = cookie
            return response
        if self._token is None or path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return None
        cookie = Request(scope).cookies.get(self._cookie, "")
        if _same(cookie.encode(), self._token):
            return None
        return _error(401, "open the address that `sft watch` printed, with its token")


def values(scope: Scope, name: bytes) -> list[bytes]:
    """All values of a header; names are in lower case, as ASGI has them."""
    return [value.strip() for key, value in scope["headers"] if key == name]


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


def _same(given: bytes, token: str) -> bool:
    """Compared in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given, token.encode())


def _allowed_hosts(host: str) -> tuple[set[str], bool]:
    """Names that a browser may call us, and whether it may also be any address."""
    host = host.strip("[]").lower()
    names = {host}
    if host in ("0.0.0.0", "::"):
        return {"127.0.0.1", "localhost", "::1", socket.gethostname().lower()}, True
    if is_loopback(host):
        names |= {"127.0.0.1", "localhost", "::1"}
    return names, False


def _split(host: str) -> tuple[str, int]:
    """`name:port`, `[address]:port` or `name` of a Host header; the port of http is 80."""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        if not bracket or ":" not in name:
            raise ValueError(host)
    else:
        name, _, rest = host.partition(":")
        rest = f":{rest}" if _ else ""
    if not rest:
        return name, 80
    digits = rest.removeprefix(":")
    if rest == digits or not digits.isascii() or not digits.isdigit():
        raise ValueError(host)
    return name, int(digits)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text.strip("[]").partition("%")[0])


def _is_address(name: str) -> bool:
    try:
        _address(name)
    except ValueError:
        return False
    return True
