"""ONNX models as files of OpenVINO; `intel.py` runs them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..intel import core
from ..runtime import KEY
from ..xmlseal import EMPTY, sealed

__all__ = ["saved_openvino"]


def saved_openvino(model: Any, metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """An ONNX model as the two files of OpenVINO, sealed with its metadata; weights are float16 if those say so."""
    import openvino

    converted = core().read_model(model.SerializeToString())
    converted.set_rt_info(EMPTY, KEY)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "model.xml")
        openvino.save_model(converted, place, compress_to_fp16=metadata["dtype"] == "float16")
        weights = place.with_suffix(".bin").read_bytes()
        return {"model.xml": sealed(place.read_bytes(), weights, metadata), "model.bin": weights}
