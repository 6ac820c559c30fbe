"""OpenVINO: ONNX models converted to its files, deformable convolutions included, and run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["OpenVinoSession", "saved_openvino"]


class OpenVinoSession:
    """A model in OpenVINO, on the CPU, as `Detector` runs it.

    Args:
        data: of an ONNX file, or of an .xml file.
        weights: of the .bin file.

    Attributes:
        inputs: as those of `OnnxSession`.
    """

    def __init__(self, data: bytes, weights: bytes | None = None) -> None:
        import openvino

        model = _core().read_model(data) if weights is None else _core().read_model(data, weights)
        self._outputs = [value.get_any_name() for value in model.outputs]
        self.inputs = {
            value.get_any_name(): (
                tuple(side.get_length() if side.is_static else -1 for side in value.partial_shape),
                np.dtype(value.element_type.to_dtype()),
            )
            for value in model.inputs
        }
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        self._request = openvino.compile_model(model, "CPU", exact).create_infer_request()

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self._request.infer(dict(feeds))
        return {name: np.array(found[place]) for place, name in enumerate(self._outputs)}


def saved_openvino(model: Any, metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """An ONNX model as the two files of OpenVINO, with the metadata in them; weights are float16 if they say so."""
    import openvino

    converted = _core().read_model(model.SerializeToString())
    converted.set_rt_info(json.dumps(metadata), "fcos_d2")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "model.xml")
        openvino.save_model(converted, place, compress_to_fp16=metadata["dtype"] == "float16")
        return {file.name: file.read_bytes() for file in (place, place.with_suffix(".bin"))}


def _core() -> Any:
    """OpenVINO, which has deformable convolutions, but no rule for those of ONNX."""
    import openvino
    from openvino.frontend.onnx import ConversionExtension

    core = openvino.Core()
    core.add_extension(ConversionExtension("DeformConv", _deformable))
    return core


def _deformable(node: Any) -> Any:
    """OpenVINO's operator for ONNX's `DeformConv`; both have offsets (y, x) and nothing outside of the map."""
    from openvino import opset8

    image, weight, offset, bias, *mask = (node.get_input(place) for place in range(node.get_input_size()))
    pads = list(node.get_attribute("pads"))
    found = opset8.deformable_convolution(
        image, offset, weight, list(node.get_attribute("strides")), pads[:2], pads[2:],
        list(node.get_attribute("dilations")), mask[0] if mask else None, "EXPLICIT", node.get_attribute("group"),
        node.get_attribute("offset_group"), True,
    )  # fmt: skip
    axes = opset8.constant(np.array([0, 2, 3], np.int64))
    return opset8.add(found, opset8.unsqueeze(bias, axes)).outputs()
