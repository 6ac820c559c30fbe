"""Each structure of the zoo is exported to each format and passes its certificate; of all variants docs tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from untrained import SMALL, untrained

from fcos_d2 import zoo
from fcos_d2.export import Wanted, export

SHAPES = ((64, 96), (96, 64))
# A variant of each kind of network, head and rule of selection; the other variants differ in width, depth and weights.
STRUCTURES = (
    SMALL,
    "fcos_R_50_FPN_1x",
    "fcos_imprv_dcnv2_R_50_FPN_1x",
    "fcos_bn_bs16_MNV2_FPN_1x",
    "FCOS_RT_MS_DLA_34_4x_shtw_bn",
    "FCOS_RT_MS_R_50_4x_bn",
    "FCOS_MS_V_39_3x",
    "detectron2/fcos_R_50_FPN_1x",
    "fcos_resnet50_fpn",
    "fcos_r50-caffe_fpn_gn-head_1x_coco",
    "vovnet/fcos_V_39_FPN_1x",
    "fcos_hrnet_w18_6l_2x",
    "fcos_hrnet_w18_5l_2x",
    "Mobile_NAS_head",
    "fad-fcos_imprv_R_50_FPN_1x",
    "nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco",
)


# Tracing for ONNX takes a minute or two of a core, TorchScript seconds; OpenVINO's files are made of the ONNX graph.
CASES = [
    *((name, "torchscript", graph) for name in STRUCTURES for graph in ("raw", "end2end")),
    *((name, "onnx", "end2end") for name in STRUCTURES),
    *((name, format, "end2end") for name in STRUCTURES[1:3] for format in ("openvino", "torch-export")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "format", "graph"), CASES)
def test_structure(name: str, format: str, graph: str, tmp_path: Path) -> None:
    predictor = untrained(name, side=128)  # HRNet-FCOS averages windows of 128 pixels
    found = export(predictor, tmp_path / "out", Wanted(format, graph, shapes=SHAPES), name, "random")
    assert found["certificate"]["detections"] > 20, found["certificate"]
    assert found["recipe"] == zoo.find(name).recipe
