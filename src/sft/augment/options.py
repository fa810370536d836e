"""The flags of `sft augment` as settings: which rows are wanted, and which models write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sft.augment.budget import Prices
from sft.augment.endpoint import EndpointSettings
from sft.augment.make import AugmentSettings, parse_ways
from sft.augment.run import Models
from sft.augment.wrappers import read_lines, read_templates
from sft.errors import ConfigError

API_KEY_ENV = "OPENAI_API_KEY"
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


def model_settings(flags: Mapping[str, Any]) -> Models:
    """Which models write what needs one.

    Raises:
        ConfigError: flags of an endpoint without one, or values of the wrong kind.
    """
    url = flags["endpoint"]
    if not url:
        for name in _OF_ENDPOINT:
            if flags[name] is not None:
                raise ConfigError(f"--{name.replace('_', '-')}: needs --endpoint URL")
        return Models(own=flags["own_model"])
    if not flags["endpoint_model"]:
        raise ConfigError("--endpoint: needs --endpoint-model NAME, as the endpoint calls it")
    return Models(
        endpoint=EndpointSettings(
            url=url,
            model=flags["endpoint_model"],
            api_key_env=flags["api_key_env"] or API_KEY_ENV,
            key_required=flags["api_key_env"] is not None,
            requests_per_minute=flags["requests_per_minute"],
            parallel=flags["parallel"],
            timeout=flags["timeout"],
            options=_options(flags["endpoint_options"]),
        ),
        prices=prices(flags["price_per_million"]),
        budget=flags["budget"],
        own=flags["own_model"],
    )


def _options(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        value = error
    if not isinstance(value, dict):
        raise ConfigError(
            f"--endpoint-options: expected a JSON object such as '{{\"temperature\": 0.2}}', "
            f"found {text[:60]!r}"
        )
    return value


def prices(text: str | None) -> Prices:
    """`IN,OUT` in US dollars per million tokens.

    Raises:
        ConfigError: it is not two numbers from 0 on.
    """
    if text is None:
        return Prices()
    try:
        sent, received = (float(part) for part in text.split(","))
    except ValueError:
        sent = received = -1.0
    if not 0 <= sent < float("inf") or not 0 <= received < float("inf"):
        raise ConfigError(
            "--price-per-million: expected IN,OUT in US dollars, such as 0.15,0.60, "
            f"found {text[:60]!r}"
        )
    return Prices(sent, received)
