"""Which variants are one network with other weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from untrained import SMALL

from fcos_d2 import zoo
from fcos_d2.export.alike import network_of

NETWORKS: dict[str, list[str]] = json.loads((Path(__file__).parent / "networks.json").read_text(encoding="utf-8"))


def key(name: str, **changes: object) -> str:
    cfg = zoo.get_config(name)
    for path, value in changes.items():
        *parts, last = path.split("__")
        node = cfg.model
        for part in parts:
            node = node[part]
        node[last] = value
    with torch.device("meta"):
        return network_of(instantiate(cfg.model))


def test_what_makes_another_network() -> None:
    own = key(SMALL)
    assert own == key(SMALL) == key(SMALL, dense__head__prior_prob=0.5)
    for changes in (
        {"num_classes": 3}, {"dense__head__num_box_convs": 1}, {"dense__head__conv_bias": False},
        {"dense__selector__nms_threshold": 0.4}, {"dense__head__quality_on": "class"},
    ):  # fmt: skip
        assert key(SMALL, **changes) != own, changes


@pytest.mark.slow
def test_the_list_of_networks_is_that_of_the_zoo() -> None:
    found: dict[str, list[str]] = {}
    for variant in zoo.VARIANTS:
        found.setdefault(key(variant.full_name), []).append(variant.full_name)
    assert {first: rest for first, *rest in found.values()} == NETWORKS
