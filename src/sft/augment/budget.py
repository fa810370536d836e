"""What the requests cost: an estimate before, the bill after, and a limit that is never crossed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sft.augment.ask import Request

CHARS_PER_TOKEN = 4.0  # of English; the estimate is no more than that
MESSAGE_TOKENS = 8  # what a chat template adds around a message
ANSWER_SHARE = 0.35  # of the tokens that are sent, an answer usually takes


class Prices(NamedTuple):
    """US dollars per million tokens."""

    sent: float
    received: float


def dollars(prices: Prices | None, sent: float, received: float) -> float | None:
    """The price of so many tokens; None where it is not known."""
    return prices and (sent * prices.sent + received * prices.received) / 1e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """What asking will take, roughly; `dollars` is None without prices."""

    num_requests: int
    num_cached: int
    sent: int
    received: int
    dollars: float | None

    def sentence(self) -> str:
        """One line for the user."""
        text = f"{self.num_requests:,} requests"
        if self.num_cached:
            text += f" ({self.num_cached:,} more are answered already)"
        text += f", about {self.sent:,} tokens sent and {self.received:,} received"
        return text + (f", about ${self.dollars:.4f}" if self.dollars is not None else "")


def estimate(requests: Sequence[Request], num_cached: int, prices: Prices | None) -> Estimate:
    """The cost of `requests`, none of which is cached, at four characters a token."""
    sent = sum(likely_sent(request) for request in requests)
    received = round(sum(min(r.max_tokens, ANSWER_SHARE * likely_sent(r)) for r in requests))
    return Estimate(len(requests), num_cached, sent, received, dollars(prices, sent, received))


def likely_sent(request: Request) -> int:
    """Tokens of a request, at four characters each."""
    return round(request.num_chars / CHARS_PER_TOKEN) + MESSAGE_TOKENS * len(request.messages)


def most_sent(request: Request) -> int:
    """Tokens that a request cannot exceed: a token spells a byte at least."""
    size = sum(len(content.encode("utf-8", "replace")) for _, content in request.messages)
    return size + 4 * MESSAGE_TOKENS * len(request.messages)


class Bill:
    """Counts tokens and dollars, and says no before the limit could be crossed.

    What is under way counts with the most it could cost. What the provider adds to a request (a
    system message of its own) is learned from its first bill. Tokens are those that it tells; a
    request that was given up after a time-out may be on its invoice all the same. Threads may
    share it.
    """

    def __init__(self, prices: Prices | None, limit: float | None = None) -> None:
        self._prices = prices
        self._limit = limit
        self._lock = threading.Lock()
        self._reserved = 0.0
        self._added = 0  # tokens billed beyond what a request can hold
        self.sent = 0
        self.received = 0
        self.num_requests = 0
        self.num_guessed = 0  # answers that did not say how many tokens they took

    @property
    def dollars(self) -> float | None:
        """Spent so far."""
        return dollars(self._prices, self.sent, self.received)

    def sentence(self) -> str:
        """What was asked and paid, in one line."""
        cost = "" if self.dollars is None else f", ${self.dollars:.4f}"
        return (
            f"asked: {self.num_requests:,} requests, {self.sent:,} tokens sent and "
            f"{self.received:,} received{cost}"
        )

    def record(self) -> dict[str, Any]:
        """The same for the summary."""
        return {
            "requests": self.num_requests,
            "tokens_sent": self.sent,
            "tokens_received": self.received,
            "answers_without_usage": self.num_guessed,
            "dollars": self.dollars,
        }

    def reserve(self, request: Request) -> float | None:
        """Set aside the most that `request` can cost; None when the limit does not allow it."""
        with self._lock:
            sent = most_sent(request) + self._added
            most = dollars(self._prices, sent, request.max_tokens) or 0.0
            spent = (self.dollars or 0.0) + self._reserved
            if self._limit is not None and spent + most > self._limit:
                return None
            self._reserved += most
        return most

    def settle(self, request: Request, reserved: float, answer: Mapping[str, Any] | None) -> None:
        """Put what the answer took in place of what was set aside: nothing, where there is none."""
        with self._lock:
            self._reserved -= reserved
            if answer is None:
                return
            sent, received = answer["sent"], answer["received"]
            self.num_requests += 1
            self.num_guessed += sent is None
            sent = likely_sent(request) if sent is None else sent
            self._added = max(self._added, sent - most_sent(request))
            self.sent += sent
            self.received += len(answer["text"]) // 4 if received is None else received
