"""Each network of the zoo is exported and passes its certificate; docs/exporting.md has what was run, and when."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from untrained import SMALL, untrained

from fcos_d2 import Predictor, zoo
from fcos_d2.export import Wanted, export

SHAPES = ((64, 96), (96, 64))
# First variant of each network -> other variants that differ from it in numbers alone, as test_alike.py finds them.
NETWORKS: dict[str, list[str]] = json.loads((Path(__file__).parent / "networks.json").read_text(encoding="utf-8"))
FORMATS = [(format, graph) for format in ("torchscript", "onnx") for graph in ("end2end", "raw")]
# Some seconds; test_export.py has a small ONNX file of both graphs.
QUICK = {(f"small/{SMALL}", "torchscript", "end2end")}
OTHERS = [
    ("fcos/fcos_R_50_FPN_1x", "torch-export"), ("hrnet/fcos_hrnet_w18_6l_2x", "torch-export"),
    ("fcos/fcos_R_50_FPN_1x", "openvino"), ("fcos/fcos_imprv_dcnv2_R_50_FPN_1x", "openvino"),
]  # fmt: skip


@functools.lru_cache(maxsize=1)
def detector(name: str) -> Predictor:
    return untrained(name, side=128)  # HRNet-FCOS averages windows of 128 pixels


def passes(name: str, format: str, graph: str, folder: Path) -> None:
    found = export(detector(name), folder / "out", Wanted(format, graph, shapes=SHAPES), name, "random")
    assert found["certificate"]["detections"] > 20, found["certificate"]
    assert found["recipe"] == zoo.find(name).recipe


CASES = [
    pytest.param(name, format, graph, marks=[] if (name, format, graph) in QUICK else pytest.mark.slow)
    for name in NETWORKS for format, graph in FORMATS
]  # fmt: skip


@pytest.mark.parametrize(("name", "format", "graph"), CASES)
def test_network(name: str, format: str, graph: str, tmp_path: Path) -> None:
    passes(name, format, graph, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "format"), OTHERS)
def test_other_formats(name: str, format: str, tmp_path: Path) -> None:
    """OpenVINO's files are made of the ONNX graph; a torch-export program is what that is traced from."""
    passes(name, format, "end2end", tmp_path)


def test_what_runs_quickly_is_there() -> None:
    assert {(name, *case) for name in NETWORKS for case in FORMATS} >= QUICK
