"""ONNX models as files of OpenVINO; `intel.py` runs them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..intel import core

__all__ = ["saved_openvino"]


def saved_openvino(model: Any, metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """An ONNX model as the two files of OpenVINO, with the metadata in them; weights are float16 if they say so."""
    import openvino

    converted = core().read_model(model.SerializeToString())
    converted.set_rt_info(json.dumps(metadata), "fcos_d2")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "model.xml")
        openvino.save_model(converted, place, compress_to_fp16=metadata["dtype"] == "float16")
        return {file.name: file.read_bytes() for file in (place, place.with_suffix(".bin"))}
