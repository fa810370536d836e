"""Alerts: a webhook and a program of the user get the events that they asked for."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx

from sft.errors import ConfigError
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.trackers.base import Tracker

logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses, which may be secret
TRIES = 3
TIMEOUT = 10.0  # seconds of one try
COMMAND_TIMEOUT = 30.0


class AlertError(Exception):
    """An alert was not delivered. Its text names no address: that may be a secret."""


class Alerts(Tracker):
    """Follows the events only. A channel that has an event is spared when the other fails."""

    def start(self, run: RunDir, config: Mapping[str, Any], state: dict[str, Any]) -> None:
        """Read where to alert.

        Raises:
            ConfigError: the address or the command cannot be used.
        """
        alerts = config["alerts"]
        self._url = webhook_address(alerts["webhook"]) if alerts["webhook"] else None
        self._command = arguments_of(alerts["command"]) if alerts["command"] else None
        self._on = alerts["on"]
        self._run, self._name = run, config["name"]
        # Nobody wants to hear of all that happened before alerts were asked for.
        state.setdefault("since", config["since"] or last_start(run))
        self._state = state

    def event(self, event: Mapping[str, Any]) -> None:
        """Alert, if it was asked for.

        Raises:
            AlertError: it was not delivered.
        """
        if event.get("kind") not in self._on or str(event.get("time", "")) < self._state["since"]:
            return
        delivered: list[str] = self._state.setdefault("delivered", [])
        if self._url and "webhook" not in delivered:
            post(self._url, message(event, self._name))
            delivered.append("webhook")
        if self._command and "command" not in delivered:
            delivered.append("command")  # a program that fails is not started twice
            start_program(self._command, event, self._run)
        self._state["delivered"] = []


def webhook_address(text: str) -> str:
    """The address of a webhook; `$NAME` is read from the environment."""
    if text.startswith("$"):
        name = text[1:].strip("{}")
        text = os.environ.get(name, "")
        if not text:
            raise ConfigError(f"alerts.webhook: the environment variable {name} is not set")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "alerts.webhook: expected an address that begins with https:// or http://"
        )
    return text


def arguments_of(command: str) -> list[str]:
    """A command line as a list of arguments; no shell reads it."""
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"alerts.command: {error}") from None
    if not arguments:
        raise ConfigError("alerts.command: is empty")
    return arguments


def last_start(run: RunDir) -> str:
    """When the newest attempt began."""
    starts = [event for event in each_record(run.events) if event.get("kind") == "started"]
    return str(starts[-1].get("time", "")) if starts else ""


def message(event: Mapping[str, Any], run: str) -> dict[str, Any]:
    """The body of a webhook: `text` is what Slack shows, `content` what Discord shows.

    Text of a run may hold `<!channel>` or `@everyone`; neither must call anyone.
    """
    step = event.get("step")
    at = f" at step {step}" if isinstance(step, int) else ""
    text = f"{run}: {event.get('kind')}{at}: {event.get('text')}"
    slack = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {
        "text": slack,
        "content": text[:2000],  # Discord takes no more
        "allowed_mentions": {"parse": []},
        "run": run,
        "kind": event.get("kind"),
        "step": step,
        "level": event.get("level"),
    }


def post(url: str, body: Mapping[str, Any]) -> None:
    """POST the body as JSON, in at most `TRIES` tries. Redirects, which may lead anywhere, fail.

    Raises:
        AlertError: no try succeeded.
    """
    problem = ""
    for number in range(TRIES):
        time.sleep(0.5 * number)
        try:
            with httpx.stream(
                "POST", url, json=body, headers={"User-Agent": "sft"}, timeout=TIMEOUT
            ) as response:
                if response.is_success:
                    return
                problem = f"the webhook answered {response.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = f"the webhook cannot be reached ({type(error).__name__})"
    raise AlertError(problem)


def start_program(arguments: Sequence[str], event: Mapping[str, Any], run: RunDir) -> None:
    """Start the program: `SFT_...` in its environment, the event as JSON on its stdin.

    Raises:
        AlertError: it cannot be started, fails, or takes longer than `COMMAND_TIMEOUT` seconds.
    """
    step = event.get("step")
    environment = {
        "SFT_EVENT": str(event.get("kind")),
        "SFT_TEXT": str(event.get("text", "")),
        "SFT_RUN": str(run.path.resolve()),
        "SFT_STEP": "" if step is None else str(step),
        "SFT_LEVEL": str(event.get("level", "")),
    }
    program = f"alerts.command ({arguments[0]})"
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,  # so that what it starts is killed with it
        )
    except (OSError, ValueError) as error:
        raise AlertError(f"{program} cannot be started: {error}") from None
    try:
        process.communicate(json.dumps(event).encode(), timeout=COMMAND_TIMEOUT)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise AlertError(f"{program} was killed after {COMMAND_TIMEOUT:.0f} s") from None
    if process.returncode:
        raise AlertError(f"{program} failed with code {process.returncode}")
