"""Who may ask this server for what, decided before anything else looks at the request.

A web page that is open in the same browser can send requests to every server of this machine, and
with a name of its own that leads to 127.0.0.1 it could read the answers. So: the `Host` must be
ours, only GET and HEAD exist, other sites are refused, and no header lets one of them read.
Nothing is ever decided on `request.url`, which is built from what the client claims.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

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
_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
TOKEN_HEADER = b"x-token"
TOKEN_PATH = "/token"
# Without the cookie: the page itself, which asks for it, and what the page is made of.
_OPEN_PATHS = ("/", TOKEN_PATH, "/plotly.min.js")
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

    def __init__(self, app: App, host: str, port: int, token: str | None = None) -> None:
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
                message["headers"] = with_defaults(message.get("headers", []))
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await _answer(guarded, *refused)
        elif scope["path"] == TOKEN_PATH:
            await self._exchange(scope, guarded)
        elif self._token is not None and not self._may(scope):
            text = "open the address that `sft watch` printed, with its token"
            await _answer(guarded, 401, text)
        else:
            await self._app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason, when the request is refused whoever sends it."""
        headers: Headers = scope["headers"]
        if not self._is_ours(values(headers, b"host")):
            return 421, (
                "this name is none of this server's; use the address that `sft watch` printed "
                "(through ssh -L with the same port on both sides), or start it with --host NAME"
            )
        if scope["method"] not in METHODS:
            return 405, "only GET and HEAD: nothing can be changed here"
        # `GET http://other/ HTTP/1.1` names a host too, which would win over the header.
        if not scope["raw_path"].startswith(b"/"):
            return 421, "the request line must hold a path"
        sites = {value.lower() for value in values(headers, b"sec-fetch-site")}
        modes = {value.lower() for value in values(headers, b"sec-fetch-mode")}
        if b"cross-site" in sites or (b"same-site" in sites and modes != {b"navigate"}):
            return 403, (
                "requests of other web sites are refused; paste the address instead of following "
                "a link"
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

    async def _exchange(self, scope: Scope, send: Send) -> None:
        """The token for a cookie. Without a token there is nothing to exchange, and no need."""
        if self._token is None:
            await _answer(send, 204)
            return
        given = values(scope["headers"], TOKEN_HEADER)
        if len(given) != 1 or not _same(given[0], self._token):
            await _answer(send, 401, "not the token of this server")
            return
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        await _answer(send, 204, headers=[(b"set-cookie", cookie.encode())])

    def _may(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return True
        try:
            cookies = SimpleCookie(b"; ".join(values(scope["headers"], b"cookie")).decode("latin1"))
        except CookieError:
            return False
        cookie = cookies.get(self._cookie)
        return cookie is not None and _same(cookie.value.encode(), self._token or "")


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """All values of a header; names are in lower case, as ASGI has them."""
    return [value.strip() for key, value in headers if key == name]


def with_defaults(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of an answer with those of every answer, which it may set otherwise."""
    given = list(headers)
    names = {name.lower() for name, _ in given}
    return given + [(name, value) for name, value in _HEADERS.items() if name not in names]


async def _answer(send: Send, status: int, error: str = "", headers: Headers | None = None) -> None:
    body = json.dumps({"error": error}).encode() if error else b""
    fields = list(headers or [])
    if status == 405:
        fields.append((b"allow", ", ".join(METHODS).encode()))
    if body:
        fields.append((b"content-type", b"application/json"))
        fields.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


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
