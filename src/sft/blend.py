"""`sft blend`: the finished model of a run, blended with its base model."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sft.config import Config, ConfigError
