"""Exported files in OpenVINO, on the CPU: .onnx as it is, and .xml with its .bin; deformable convolutions, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FcosError
from .libraries import require_library
from .paths import require_checkpoint
from .runtime import KEY, RuntimeFault, parsed_metadata

__all__ = ["OpenVinoSession", "core"]


def core() -> Any:
    """OpenVINO, which has deformable convolutions, with the rule that it lacks for those of ONNX."""
    require_library("openvino", "The engine openvino")
    import openvino
    from openvino.frontend.onnx import ConversionExtension

    made = openvino.Core()
    made.add_extension(ConversionExtension("DeformConv", _deformable))
    return made


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


def _model(source: str | Path | bytes, weights: bytes | None) -> Any:
    made = core()
    given = [source if isinstance(source, bytes) else str(require_checkpoint(source))]
    try:
        return made.read_model(*given, *([] if weights is None else [weights]))
    except Exception as error:  # OpenVINO raises RuntimeError and others
        name = "the model" if isinstance(source, bytes) else source
        raise FcosError(f"OpenVINO cannot read {name}: {_last_line(error)}") from error


class OpenVinoSession:
    """What `runtime.OnnxSession` is, in OpenVINO.

    Args:
        model: an .onnx or .xml file, or the bytes of one.
        threads: of one run.
        weights: bytes of the .bin file, where the model is the bytes of an .xml file.
    """

    def __init__(self, model: str | Path | bytes, threads: int | None = None, weights: bytes | None = None) -> None:
        made = _model(model, weights)
        import openvino

        # On processors with bfloat16 OpenVINO would round float32 to it, which moves boxes.
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model: Any = openvino.Core().compile_model(made, "CPU", settings)
        except Exception as error:
            name = "the model" if isinstance(model, bytes) else model
            raise FcosError(f"OpenVINO cannot run {name}: {_last_line(error)}") from error
        self.inputs = {port.get_any_name(): (_shape(port), port.get_element_type().to_dtype()) for port in made.inputs}
        self._said = made.get_rt_info([KEY]).astype(str) if made.has_rt_info([KEY]) else None
        self._outputs = [port.get_any_name() for port in made.outputs]

    def metadata(self, name: str) -> dict[str, Any]:
        """What an .xml file of `fcos export` says of itself, see `runtime.Detector`; `name` is that of the file.

        Raises:
            RuntimeFault: it says nothing that can be used.
        """
        return parsed_metadata([] if self._said is None else [self._said.encode()], name)

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Named outputs of named inputs."""
        try:
            found = self._model(dict(feeds))
        except Exception as error:
            raise RuntimeFault(f"OpenVINO cannot run the model: {_last_line(error)}") from error
        return {name: np.array(found[i]) for i, name in enumerate(self._outputs)}


def _shape(port: Any) -> tuple[int, ...]:
    return tuple(side.get_length() if side.is_static else -1 for side in port.get_partial_shape())


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300].rstrip(".") + "."
