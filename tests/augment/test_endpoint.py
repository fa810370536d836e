"""Asking over HTTP: what goes wrong is tried again, what is known is not asked, money is kept."""

import json
import time
from email.utils import formatdate

import pytest

from sft.augment.ask import Reply, Request
from sft.augment.budget import Prices, dollars, estimate, most_sent
from sft.augment.cache import Cache
from sft.augment.endpoint import (
    MAX_ANSWER_BYTES,
    NOT_ASKED,
    OVER_BUDGET,
    STOP_AFTER,
    Endpoint,
    EndpointSettings,
)
from sft.errors import ConfigError, SFTError

KEY = "sk-very-secret"


def request(text, max_tokens=20):
    return Request((("user", text),), max_tokens)


@pytest.fixture
def ask(server, tmp_path):
    """`ask(*texts)`: the replies; `settings` are of the endpoint; a cache of its own each time.

    `ask.bill` is the bill of the last call.
    """
    number = iter(range(99))

    def call(*texts, cache=None, progress=lambda _d, _t: None, **settings):
        defaults = {"url": server.url, "model": "fake", "backoff": 0.01, "timeout": 5.0}
        path = tmp_path / (cache or f"cache{next(number)}.jsonl")
        with Cache(path) as known:
            endpoint = Endpoint(EndpointSettings(**defaults | settings), known, progress)
            call.bill = endpoint.bill
            return endpoint.write([request(text) for text in texts])

    return call


def test_replies_come_in_the_order_of_the_requests(ask, server):
    server.plan = [0.15, 0.0, 0.05]
    server.reply = str.upper
    seen = []
    replies = ask(*"abcdefgh", parallel=4, progress=lambda done, total: seen.append((done, total)))
    assert [reply.text for reply in replies] == list("ABCDEFGH")
    assert sorted(seen) == [(i, 8) for i in range(1, 9)]
    body = server.seen[0]
    assert body["model"] == "fake" and body["max_tokens"] == 20 and body["temperature"] == 0.7


@pytest.mark.parametrize(
    "trouble", [429, 500, 503, b"{", b'{"choices": []}', b"[]", b'{"error": "overloaded"}']
)
def test_what_goes_wrong_for_a_while_is_tried_again(ask, server, trouble):
    server.plan = [trouble, trouble, None]
    assert ask("a", parallel=1) == [Reply("In other words: a")]
    assert len(server.seen) == 3


def test_waits_double(ask, server):
    server.plan = [500] * 4
    ask("a", backoff=0.04)
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    for attempt, wait in enumerate(waits):
        assert wait >= 0.5 * 0.04 * 2**attempt


@pytest.mark.parametrize("as_date", [False, True])
def test_a_wait_the_server_asks_for_is_kept_by_all(ask, server, as_date):
    value = formatdate(time.time() + 2, usegmt=True) if as_date else "0.6"
    server.plan = [(429, {"Retry-After": value})]
    ask(*"abc", parallel=1)
    assert len(server.times) == 4 and server.times[1] - server.times[0] >= 0.55


def test_a_server_that_hangs_is_given_up(ask, server):
    server.plan = [1.0, 1.0]
    replies = ask("a", "b", timeout=0.1, retries=0, parallel=1)
    assert [reply.text for reply in replies] == ["", ""]
    assert all("endpoint: no answer (timed out)" in reply.problem for reply in replies)


def test_one_bad_request_stops_nothing(ask, server):
    server.plan = [None, 400, None]
    first, second, third = ask(*"abc", parallel=1)
    assert first.text and third.text and second.problem.startswith("endpoint: HTTP 400")
    assert len(server.seen) == 3  # not tried again


def test_a_server_that_only_fails_ends_it(ask, server):
    server.plan = [500] * 1000
    with pytest.raises(SFTError, match=f"failed {STOP_AFTER} times in a row.*HTTP 500"):
        ask(*map(str, range(40)), retries=1, parallel=2)
    assert 2 * STOP_AFTER <= len(server.seen) <= 2 * STOP_AFTER + 4


def test_many_refused_rows_in_a_row_are_not_the_server(ask, server):
    server.plan = [None, *[400] * 15]
    replies = ask(*map(str, range(20)), parallel=1)
    assert sum(bool(reply.text) for reply in replies) == 5


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "read from MY_KEY"), (403, "read from MY_KEY"), (404, "model fake"), (302, "elsewhere")],
)
def test_what_will_not_change_ends_it_at_once(ask, server, monkeypatch, status, message):
    monkeypatch.setenv("MY_KEY", KEY)
    server.plan = [(status, {"Location": server.url})] * 50
    with pytest.raises(SFTError, match=message) as raised:
        ask(*"abcdef", api_key_env="MY_KEY", parallel=1)
    assert len(server.seen) == 1 and raised.value.exit_code == 2
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(raised.value) and "***" in str(raised.value)


def test_the_key_is_never_written(ask, server, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.plan = [None, 400]
    _, bad = ask("a", "b", cache="known.jsonl", parallel=1)
    assert "***" in bad.problem and KEY not in bad.problem
    assert KEY not in (tmp_path / "known.jsonl").read_text()


def test_no_key_no_header(ask, server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ask("a")
    assert "Authorization" not in server.headers[0]


def test_what_is_known_is_not_asked_again(ask, server, tmp_path):
    first = ask(*"abc", cache="known.jsonl")
    assert len(server.seen) == 3
    assert ask(*"abc", cache="known.jsonl") == first and len(server.seen) == 3
    ask(*"abcd", cache="known.jsonl")
    assert len(server.seen) == 4
    for settings in ({"model": "other"}, {"options": {"temperature": 0}}):
        ask("a", cache="known.jsonl", **settings)
    assert len(server.seen) == 6
    with (tmp_path / "known.jsonl").open("a") as file:
        file.write('{"key": "torn')  # as when the power went
    ask(*"abc", cache="known.jsonl")
    assert len(server.seen) == 6


def test_what_was_answered_before_a_failure_is_kept(ask, server):
    server.plan = [None, None, *[500] * 100]
    with pytest.raises(SFTError):
        ask(*map(str, range(30)), cache="known.jsonl", retries=0, parallel=1)
    server.plan, before = [], len(server.seen)
    ask(*map(str, range(30)), cache="known.jsonl")
    assert len(server.seen) == before + 28


def test_the_rate_is_kept(ask, server):
    ask(*"abcdef", requests_per_minute=1200, parallel=6)
    times = sorted(server.times)
    assert times[-1] - times[0] >= 5 * 0.05 - 0.02


def test_options_are_sent_and_null_removes(ask, server):
    ask("a", options={"max_tokens": None, "max_completion_tokens": 9, "seed": 3})
    body = server.seen[0]
    assert "max_tokens" not in body and (body["max_completion_tokens"], body["seed"]) == (9, 3)


def test_an_answer_that_was_cut_or_is_empty_is_none(ask, server):
    server.finish = "length"
    assert ask("a") == [Reply(problem="cut off at its length limit")]
    server.finish, server.reply = "stop", lambda _text: "  "
    assert ask("a") == [Reply(problem="empty")]


def test_the_budget_is_never_crossed(ask, server):
    """The server bills 100 + 10 tokens a request; ten dollars a million each way."""
    texts = [f"{i:0100}" for i in range(30)]  # 132 tokens at most, and 20 of the answer
    prices = Prices(10.0, 10.0)
    replies = ask(*texts, prices=prices, budget=0.006, cache="known.jsonl", parallel=4)
    bill = ask.bill
    answered = [reply for reply in replies if reply.text]
    assert len(answered) == len(server.seen) == bill.num_requests
    assert bill.dollars == pytest.approx(len(answered) * 110 * 10 / 1e6)
    assert bill.dollars <= 0.006 and 3 <= len(answered) <= 5
    assert {r.problem for r in replies if not r.text} == {OVER_BUDGET}
    replies = ask(*texts, prices=prices, budget=0.0, cache="known.jsonl")
    assert sum(bool(reply.text) for reply in replies) == len(answered) and ask.bill.dollars == 0


def test_tokens_that_a_provider_adds_are_learned(ask, server):
    server.usage = {"prompt_tokens": 1000, "completion_tokens": 10}
    replies = ask(*"abcdefgh", prices=Prices(10.0, 0.0), budget=0.035, parallel=1)
    assert sum(bool(reply.text) for reply in replies) == 3 and ask.bill.dollars == 0.03


def test_failures_give_their_reservation_back(ask, server):
    server.plan = [None, 400, 400, 400, None]
    prices = Prices(10.0, 10.0)
    one = dollars(prices, most_sent(request("a")), 20)
    server.usage = {"prompt_tokens": 1, "completion_tokens": 1}
    replies = ask(*"abcde", prices=prices, budget=2 * one, parallel=1)
    assert [bool(reply.text) for reply in replies] == [True, False, False, False, True]


def test_answers_without_usage_are_guessed(ask, server):
    server.usage = None
    ask("a" * 400)
    bill = ask.bill
    assert bill.num_guessed == 1 and bill.sent == 108 and bill.received > 90


def test_the_estimate():
    found = estimate([request("a" * 4000, 500)] * 10, 3, Prices(1.0, 2.0))
    assert (found.num_requests, found.num_cached, found.sent) == (10, 3, 10_080)
    assert found.received == 3528 and found.dollars == pytest.approx((10_080 + 2 * 3528) / 1e6)
    text = found.sentence()
    assert "10 requests (3 more are answered already)" in text and "about $0.0171" in text
    assert estimate([], 0, None).dollars is None


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1/chat/completions"),
        ("https://x.org/api/v1/chat/completions", "https://x.org/api/v1/chat/completions"),
    ],
)
def test_addresses(url, address):
    assert EndpointSettings(url, "m").address == address


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:8000", "", "http://u:p@host/v1"])
def test_addresses_that_are_none(url):
    with pytest.raises(ConfigError, match="--endpoint"):
        EndpointSettings(url, "m").address  # noqa: B018


def test_keys(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    assert EndpointSettings("https://x.org", "m", "MY_KEY").api_key() == KEY
    with pytest.raises(ConfigError, match="unencrypted") as raised:
        EndpointSettings("http://x.org", "m", "MY_KEY").api_key()
    assert KEY not in str(raised.value)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="the environment has no MY_KEY"):
        EndpointSettings("http://x.org", "m", "MY_KEY").api_key()
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert EndpointSettings("http://x.org", "m").api_key() == ""


def test_the_cache_holds_no_prompt(ask, tmp_path):
    ask("my secret prompt", cache="known.jsonl", options={"stop": None})
    (line,) = (tmp_path / "known.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == {"key", "text", "finish_reason", "sent", "received"}


def test_nothing_more_is_asked_after_the_end(ask, server):
    """Requests that wait in line when the endpoint refuses are not sent."""
    server.plan = [401] * 50
    with pytest.raises(SFTError):
        ask(*map(str, range(30)), parallel=1, requests_per_minute=6000)
    assert len(server.seen) == 1 and NOT_ASKED


def test_stopping_in_the_middle_keeps_what_was_answered(ask, server, tmp_path):
    """An interrupt ends the waits of all threads at once, whichever thread it is in."""
    # One request is told to come back, and waits; its result is the first that is awaited.
    server.plan = [(429, {}), None, None, None, *[(429, {})] * 50]

    def stop(done, _total):
        if done == 3:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(*map(str, range(20)), cache="known.jsonl", parallel=3, backoff=60, progress=stop)
    assert time.monotonic() - started < 10
    assert len((tmp_path / "known.jsonl").read_text().splitlines()) >= 3


def test_an_answer_without_end_is_cut_off_and_not_asked_again(ask, server):
    server.plan = [b"x" * (MAX_ANSWER_BYTES + 1)]
    (reply,) = ask("a", parallel=1)
    assert reply.problem == "endpoint: an answer of more than 10,485,760 bytes"
    assert len(server.seen) == 1
