"""What is to be known about a project whose checkpoints are read and written: one frozen row for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..adjust import Pixels
from ..rules import Rule, matches


@dataclass(frozen=True)
class Family:
    """A project that published FCOS weights, or a kind of file of ImageNet weights.

    Attributes:
        name: as on the command line.
        source: its repository.
        rules: renames between its names and ours.
        mark: what at least one of its names begins with, and no name of a family with other rules.
        zoo: its name in `zoo.VARIANTS`.
        wrapper: key of the tensors in its files; empty for a bare state dict.
        beside: what else its files hold at the top.
        ignored: names (templates) that its files may hold and no model needs.
        counters: its batch norms count their batches (`num_batches_tracked`), also where ours are frozen.
        tower_bias: its tower convolutions have a bias; `None` if that is its user's choice.
        level_norms: weight and bias of its heads' batch norms: "own" for each level, "shared", or "" where it has none.
        activations: of raw ltrb, as (activation, unit) of `LTRBCoder`, that its code can express.
        quality_on: towers that may feed its quality branch.
        origin: of its locations, as in `LocationGrid`.
        stride_in_1x1: where its ResNets may stride.
        notes: what a reader should know about every one of its files.
        channels_of_classes: channel of each of COCO's 80 classes, where that is not their order.
        pixels: what ImageNet weights were trained on; `None` to leave the first convolution as it is.
    """

    name: str
    source: str
    rules: tuple[Rule, ...]
    mark: str
    zoo: str = ""
    wrapper: str = ""
    beside: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ("pixel_mean", "pixel_std")
    counters: bool = False
    tower_bias: bool | None = True
    level_norms: str = ""
    activations: tuple[tuple[str, str], ...] = (("relu", "stride"),)
    quality_on: tuple[str, ...] = ("box",)
    origin: str = "center"
    stride_in_1x1: tuple[bool, ...] = (True, False)
    notes: tuple[str, ...] = ()
    channels_of_classes: tuple[int, ...] | None = None
    pixels: Pixels | None = None

    def ignores(self, name: str) -> bool:
        """Whether no model needs a tensor of this name."""
        return matches(self.ignored, name)

    @property
    def has_scales(self) -> bool:
        """Whether its head multiplies raw ltrb by a scale for each level."""
        return any(rule.stacked is not None for rule in self.rules)
