"""The configuration of a run: every knob, and how it is read and written."""

from sft.config.data_sections import DataConfig, SourceConfig
from sft.config.guard_section import GuardsConfig
from sft.config.load import (
    load_config,
    parse_assignment,
    read_config,
    read_run_options,
    with_values,
)
from sft.config.optim_section import OptimConfig
from sft.config.schema import (
    BatchConfig,
    CheckpointConfig,
    Config,
    EvalConfig,
    MethodConfig,
    ModelConfig,
    RunConfig,
)
from sft.config.section import Section
from sft.config.tracker_sections import AlertsConfig, TrackersConfig
from sft.config.yaml_text import dump_yaml, parse_yaml

__all__ = [
    "AlertsConfig",
    "BatchConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "EvalConfig",
    "GuardsConfig",
    "MethodConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "Section",
    "SourceConfig",
    "TrackersConfig",
    "dump_yaml",
    "load_config",
    "parse_assignment",
    "parse_yaml",
    "read_config",
    "read_run_options",
    "with_values",
]
