"""The flags of `sft augment` as settings: which rows are wanted, and how an endpoint is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sft.augment.budget import Prices
from sft.augment.endpoint import EndpointSettings
from sft.augment.make import AugmentSettings, parse_ways
from sft.augment.wrappers import read_lines, read_templates
from sft.errors import ConfigError

_OF_ENDPOINT = (
    "endpoint_model",
    "endpoint_options",
    "price_per_million",
    "budget",
    "requests_per_minute",
    "api_key_env",
)


def augment_settings(flags: Mapping[str, Any]) -> AugmentSettings:
    """Which rows are wanted.

    Raises:
        ConfigError: a way is unknown, or a file cannot be used.
    """
    ways = parse_ways(flags["ways"])
    for flag, way in (("templates", "template"), ("system_prompts", "system_prompt")):
        if flags[flag] and way not in ways:
            raise ConfigError(f"--{flag.replace('_', '-')}: is read by --way {way} only")
    systems = flags["system_prompts"]
    return AugmentSettings(
        ways=ways,
        per_row=flags["per_row"],
        share=flags["share"],
        seed=flags["seed"],
        templates=read_templates(flags["templates"]) if flags["templates"] else (),
        systems=read_lines(systems, what="system messages") if systems else (),
    )


def endpoint_settings(flags: Mapping[str, Any]) -> EndpointSettings | None:
    """How an endpoint is asked; None without one.

    Raises:
        ConfigError: flags of an endpoint without one, or values of the wrong kind.
    """
    if not flags["endpoint"]:
        for name in _OF_ENDPOINT:
            if flags[name] is not None:
                raise ConfigError(f"--{name.replace('_', '-')}: needs --endpoint URL")
        return None
    if not flags["endpoint_model"]:
        raise ConfigError("--endpoint: needs --endpoint-model NAME, as the endpoint calls it")
    price, more = flags["price_per_million"], flags["endpoint_options"]
    return EndpointSettings(
        url=flags["endpoint"],
        model=flags["endpoint_model"],
        api_key_env=flags["api_key_env"],
        requests_per_minute=flags["requests_per_minute"],
        parallel=flags["parallel"],
        timeout=flags["timeout"],
        options=_options(more) if more else {},
        prices=None if price is None else _prices(price),
        budget=flags["budget"],
    )


def _options(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        if isinstance(value := json.loads(text), dict):
            return value
    raise ConfigError(
        f"--endpoint-options: expected a JSON object such as '{{\"temperature\": 0.2}}', "
        f"found {text[:60]!r}"
    )


def _prices(text: str) -> Prices:
    """`IN,OUT` in US dollars per million tokens."""
    with suppress(ValueError):
        sent, received = map(float, text.split(","))
        if 0 <= sent < float("inf") and 0 <= received < float("inf"):
            return Prices(sent, received)
    raise ConfigError(
        "--price-per-million: expected IN,OUT in US dollars, such as 0.15,0.60, "
        f"found {text[:60]!r}"
    )
