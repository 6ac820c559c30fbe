"""Inputs that graphs are traced with: no size of a map that pictures decide may be taken for a number."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from untrained import SMALL

from fcos_d2 import zoo
from fcos_d2.export import Wanted
from fcos_d2.export.graphs import EndToEnd
from fcos_d2.export.job import shapes_of
from fcos_d2.export.shapes import Shapes
from fcos_d2.export.tracing import FORMATS
from fcos_d2.modeling.backbone.hrnet import BRANCHES, HRFPN, hrfpn
from fcos_d2.modeling.backbone.network import FeatureBackbone
from fcos_d2.modeling.locations import LocationGrid
from fcos_d2.modeling.unfilled import unfilled

NETWORKS = json.loads((Path(__file__).parent / "networks.json").read_text(encoding="utf-8"))
QUICK = {f"small/{SMALL}", "adelaidet/FCOS_RT_MS_R_50_4x", "hrnet/fcos_hrnet_w18_6l_2x"}


class Means(FeatureBackbone):
    """HRNet's strides without its network."""

    def __init__(self) -> None:
        super().__init__()
        self.declare(BRANCHES, dict.fromkeys(BRANCHES, 3), {name: 4 * 2**i for i, name in enumerate(BRANCHES)})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: avg_pool2d(x, stride) for name, stride in self._out_feature_strides.items()}


class Located(nn.Module):
    """(N, R, 2) the coarsest map plus its locations, as end2end graphs have them."""

    output_names, grid, _locations = ("found",), LocationGrid(), EndToEnd._locations

    def __init__(self, backbone: HRFPN) -> None:
        super().__init__()
        self.backbone = backbone
        self.stride = max(shape.stride for shape in backbone.output_shape().values())

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor]:
        *_, last = self.backbone(images / 255).values()
        locations = self._locations(self.stride, last.shape[-2:], images.shape[-2:])
        return (last.flatten(2).transpose(1, 2) + locations + image_sizes.sum() * 0,)


@pytest.mark.parametrize(
    ("pyramid", "format"), [(hrfpn, "onnx"), (partial(hrfpn, top_levels=3), "torch-export")], ids=["128", "256"]
)
def test_sizes_of_the_coarsest_map_stay_open(pyramid: partial[HRFPN], format: str) -> None:
    """Also where windows leave over what is no full cell, and at a stride that no published network has."""
    network, form = Located(pyramid(Means(), out_channels=2)).eval(), FORMATS[format]
    shapes = shapes_of(network, Wanted())
    session = form.session(form.saved(form.traced(network, shapes), {}), network, shapes)
    for cells in ((1, 1), (1, 2), (2, 1), (3, 2)):
        height, width = (cell * shapes.coarsest for cell in cells)
        images, sizes = torch.rand(1, 3, height, width) * 255, torch.tensor([[height, width]])
        with torch.no_grad():
            (expected,) = network(images, sizes)
        found = session({"images": images.numpy(), "image_sizes": sizes.numpy()})["found"]
        assert found.shape == (1, math.prod(cells), 2)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param(x, marks=[] if x in QUICK else pytest.mark.slow) for x in NETWORKS])
def test_each_network_is_traced_with_more_than_one_cell(name: str) -> None:
    with unfilled(), torch.no_grad():
        model = instantiate(zoo.get_config(name).model).eval()
        maps = model.backbone(torch.empty_like(shapes_of(model, Wanted()).example()[0], device="meta"))
    for level in maps.values():
        height, width = level.shape[-2:]
        assert 1 < height < width


def test_what_runs_quickly_is_there() -> None:
    assert set(NETWORKS) >= QUICK


@pytest.mark.parametrize("step", [1, 14, 32, 128, 512])
@pytest.mark.parametrize("coarsest", [16, 128, 256])
def test_sides_are_multiples_that_differ(step: int, coarsest: int) -> None:
    images, sizes = Shapes(step, coarsest).example()
    height, width = images.shape[2:]
    assert not height % step and not width % step and 2 * coarsest <= height < width >= 3 * coarsest
    assert len(images) == len(sizes) == 2
