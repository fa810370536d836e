"""The configuration of a run: every knob, and how it is read and written."""

from sft.config.data_sections import DataConfig, SourceConfig
from sft.config.load import (
    load_config,
    parse_assignment,
    read_config,
    read_run_options,
    with_values,
)
from sft.config.optim_section import OptimConfig
from sft.config.schema import Config, MethodConfig, ModelConfig
from sft.config.section import Section
from sft.config.yaml_text import dump_yaml, parse_yaml

__all__ = [
    "Config",
    "DataConfig",
    "MethodConfig",
    "ModelConfig",
    "OptimConfig",
    "Section",
    "SourceConfig",
    "dump_yaml",
    "load_config",
    "parse_assignment",
    "parse_yaml",
    "read_config",
    "read_run_options",
    "with_values",
]
