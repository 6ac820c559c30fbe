"""Former trainer of YAML configs; `LazyTrainer` trains both kinds."""

from __future__ import annotations

from .trainer import LazyTrainer

__all__ = ["YamlTrainer"]


class YamlTrainer(LazyTrainer):
    """`LazyTrainer` under its former name for configs with Detectron2's yacs keys."""
