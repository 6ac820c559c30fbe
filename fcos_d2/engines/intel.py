"""Exported files in OpenVINO, on the CPU: .onnx as it is, and .xml with the .bin beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FcosError
from ..libraries import require_library
from ..paths import require_checkpoint
from ..runtime import KEY, RuntimeFault, checked_metadata, read_metadata

__all__ = ["OpenVinoSession", "metadata_of"]


def _model(path: str | Path | bytes) -> Any:
    require_library("openvino", "The engine openvino")
    import openvino

    source = path if isinstance(path, bytes) else str(require_checkpoint(path))
    try:
        return openvino.Core().read_model(source)
    except Exception as error:  # OpenVINO raises RuntimeError and others
        name = "the model" if isinstance(path, bytes) else path
        raise FcosError(f"OpenVINO cannot read {name}: {_last_line(error)}") from error


def metadata_of(path: str | Path) -> dict[str, Any]:
    """The metadata of an exported file, see `runtime.Detector`; of an .xml those in its rt_info.

    Raises:
        RuntimeFault, FcosError: it has none that can be used.
    """
    if Path(path).suffix.lower() == ".onnx":
        return read_metadata(path)
    model = _model(path)
    if not model.has_rt_info([KEY]):
        raise RuntimeFault(f"{path} does not say how to use it: it is no file of `fcos export`.")
    try:
        return checked_metadata(json.loads(model.get_rt_info([KEY]).astype(str)), str(path))
    except ValueError as error:
        if isinstance(error, RuntimeFault):
            raise
        raise RuntimeFault(f"The metadata of {path} are damaged: export it again.") from error


class OpenVinoSession:
    """What `runtime.OnnxSession` is, in OpenVINO.

    Args:
        model: an .onnx or .xml file, or the bytes of the former.
        threads: of one run.
    """

    def __init__(self, model: str | Path | bytes, threads: int | None = None) -> None:
        made = _model(model)
        import openvino

        # On processors with bfloat16 OpenVINO would round float32 to it, which moves boxes.
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model: Any = openvino.Core().compile_model(made, "CPU", settings)
        except Exception as error:
            raise FcosError(f"OpenVINO cannot run {model!r}: {_last_line(error)}") from error
        self.inputs = {port.get_any_name(): (_shape(port), port.get_element_type().to_dtype()) for port in made.inputs}
        self._outputs = [port.get_any_name() for port in made.outputs]

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
