"""Configs: options, yacs keys, recipe + backbone + schedule put together, overrides, stored configs.

What may be changed here: how a choice is written down and read back. What a choice does is the business of `modeling`.
"""

from .compose import Composed, compose
from .load import load_config
from .overrides import apply_lazy, apply_yacs
from .proposals import compose_proposals
from .stored import dump_config, parse_config
from .yacs import add_fcos_config

__all__ = [
    "Composed",
    "add_fcos_config",
    "apply_lazy",
    "apply_yacs",
    "compose",
    "compose_proposals",
    "dump_config",
    "load_config",
    "parse_config",
]
