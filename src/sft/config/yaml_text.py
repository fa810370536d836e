"""Configuration as YAML 1.2 text, read safely and written so that it reads back the same."""

from __future__ import annotations

import re
from typing import Any

import yaml

from sft.errors import ConfigError

# Many times the settings there are. A megabyte of `[1,1,1,...` takes half a minute to read.
MAX_VALUES = 20_000
_NO_TEXT = re.compile("[\\0\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as people write it; aliases, tags and repeated keys are refused.

    PyYAML is YAML 1.1: there `1e-4` is text, `off` is false, `010` is 8 and `12:30` is 750.
    """

    num_values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self.num_values += 1
        problem = ""
        if isinstance(event, yaml.events.AliasEvent):
            problem = "aliases (*name) are not read"
        elif event.tag is not None:
            problem = f"tags ({event.tag.replace('tag:yaml.org,2002:', '!!'):.40}) are not read"
        elif isinstance(event, yaml.events.ScalarEvent) and _NO_TEXT.search(event.value):
            problem = "holds a NUL character or half a surrogate pair, which is not text"
        elif self.num_values > MAX_VALUES:
            problem = f"more than {MAX_VALUES:,} values; a configuration is a page of text"
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problem = f"'{key.value}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would take for numbers."""


_Loader.yaml_implicit_resolvers = {}
_FLOAT = r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _tag, _pattern, _first in (  # the core schema of YAML 1.2
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?\d+", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z", re.ASCII), _first
        )
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _loader, node: int(node.value))


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML; errors name `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{where}{line}: {problem}") from None
    except ValueError as error:  # a number of more digits than Python converts
        raise ConfigError(f"{where}: not valid YAML ({error})") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML (nested too deeply)") from None


def dump_yaml(tree: Any) -> str:
    """The text that `parse_yaml` reads as `tree`."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
