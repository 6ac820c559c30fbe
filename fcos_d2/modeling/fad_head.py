"""The head that FAD found by search (arXiv:2007.12075): two towers of cells, of which the second reads the first.

Facts are of msight-tech/research-fad (fad_core/modeling); `genotype.py` says what the cells are made of. The box tower
reads the map of the pyramid alone, twice. What it gives is reduced to one map b, without norm or activation, and b
serves three times: box predictions, centerness, and, beside the map of the pyramid, the class tower.

    here (T is bbox_tower or cls_tower; c cell, n node, e edge, i layer)     msight-tech/research-fad (rpn.head.*)
    T.c.adapt.conv, .norm                  brings a wide second input down   T.cells.c.preproc1.net.0, .1
    T.c.nodes.n.e.enter, .exit             1x1 convolutions of an edge       T.cells.c.dag.n.e.0, .2
    T.c.nodes.n.e.conv_i                   of a "std" layer                  T.cells.c.dag.n.e.1.conv_i
    T.c.nodes.n.e.depthwise_i, pointwise_i of a "sep" layer                  ....1.conv_i.net.0, .net.1
                                           of a "dil" layer                  ....1.conv_i.0, .1
    T.c.nodes.n.e.norm_i                                                     ....1.gn_i
                                           of an operation of one layer      ....1.net.0, ...
    box_reduce, cls_reduce, cls_logits, bbox_pred                            the same
    quality, scales[L]                                                       centerness, scales.L.scale
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..genotype import OPERATIONS, Genotype, pair_of
from ..options import option
from .exact_norm import GroupNorm
from .head import FCOS_HEAD_REGISTRY, Chain, DenseHead, start_conv

# Layer -> its convolutions: name, kernel size, dilation, whether for each channel alone, whether with bias.
_LAYERS: dict[str, tuple[tuple[str, int, int, bool, bool], ...]] = {
    "std": (("conv", 3, 1, False, True),),
    "sep": (("depthwise", 3, 1, True, False), ("pointwise", 1, 1, False, True)),
    "dil": (("depthwise", 3, 2, True, True), ("pointwise", 1, 1, False, True)),
}


class SearchedEdge(Chain):
    """What a node adds of one state: 1x1 convolution, the operation at another width, 1x1 convolution.

    Every layer of the operation ends in GroupNorm of 32 groups and ReLU.

    Args:
        channels: of input and output.
        width: of the operation.
        operation: name in `OPERATIONS`.
        recompute: see `Chain`.
    """

    def __init__(self, channels: int, width: int, operation: str, recompute: bool) -> None:
        layers: dict[str, nn.Module] = {"enter": nn.Conv2d(channels, width, 1)}
        for i, layer in enumerate(OPERATIONS[operation]):
            for name, size, dilation, single, bias in _LAYERS[layer]:
                layers[f"{name}_{i}"] = nn.Conv2d(
                    width, width, size, padding=size // 2 * dilation, dilation=dilation, groups=width if single else 1,
                    bias=bias,
                )  # fmt: skip
            layers |= {f"norm_{i}": GroupNorm(32, width), f"relu_{i}": nn.ReLU(inplace=True)}
        super().__init__(OrderedDict(layers, exit=nn.Conv2d(width, channels, 1)))
        self.recompute = recompute


class SearchedCell(nn.Module):
    """Nodes, each the sum of its edges, on two inputs; all nodes side by side are what it gives.

    Args:
        genotype: its nodes and edges.
        channels: C of the states.
        width: of operations.
        second: channels of its second input; where these are not C, a 1x1 convolution, GroupNorm and ReLU come first.
        recompute: see `Chain`.
    """

    def __init__(self, genotype: Genotype, channels: int, width: int, second: int, recompute: bool) -> None:
        super().__init__()
        self.adapt: nn.Module | None = None
        if second != channels:
            layers = {"conv": nn.Conv2d(second, channels, 1), "norm": GroupNorm(32, channels), "relu": nn.ReLU(True)}
            self.adapt = nn.Sequential(OrderedDict(layers))
        self.nodes = nn.ModuleList(
            nn.ModuleList(SearchedEdge(channels, width, operation, recompute) for operation, _ in node)
            for node in genotype.nodes
        )
        self.sources = [[source for _, source in node] for node in genotype.nodes]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C', H, W) -> (N, nodes*C, H, W)."""
        states = [first, second if self.adapt is None else self.adapt(second)]
        for node, sources in zip(self.nodes, self.sources):
            edges = [edge(states[source]) for edge, source in zip(node, sources)]  # type: ignore[call-overload]
            states.append(sum(edges[1:], start=edges[0]))
        return torch.cat(states[2:], dim=1)


class SearchedTower(nn.ModuleList):
    """Cells in a chain: each reads the second input of the one before it, and what that one gives."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two maps (N, C, H, W) -> (N, nodes*C, H, W)."""
        for cell in self:
            first, second = second, cell(first, second)
        return second


@FCOS_HEAD_REGISTRY.register()
@dataclass(eq=False, repr=False)
class FADHead(DenseHead):
    """Predicts class logits, raw ltrb and quality for every location; also has the options of `DenseHead`.

    Attributes:
        genotype: of box and class tower: name in `genotype.GENOTYPES`, or the two lines of a `genotype.log` as text.
        edge_channels: width of the operations within an edge, a multiple of 32.
        num_cells: cells of each tower.
        recompute: while training, compute GroupNorm and ReLU of large maps twice instead of keeping the results.

    Raises:
        ValueError: an option has no such value, or GroupNorm cannot split the channels into 32 groups.
        FcosError: there is no such genotype; one sentence.
    """

    genotype: str = option("paper", key="FAD_GENOTYPE")
    edge_channels: int = option(96, key="FAD_CHANNELS")
    num_cells: int = option(2, key="FAD_CELLS")
    recompute: bool = option(True, key="RECOMPUTE")

    def __post_init__(self) -> None:
        super().__init__()
        self._check(group_norm=True)
        for name, least in (("edge_channels", 32), ("num_cells", 1)):
            value = getattr(self, name)
            if value < least or value % least:
                raise ValueError(f"FADHead.{name} is {value}, but it must be a multiple of {least}, and above 0.")
        box, classes = pair_of(self.genotype, "FADHead.genotype")
        self.cls_tower, self.bbox_tower = self._tower(classes), self._tower(box)
        self.cls_reduce, self.box_reduce = self._reduction(classes), self._reduction(box)
        start_conv(self.cls_reduce)  # and the other is left as PyTorch makes it, as published
        self._add_predictors(start_conv)
        self._start_at_prior()

    def _tower(self, genotype: Genotype) -> SearchedTower:
        channels, wide = self.in_channels, self.in_channels * len(genotype.nodes)
        return SearchedTower(
            SearchedCell(genotype, channels, self.edge_channels, wide if i else channels, self.recompute)
            for i in range(self.num_cells)
        )

    def _reduction(self, genotype: Genotype) -> nn.Conv2d:
        return nn.Conv2d(self.in_channels * len(genotype.nodes), self.in_channels, 1)

    def branches(self, x: Tensor, level: int) -> tuple[list[Tensor], list[Tensor]]:
        box = self.box_reduce(self.bbox_tower(x, x))
        return self.class_maps(self.cls_reduce(self.cls_tower(box, x))), self.box_maps(box)
