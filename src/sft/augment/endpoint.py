"""A model behind an OpenAI-compatible /v1/chat/completions: threads, retries, cache, budget.

The API key is read from an environment variable, sent to the one address that was given, and
neither written nor shown. Redirects are not followed, because they would carry the key elsewhere.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from sft.augment.ask import Reply, Request
from sft.augment.budget import Bill, likely_sent
from sft.augment.cache import Cache, request_key
from sft.errors import ConfigError, SFTError

PATH = "/chat/completions"
MAX_ANSWER_BYTES = 10 * 1024 * 1024
LONGEST_WAIT = 120.0  # seconds; a server that asks for more is asked later, not waited for longer
STOP_AFTER = 10  # failures in a row, with nothing answered in between
OVER_BUDGET = "the budget was reached"
NOT_ASKED = "not asked, because the endpoint failed"


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Which endpoint, and how it is asked. `options` go into every request, null removes a key."""

    url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    key_required: bool = False
    requests_per_minute: float | None = None
    parallel: int = 4
    timeout: float = 60.0  # seconds
    retries: int = 5
    backoff: float = 1.0  # seconds before the first retry; doubled each time
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The full address that requests go to.

        Raises:
            ConfigError: it is no http address.
        """
        parts = urlsplit(self.url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"--endpoint: expected an address such as http://localhost:8000/v1, "
                f"found {self.url!r:.100}"
            )
        if parts.username or parts.password:
            raise ConfigError("--endpoint: give no password in the address; see --api-key-env")
        url = self.url.strip().rstrip("/")
        if url.endswith(PATH):
            return url
        return url + (PATH if parts.path.strip("/") else f"/v1{PATH}")

    def api_key(self) -> str:
        """The key, or "" where none is set, as for a local server.

        Raises:
            ConfigError: the variable was asked for and is not set.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if self.key_required and not key:
            raise ConfigError(f"--api-key-env: the environment has no {self.api_key_env}")
        parts = urlsplit(self.address)
        if key and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise ConfigError(
                f"--endpoint: {parts.hostname} would get the key of {self.api_key_env} "
                "unencrypted; use https, or unset the variable"
            )
        return key


_LOCAL = ("localhost", "127.0.0.1", "::1")


class _Refused(SFTError):
    """The endpoint will refuse every request in this way: no use in asking on."""


class _Failed(Exception):
    """One request failed; `wait` seconds were asked for, and `again` says if it may be repeated."""

    def __init__(self, reason: str, again: bool, wait: float | None = None) -> None:
        super().__init__(reason)
        self.again = again
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Never."""


class Endpoint:
    """A `Writer` that asks over HTTP. Answers do not depend on the number of threads."""

    def __init__(
        self,
        settings: EndpointSettings,
        cache: Cache,
        bill: Bill,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self._settings = settings
        self._address = settings.address
        self._key = settings.api_key()
        self._cache = cache
        self._bill = bill
        self._on_progress = on_progress
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._lock = threading.Lock()
        self._next_start = 0.0  # time.monotonic() before which nothing is sent
        self._failures = 0
        self._any_answer = False
        self._stopped: SFTError | None = None
        self._halt = threading.Event()  # ends every wait once there is no use in going on
        self._done = 0

    def key_of(self, request: Request) -> str:
        """Where the answer to `request` is in the cache."""
        return request_key({"address": self._address, "body": self._body(request)})

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply to each; one that could not be had says why.

        Raises:
            SFTError: the endpoint refuses or fails whatever is asked. What was answered is kept.
        """
        self._done, total = 0, len(requests)

        def one(request: Request) -> Reply:
            try:
                reply = self._reply(request)
                with self._lock:
                    self._done += 1
                    self._on_progress(self._done, total)
            except BaseException:  # the others, whose results are awaited first, may be waiting
                self._stop(SFTError(NOT_ASKED))
                raise
            return reply

        with ThreadPoolExecutor(max(1, self._settings.parallel)) as pool:
            futures = [pool.submit(one, request) for request in requests]
            try:
                replies = [future.result() for future in futures]
            except BaseException:  # Ctrl-C above all: what was not begun is not begun any more
                self._stop(SFTError(NOT_ASKED))
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self._stopped:
            raise self._stopped
        return replies

    def _reply(self, request: Request) -> Reply:
        key = self.key_of(request)
        if known := self._cache.get(key):
            return _as_reply(known)
        if self._stopped:
            return Reply(problem=NOT_ASKED)
        reserved = self._bill.reserve(request)
        if reserved is None:
            return Reply(problem=OVER_BUDGET)
        try:
            answer = self._ask(request)
        except SFTError as error:
            self._stop(error)
            self._bill.release(reserved)
            return Reply(problem=NOT_ASKED)
        except _Failed as error:
            self._bill.release(reserved)
            self._count_failure(error)
            return Reply(problem=f"endpoint: {error}")
        self._failures, self._any_answer = 0, True
        guessed = answer["sent"] is None
        sent = likely_sent(request) if guessed else answer["sent"]
        received = len(answer["text"]) // 4 if answer["received"] is None else answer["received"]
        self._bill.settle(request, reserved, sent, received, guessed=guessed)
        self._cache.put(key, answer)
        return _as_reply(answer)

    def _stop(self, error: SFTError) -> None:
        """Ask no more; the first error is the one that is told."""
        self._stopped = self._stopped or error
        self._halt.set()

    def _count_failure(self, error: _Failed) -> None:
        """Stop after too many in a row. What only one request is to blame for does not count."""
        if self._any_answer and not error.again:
            return
        with self._lock:
            self._failures += 1
            num = self._failures
        if num >= STOP_AFTER:
            self._stop(
                SFTError(
                    f"the endpoint failed {num} times in a row, the last time with: {error}. What "
                    "was answered is kept; the same command goes on from there"
                )
            )

    def _ask(self, request: Request) -> dict[str, Any]:
        """The answer, after as many attempts as allowed; raises what the last one failed with."""
        data = json.dumps(self._body(request)).encode("utf-8", "replace")
        rng = random.Random(data)
        for attempt in range(self._settings.retries + 1):
            self._wait_for_turn()
            try:
                return self._post(data)
            except _Failed as error:
                if not error.again or attempt == self._settings.retries or self._stopped:
                    raise
                wait = self._settings.backoff * 2**attempt * rng.uniform(0.5, 1.0)
                self._pause(min(LONGEST_WAIT, max(wait, error.wait or 0.0)), bool(error.wait))
        raise AssertionError("the last attempt returns or raises")

    def _wait_for_turn(self) -> None:
        """Sleep until the rate allows another request."""
        rate = self._settings.requests_per_minute
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + (60.0 / rate if rate else 0.0)
        self._halt.wait(max(0.0, start - time.monotonic()))

    def _pause(self, seconds: float, everyone: bool) -> None:
        """Wait; a wait that the server asked for holds for all threads."""
        if everyone:
            with self._lock:
                self._next_start = max(self._next_start, time.monotonic() + seconds)
        self._halt.wait(seconds)

    def _post(self, data: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": "sft"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._address, data, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._settings.timeout) as response:
                found = response.read(MAX_ANSWER_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._http_problem(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if (
                isinstance(reason, ConnectionRefusedError | socket.gaierror)
                and not self._any_answer
            ):
                raise _Refused(
                    f"--endpoint: nothing answers at {self._address} ({reason})"
                ) from None
            raise _Failed(self._clean(f"no answer ({reason})"), again=True) from None
        return _parse(found)

    def _http_problem(self, error: urllib.error.HTTPError) -> Exception:
        try:
            said = error.read(2000).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            said = ""
        text = self._clean(f"HTTP {error.code}: {' '.join(said.split())[:300] or error.reason}")
        if error.code in (401, 403):
            return _Refused(
                f"--endpoint: {text}. The key is read from {self._settings.api_key_env}"
                + ("" if self._key else ", which is not set")
            )
        if error.code == 404:
            return _Refused(f"--endpoint: {self._address}, model {self._settings.model}: {text}")
        if 300 <= error.code < 400:
            return _Refused(f"--endpoint: {text}. It points elsewhere; give the address itself")
        again = error.code in (408, 409, 425, 429) or error.code >= 500
        return _Failed(text, again, _retry_after(error.headers.get("Retry-After")))

    def _clean(self, text: str) -> str:
        """`text` without the key, which servers like to repeat."""
        return text.replace(self._key, "***") if self._key else text

    def _body(self, request: Request) -> dict[str, Any]:
        body = {
            "model": self._settings.model,
            "messages": request.as_dicts(),
            "max_tokens": request.max_tokens,
            "temperature": 0.7,
            **self._settings.options,
        }
        return {name: value for name, value in body.items() if value is not None}


def _retry_after(value: str | None) -> float | None:
    """Seconds of the header `Retry-After`, which holds them or a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _parse(found: bytes) -> dict[str, Any]:
    """Text, reason of its end, and tokens (None where not told) of an answer."""
    if len(found) > MAX_ANSWER_BYTES:
        raise _Failed(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes", again=False)
    try:
        answer = json.loads(found)
        choice = answer["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise _Failed(f"no chat completion: {found[:80]!r}", again=True) from None
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return {
        "text": text if isinstance(text, str) else "",
        "finish_reason": str(choice.get("finish_reason") or ""),
        "sent": _count(usage.get("prompt_tokens")),
        "received": _count(usage.get("completion_tokens")),
    }


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _as_reply(answer: Mapping[str, Any]) -> Reply:
    if answer.get("finish_reason") == "length":
        return Reply(problem="cut off at its length limit")
    text = str(answer.get("text", ""))
    return Reply(text) if text.strip() else Reply(problem="empty")
