"""A model behind an OpenAI-compatible /v1/chat/completions: threads, retries, cache, budget.

The API key is read from an environment variable, sent to the one address that was given, and
neither written nor shown. Redirects are not followed, because they would carry the key elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_exponential_jitter
from tenacity import retry_if_exception as retry_if

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

    def __init__(self, reason: str, again: bool, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.wait = wait


class Endpoint:
    """A `Writer` that asks over HTTP. Answers do not depend on the number of threads."""

    def __init__(
        self,
        settings: EndpointSettings,
        cache: Cache,
        bill: Bill,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self._settings, self._cache, self._bill = settings, cache, bill
        self._address = settings.address
        self._key = settings.api_key()
        self._on_progress = on_progress
        headers = {"Content-Type": "application/json", "User-Agent": "sft"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx.Client(headers=headers, timeout=settings.timeout)
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

        with self._client, ThreadPoolExecutor(max(1, self._settings.parallel)) as pool:
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
        attempts = Retrying(
            stop=stop_after_attempt(self._settings.retries + 1),
            retry=retry_if(lambda error: isinstance(error, _Failed) and error.again),
            wait=self._wait_seconds,
            sleep=self._pause,
            reraise=True,
        )
        return attempts(self._post, json.dumps(self._body(request)))

    def _wait_seconds(self, attempts: RetryCallState) -> float:
        """Before the next attempt; a wait that the server asked for holds for all threads."""
        backoff = self._settings.backoff
        seconds = wait_exponential_jitter(backoff, LONGEST_WAIT, jitter=backoff)(attempts)
        error = attempts.outcome.exception() if attempts.outcome else None
        if isinstance(error, _Failed) and error.wait:
            seconds = min(LONGEST_WAIT, max(seconds, error.wait))
            with self._lock:
                self._next_start = max(self._next_start, time.monotonic() + seconds)
        return seconds

    def _pause(self, seconds: float) -> None:
        self._halt.wait(seconds)

    def _wait_for_turn(self) -> None:
        """Sleep until the rate allows another request."""
        rate = self._settings.requests_per_minute
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + (60.0 / rate if rate else 0.0)
        self._pause(max(0.0, start - time.monotonic()))
        if self._stopped:
            raise _Failed(NOT_ASKED, again=False)

    def _post(self, body: str) -> dict[str, Any]:
        self._wait_for_turn()
        content = b""
        try:
            with self._client.stream("POST", self._address, content=body) as response:
                for part in response.iter_bytes():
                    content += part
                    if len(content) > MAX_ANSWER_BYTES:
                        size = f"more than {MAX_ANSWER_BYTES:,} bytes"
                        raise _Failed(f"an answer of {size}", again=False)
        except httpx.HTTPError as error:
            if isinstance(error, httpx.ConnectError) and not self._any_answer:
                text = f"--endpoint: nothing answers at {self._address} ({error})"
                raise _Refused(text) from None
            raise _Failed(self._clean(f"no answer ({error})"), again=True) from None
        if not response.is_success:
            raise self._problem(response, content)
        return _parse(content)

    def _problem(self, response: httpx.Response, content: bytes) -> Exception:
        """What a status other than success means: for this request, or for all."""
        status = response.status_code
        details = " ".join(content[:2000].decode("utf-8", "replace").split())[:300]
        text = self._clean(f"HTTP {status}: {details or response.reason_phrase}")
        if status in (401, 403):
            return _Refused(
                f"--endpoint: {text}. The key is read from {self._settings.api_key_env}"
                + ("" if self._key else ", which is not set")
            )
        if status == 404:
            return _Refused(f"--endpoint: {self._address}, model {self._settings.model}: {text}")
        if response.is_redirect:
            return _Refused(f"--endpoint: {text}. It points elsewhere; give the address itself")
        again = status in (408, 409, 425, 429) or status >= 500
        return _Failed(text, again, _retry_after(response.headers.get("Retry-After", "")))

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


def _retry_after(value: str) -> float:
    """Seconds of the header `Retry-After`, which holds them or a date; 0 where it says neither."""
    seconds = 0.0
    with suppress(ValueError, TypeError):
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    with suppress(ValueError):
        seconds = float(value)
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _parse(content: bytes) -> dict[str, Any]:
    """Text, reason of its end, and tokens (None where not told) of an answer."""
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        text = choice["message"]["content"]
        usage = answer.get("usage")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _Failed(f"no chat completion: {content[:80]!r}", again=True) from None
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
