"""Every knob of a run, in sections. An unknown key is an error with the nearest right key.

A value of `"auto"` is decided when the run starts and is written, with the reason, to
`config.yaml` in the run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from sft.config.data_sections import DataConfig
from sft.config.guard_section import GuardsConfig
from sft.config.optim_section import OptimConfig
from sft.config.section import AT_LEAST_1, Auto, Section
from sft.config.tracker_sections import AlertsConfig, TrackersConfig


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


class BatchConfig(Section):
    """How examples are grouped. The result of a step depends on `examples` only."""

    examples: int = Field(8, ge=1, description="Examples per optimizer step.")
    micro_batch_tokens: int = Field(
        2048, ge=1, description="Tokens per forward pass; a longer example gets one of its own."
    )


class EvalConfig(Section):
    """When the model is measured, and when a plateau ends the run."""

    every: Annotated[int | Auto, AT_LEAST_1] = Field(
        "auto",
        description="Steps between evaluations; `auto`: 6 in a short run, up to 12 in a long one.",
    )
    budget: float = Field(
        0.1,
        gt=0,
        description="Share of the training time that evaluations may take; probes shrink to "
        "fit, down to 10 rows.",
    )
    samples: int = Field(
        8, ge=0, description="Prompts answered at the first, the middle and the last evaluation."
    )
    early_stopping: Literal["off", "stop"] = Field("stop", description="End the run early?")
    margin: float = Field(
        0.01, ge=0, description="A smaller change of the loss on `usage` (else `val`) is no change."
    )
    patience: int = Field(3, ge=1, description="Evaluations without a better one before stopping.")


class CheckpointConfig(Section):
    """When the complete state is saved."""

    every: Annotated[int | Auto, AT_LEAST_1] = Field(
        "auto", description="Steps between checkpoints; `auto`: each evaluation."
    )
    keep: int = Field(2, ge=1, description="Newest checkpoints kept, besides the best.")
    choose: Literal["best", "last"] = Field(
        "best",
        description="Which weights the run hands back: the lowest loss on `usage` (else `val`) "
        "among evaluations within the forgetting budget, or the last.",
    )


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
    eval: EvalConfig = Field(default_factory=EvalConfig)  # type: ignore[arg-type]
    guards: GuardsConfig = Field(default_factory=GuardsConfig)  # type: ignore[arg-type]
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)  # type: ignore[arg-type]
    run: RunConfig = Field(default_factory=RunConfig)  # type: ignore[arg-type]
    trackers: TrackersConfig = Field(default_factory=TrackersConfig)  # type: ignore[arg-type]
    alerts: AlertsConfig = Field(default_factory=AlertsConfig)  # type: ignore[arg-type]

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def num_examples(self) -> int | None:
        """Examples the run will see, where `optim.max_steps` says so."""
        steps = self.optim.max_steps
        return steps and steps * self.batch.examples

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        method = self.method
        if method.kind == "frozen" and not method.trainable:
            raise ValueError("method.kind: frozen needs method.trainable, the names to train")
        if method.trainable and method.kind != "frozen":
            raise ValueError("method.trainable is read by method.kind: frozen only")
        return self

    def __eq__(self, other: object) -> bool:
        """Whether all values are the same, wherever they come from."""
        return isinstance(other, Config) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]  # it holds lists

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each key that the user gave comes from: `file`, `flag` or `python`."""
        return self._sources

    @classmethod
    def from_sources(cls, values: Mapping[str, Any], sources: Mapping[str, str]) -> Config:
        """A config of `values`, which notes where each key that was given comes from."""
        config = cls.model_validate(values)
        config._sources = dict(sources)
        return config
