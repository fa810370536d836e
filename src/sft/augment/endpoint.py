"""A model behind an OpenAI-compatible /v1/chat/completions: threads, retries, cache, budget.

The API key is read from an environment variable, sent to the one address that was given, and
neither written nor shown. Redirects are not followed, because they would carry the key elsewhere.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
from tenacity import Retrying, sleep_using_event, stop_after_attempt, wait_exponential_jitter
from tenacity import retry_if_exception as retry_if

from sft.augment.ask import Reply, Request
from sft.augment.budget import Bill, Estimate, Prices, estimate
from sft.augment.cache import Cache, request_key
from sft.errors import ConfigError, SFTError

PATH = "/chat/completions"
LONGEST_WAIT = 120.0  # seconds; a server that asks for more is asked later, not waited for longer
STOP_AFTER = 10  # failures in a row, with nothing answered in between
OVER_BUDGET = "the budget was reached"
MAX_ANSWER_BYTES = 10 * 1024 * 1024
NOT_ASKED = "not asked, because the endpoint failed"
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Which endpoint, and how it is asked. `options` go into every request, null removes a key."""

    url: str
    model: str
    api_key_env: str | None = None  # must be set; None: OPENAI_API_KEY, which need not be
    requests_per_minute: float | None = None
    parallel: int = 4
    timeout: float = 60.0  # seconds
    retries: int = 5
    backoff: float = 1.0  # seconds before the first retry; doubled each time
    options: Mapping[str, Any] = field(default_factory=dict)
    prices: Prices | None = None
    budget: float | None = None  # US dollars

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

    @property
    def key_name(self) -> str:
        """The environment variable that the key is read from."""
        return self.api_key_env or "OPENAI_API_KEY"

    def api_key(self) -> str:
        """The key, or "" where none is set, as for a local server.

        Raises:
            ConfigError: the variable was asked for and is not set.
        """
        key = os.environ.get(self.key_name, "").strip()
        if self.api_key_env and not key:
            raise ConfigError(f"--api-key-env: the environment has no {self.api_key_env}")
        parts = urlsplit(self.address)
        if key and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise ConfigError(
                f"--endpoint: {parts.hostname} would get the key of {self.key_name} "
                "unencrypted; use https, or unset the variable"
            )
        return key


class _Refused(SFTError):
    """The endpoint will refuse every request in this way: no use in asking on."""


class _Failed(Exception):
    """One request failed; `again` says whether it may be repeated."""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class Endpoint:
    """A `Writer` that asks over HTTP. Answers do not depend on the number of threads."""

    def __init__(
        self,
        settings: EndpointSettings,
        cache: Cache,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self.bill = Bill(settings.prices, settings.budget)
        self._settings, self._cache = settings, cache
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

    def key_of(self, request: Request) -> str:
        """Where the answer to `request` is in the cache."""
        return request_key({"address": self._address, "body": self._body(request)})

    def estimate(self, requests: Sequence[Request]) -> Estimate:
        """What asking takes, without what is known already."""
        new = [request for request in requests if not self._cache.get(self.key_of(request))]
        return estimate(new, len(requests) - len(new), self._settings.prices)

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply to each; one that could not be had says why.

        Raises:
            SFTError: the endpoint refuses or fails whatever is asked. What was answered is kept.
        """
        with self._client, ThreadPoolExecutor(self._settings.parallel) as pool:
            futures = [pool.submit(self._reply, request) for request in requests]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    self._on_progress(done, len(requests))
            except BaseException:  # Ctrl-C above all: what was not begun is not begun any more
                self._stop(SFTError(NOT_ASKED))
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self._stopped:
            raise self._stopped
        return [future.result() for future in futures]

    def _reply(self, request: Request) -> Reply:
        key = self.key_of(request)
        if known := self._cache.get(key):
            return _as_reply(known)
        if self._stopped:
            return Reply(problem=NOT_ASKED)
        reserved = self.bill.reserve(request)
        if reserved is None:
            return Reply(problem=OVER_BUDGET)
        answer, problem = None, NOT_ASKED
        try:
            answer = self._ask(request)
        except SFTError as error:
            self._stop(error)
        except _Failed as error:
            self._count_failure(error)
            problem = f"endpoint: {error}"
        self.bill.settle(request, reserved, answer)
        if answer is None:
            return Reply(problem=problem)
        self._failures, self._any_answer = 0, True
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
        backoff = self._settings.backoff
        attempts = Retrying(
            stop=stop_after_attempt(self._settings.retries + 1),
            retry=retry_if(lambda error: isinstance(error, _Failed) and error.again),
            wait=wait_exponential_jitter(backoff, LONGEST_WAIT, jitter=backoff),
            sleep=sleep_using_event(self._halt),
            reraise=True,
        )
        return attempts(self._post, json.dumps(self._body(request)))

    def _wait_for_turn(self) -> None:
        """Sleep until the rate, and the server that asked to wait, allow another request."""
        rate = self._settings.requests_per_minute
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + (60.0 / rate if rate else 0.0)
        self._halt.wait(max(0.0, start - time.monotonic()))
        if self._stopped:
            raise _Failed(NOT_ASKED, again=False)

    def _post(self, body: str) -> dict[str, Any]:
        self._wait_for_turn()
        try:
            with self._client.stream("POST", self._address, content=body) as response:
                content = _limited(response)
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
            unset = "" if self._key else ", which is not set"
            return _Refused(
                f"--endpoint: {text}. The key is read from {self._settings.key_name}{unset}"
            )
        if status == 404:
            return _Refused(f"--endpoint: {self._address}, model {self._settings.model}: {text}")
        if response.is_redirect:
            return _Refused(f"--endpoint: {text}. It points elsewhere; give the address itself")
        wait = min(LONGEST_WAIT, _retry_after(response.headers.get("Retry-After", "")))
        with self._lock:  # a wait that the server asked for holds for all threads
            self._next_start = max(self._next_start, time.monotonic() + wait)
        return _Failed(text, again=status in (408, 409, 425, 429) or status >= 500)

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
    with suppress(ValueError):
        return max(0.0, float(value))  # also of NaN
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def _limited(response: httpx.Response) -> bytes:
    """The body, which may be as long as an answer ever is: an endpoint may send without end."""
    content = b""
    for part in response.iter_bytes():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise _Failed(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes", again=False)
    return content


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
