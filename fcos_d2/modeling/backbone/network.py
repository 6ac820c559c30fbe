"""What the file of a bottom-up network declares for the table of backbones, and builders for Detectron2's registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

from ...options import as_tuple, one_of

__all__ = ["FeatureBackbone", "Network", "register_builder", "yacs_keys"]


@dataclass(frozen=True)
class Network:
    """A kind of bottom-up network.

    Attributes:
        build: makes one from `arguments` of a row, `in_channels` and `out_features`.
        node: below `MODEL`, with the network's own yacs keys.
        keys: that the network adds there, with their values.
        yaml: argument of `build` -> yacs key that holds it.
        features: that a pyramid merges.
        mark: name of a tensor that no other network has.
        check: raises ValueError for a config that asks for what the network has not.
    """

    build: Callable[..., Backbone]
    node: str
    keys: Mapping[str, Any]
    yaml: Mapping[str, str]
    features: Sequence[str]
    mark: str
    check: Callable[[Any], None] = lambda cfg: None

    def from_config(self, cfg, in_channels: int) -> Backbone:
        """The network that the keys of `yaml` describe."""
        self.check(cfg)
        values = {argument: reduce(getattr, key.split("."), cfg) for argument, key in self.yaml.items()}
        return self.build(in_channels=in_channels, **values)


class FeatureBackbone(Backbone):
    """A Detectron2 backbone that says in one place which features it has."""

    def declare(self, out_features: Sequence[str], channels: Mapping[str, int], strides: Mapping[str, int]) -> None:
        """Set what `output_shape` and Detectron2's FPN read: channels and strides of all features, and those returned.

        Raises:
            ValueError: there is no such feature.
        """
        self._out_features = list(as_tuple(out_features))
        self._out_feature_channels, self._out_feature_strides = channels, strides
        for name in self._out_features:
            one_of(f"{type(self).__name__}.out_features", name, list(strides))


def yacs_keys(node: str, *arguments: str, **others: str) -> dict[str, str]:
    """Yacs key of each argument: below `MODEL`, in the network's node under its own name, or as `others` say."""
    keys = {name: f"{node}.{name.upper()}" for name in arguments} | {"freeze_at": "BACKBONE.FREEZE_AT"} | others
    return {argument: f"MODEL.{key}" for argument, key in keys.items()}


def register_builder(name: str, network: Network, pyramid: Callable[[Any, Backbone], Backbone] | None = None) -> None:
    """Put a builder into Detectron2's registry: a network and a pyramid `pyramid(cfg, bottom_up)` on it.

    AdelaiDet registers builders of the same names; if it was imported first, its builders stay.
    """

    def build(cfg, input_shape: ShapeSpec) -> Backbone:
        net = network.from_config(cfg, input_shape.channels)
        return net if pyramid is None else pyramid(cfg, net)

    build.__name__ = build.__qualname__ = name
    if name not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(build)
