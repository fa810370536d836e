"""Every knob of a run, in sections. An unknown key is an error with the nearest right key.

A value of `"auto"` is decided when the run starts and is written, with the reason, to
`config.yaml` in the run folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sft.errors import ConfigError, did_you_mean

Auto = Literal["auto"]


class Section(BaseModel):
    """Base of all sections: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelConfig(Section):
    """Which model to start from and how to run it."""

    name: str = Field("starter", description="Hub id, local folder, or `starter`.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    template: str = Field(
        "auto",
        description="`auto` is the tokenizer's own chat template; without one, `chatml` for full "
        "training and `plain` otherwise. Or `chatml`, `plain`, or the path of a Jinja file.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="`auto`: fp32 on CPU; bf16 with fp32 master weights on CUDA."
    )
    attention: Literal["auto", "flat", "padded"] = Field(
        "auto",
        description="`flat` lays examples end to end without padding; `auto` falls back to "
        "`padded` when the self-check finds that they differ; `flat` refuses instead.",
    )
    trust_remote_code: bool = Field(False, description="Run Python code shipped with the model.")


class MethodConfig(Section):
    """Which weights are trained."""

    kind: Literal["full", "lora", "frozen"] = Field("full", description="What is trained.")
    lora_rank: int = Field(16, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: float = Field(32.0, gt=0, description="LoRA scale: the update is alpha/rank * BA.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    target_modules: str | list[str] = Field(
        "all-linear", description="`all-linear`, or names of the modules that get LoRA matrices."
    )
    dora: bool = Field(False, description="Weight-decomposed LoRA (arXiv 2402.09353).")
    rslora: bool = Field(False, description="Scale by alpha/sqrt(rank) (arXiv 2312.03732).")
    trainable: list[str] = Field(
        default_factory=list,
        description="`frozen`: regular expressions of the parameter names to train; "
        "everything else is frozen.",
    )
    activation_checkpointing: bool = Field(
        False, description="Recompute activations in backward: less memory, about a third slower."
    )


class SourceConfig(Section):
    """One source of rows. A plain string means `path`."""

    path: str = Field(description="File, folder, or Hugging Face data set id.")
    weight: float = Field(
        1.0, gt=0, le=100, description="How often each row is seen per epoch; 0.5 is every other."
    )
    format: str = Field("auto", description="Shape of the rows; `auto` recognises it.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Column map, from our name to the column's name."
    )
    split: str = Field("train", description="Split of a hub data set.")
    subset: str | None = Field(None, description="Configuration name of a hub data set.")
    streaming: bool = Field(False, description="Stream a hub data set instead of downloading it.")
    max_rows: int | None = Field(None, ge=1, description="Read at most this many rows.")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @field_validator("path", mode="before")
    @classmethod
    def _path_to_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value


class DataConfig(Section):
    """What is trained on and what it is measured on."""

    train: list[SourceConfig] = Field(default_factory=list, description="Training data.")
    val: list[SourceConfig] = Field(
        default_factory=list, description="Validation data; empty: split off from `train`."
    )
    max_seq_len: int | Auto = Field(
        "auto", description="Longest example in tokens; `auto`: the model's limit, at most 2048."
    )
    overflow: Literal["drop", "truncate", "error"] = Field(
        "drop", description="What happens to a row longer than `max_seq_len`."
    )
    on_bad_row: Literal["error", "skip"] = Field(
        "error", description="`skip` leaves unusable rows out, and lists them in the account."
    )
    val_fraction: float | Auto = Field(
        "auto", description="Share of rows split off for validation; `auto`: 5 %, 16 to 128 rows."
    )
    prompt_weight: float = Field(
        0.0, ge=0, le=1, description="Loss weight of prompt tokens; answers have 1."
    )
    tools: Literal["auto", "template", "text"] = Field(
        "auto",
        description="How tools are shown: by the `template`, or as `text` in the messages; `auto` "
        "uses text where the template ignores them.",
    )

    @field_validator("train", "val", mode="before")
    @classmethod
    def _to_list(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

    @field_validator("val_fraction")
    @classmethod
    def _fraction(cls, value: float | str) -> float | str:
        if value != "auto" and not 0 <= float(value) < 1:
            raise ValueError("must be at least 0 and below 1, or `auto`")
        return value

    @field_validator("max_seq_len")
    @classmethod
    def _length(cls, value: int | str) -> int | str:
        if value != "auto" and int(value) < 2:
            raise ValueError("must be at least 2, or `auto`")
        return value


class BatchConfig(Section):
    """How examples are grouped. The result of a step depends on `examples` only."""

    examples: int = Field(8, ge=1, description="Examples per optimizer step.")
    micro_batch_tokens: int = Field(
        2048, ge=1, description="Tokens per forward pass; a longer example gets one of its own."
    )


class OptimConfig(Section):
    """The optimizer, its schedule, and how long to train."""

    name: Literal["adamw", "sgd"] = Field("adamw", description="Optimizer.")
    learning_rate: float | Auto = Field(
        "auto", description="Peak learning rate; `auto`: 2e-5, or 2e-4 for LoRA."
    )
    schedule: Literal["cosine", "linear", "constant", "wsd"] = Field(
        "cosine", description="How the learning rate falls after warm-up."
    )
    warmup_steps: int | Auto = Field("auto", description="`auto`: 3 % of all steps.")
    decay_fraction: float = Field(
        0.2, gt=0, le=1, description="`wsd`: share of the steps, at the end, in which it decays."
    )
    min_lr_ratio: float = Field(
        0.0, ge=0, le=1, description="Final learning rate as a share of the peak."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decay of matrices; never biases, norms.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment; SGD: momentum.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of the second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment.")
    max_grad_norm: float = Field(1.0, ge=0, description="Clip the gradient norm; 0: do not clip.")
    epochs: float = Field(2.0, gt=0, description="Passes over the training examples.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many optimizer steps.")
    loss: Literal["nll", "dft"] = Field(
        "nll", description="`nll`: cross-entropy. `dft`: weighted by the token's probability."
    )
    neftune_alpha: float = Field(
        0.0, ge=0, description="Noise on the input embeddings (arXiv 2310.05914); 0: none."
    )

    @field_validator("learning_rate")
    @classmethod
    def _rate(cls, value: float | str) -> float | str:
        if value != "auto" and not 0 < float(value) < float("inf"):
            raise ValueError("must be above 0, or `auto`")
        return value

    @field_validator("warmup_steps")
    @classmethod
    def _warmup(cls, value: int | str) -> int | str:
        if value != "auto" and int(value) < 0:
            raise ValueError("must be at least 0, or `auto`")
        return value


class LooksConfig(Section):
    """When validation is scored, and when it ends the run."""

    every: int | Auto = Field("auto", description="Steps between looks; `auto`: up to 6 a run.")
    early_stopping: Literal["off", "stop"] = Field("stop", description="End the run early?")
    margin: float = Field(
        0.01, ge=0, description="A change of val_loss smaller than this is no change."
    )
    patience: int = Field(3, ge=1, description="Looks without a better val_loss before stopping.")

    @field_validator("every")
    @classmethod
    def _every(cls, value: int | str) -> int | str:
        if value != "auto" and int(value) < 1:
            raise ValueError("must be at least 1, or `auto`")
        return value


class CheckpointConfig(Section):
    """When the complete state is saved."""

    every: int | Auto = Field("auto", description="Steps between checkpoints; `auto`: each look.")
    keep: int = Field(2, ge=1, description="Newest checkpoints kept, besides the best.")

    @field_validator("every")
    @classmethod
    def _every(cls, value: int | str) -> int | str:
        if value != "auto" and int(value) < 1:
            raise ValueError("must be at least 1, or `auto`")
        return value


class RunConfig(Section):
    """Where the run lives, and its seed."""

    dir: str | None = Field(None, description="Run folder; default: runs/<model>-<data>.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the split, the order and dropout.")


class Config(Section):
    """One training run."""

    model: ModelConfig = Field(default_factory=ModelConfig)  # type: ignore[arg-type]
    method: MethodConfig = Field(default_factory=MethodConfig)  # type: ignore[arg-type]
    data: DataConfig = Field(default_factory=DataConfig)  # type: ignore[arg-type]
    batch: BatchConfig = Field(default_factory=BatchConfig)  # type: ignore[arg-type]
    optim: OptimConfig = Field(default_factory=OptimConfig)  # type: ignore[arg-type]
    looks: LooksConfig = Field(default_factory=LooksConfig)  # type: ignore[arg-type]
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)  # type: ignore[arg-type]
    run: RunConfig = Field(default_factory=RunConfig)  # type: ignore[arg-type]

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        method = self.method
        if method.kind == "frozen" and not method.trainable:
            raise ValueError("method.kind: frozen needs method.trainable, the names to train")
        if method.trainable and method.kind != "frozen":
            raise ValueError("method.trainable is read by method.kind: frozen only")
        return self

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """A copy with dotted keys replaced, such as `{"optim.learning_rate": 1e-4}`."""
        return load_config(self.model_dump(mode="json"), values)


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as people write it; aliases and repeated keys are refused.

    PyYAML is YAML 1.1: there `1e-4` is text, `off` is false, `010` is 8 and `12:30` is 750.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.get_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read", mark)
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
    except (ValueError, RecursionError) as error:  # `!!int x`, a thousand brackets
        raise ConfigError(f"{where}: not valid YAML ({error})") from None


def dump_yaml(tree: Any) -> str:
    """The text that `parse_yaml` reads as `tree`."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a YAML (or JSON) configuration file into a plain dictionary."""
    path = Path(path)
    try:
        if path.stat().st_size > 1_000_000:
            raise ConfigError(f"{path}: larger than 1 MB; a configuration is a page of text")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections such as `model:`, found {values!r:.60}")
    return values


def load_config(values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Config:
    """Build a `Config`; raises one `ConfigError` that lists every problem found."""
    tree = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for key, value in (overrides or {}).items():
        section, _, name = key.partition(".")
        if not name:
            raise ConfigError(f"{key}: expected section.key, such as optim.learning_rate")
        part = tree.setdefault(section, {})
        if not isinstance(part, dict):
            raise ConfigError(f"{section}: expected keys, found {part!r:.60}")
        part[name] = value
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        # A value that may be of two types has a problem with each: one line for both.
        problems: dict[str, list[str]] = {}
        for problem in error.errors():
            where, message = _explain(dict(problem))
            problems.setdefault(where, []).append(message)
        raise ConfigError("\n".join(w + "; or ".join(m) for w, m in problems.items())) from None


def _explain(problem: dict[str, Any]) -> tuple[str, str]:
    """Where it is (`optim.epochs: `), and what is wrong."""
    parts = [str(part) for part in problem["loc"]]
    if len(parts) > 2 and isinstance(problem["loc"][2], str):
        del parts[2]  # pydantic's name of the type that was tried
    where = ".".join(parts)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(parts[:-1])
        hint = did_you_mean(parts[-1], known)
        return f"{where}: ", f"unknown key.{hint} Known: {', '.join(known)}."
    message = problem["msg"].removeprefix("Value error, ")
    found = problem.get("input")
    shown = (
        ""
        if isinstance(found, Mapping | Sequence) and not isinstance(found, str)
        else (f" (found {found!r:.60})")
    )
    return (f"{where}: ", message + shown) if where else ("", message)


def _known_keys(parts: Sequence[str]) -> list[str]:
    """The keys allowed where `parts` leads, such as `["data", "train", "0"]`."""
    if len(parts) > 1:
        return list(SourceConfig.model_fields)
    section = Config.model_fields.get(parts[0]) if parts else None
    if section is None or not isinstance(section.annotation, type):
        return list(Config.model_fields)
    return list(section.annotation.model_fields)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split `section.key=value`; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected section.key=value")
    return key.strip(), parse_yaml(value, f"--set {key}") if value.strip() else None
