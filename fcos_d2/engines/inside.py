"""Engines inside a `Predictor`: what is called as its model is, and runs elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.structures import Instances

from ..errors import FcosError
from ..libraries import require_library
from ..modeling.inputs import check_images
from ..predict.arrays import from_arrays
from ..runtime import Detector, OnnxSession
from .files import session_with, told_as_ours
from .names import able, require_engine
from .speed import fastest

__all__ = ["InEngine", "engine_for", "exported_bytes", "opened"]

_SIZE = (600, 800)  # height and width of the network input that engines are measured with


class InEngine:
    """An exported detector that is called as `FCOS` is.

    Args:
        detector: of a file without preprocessing, for any size.
        name: of the engine.
    """

    def __init__(self, detector: Detector, name: str) -> None:
        self.detector, self.name = detector, name
        self.step = max(int(detector.metadata["size_divisibility"]), 1)

    def __call__(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detections of network inputs, see `FCOS.forward`."""
        check_images(batched_inputs)
        sizes = [(x["image"].shape[-2], x["image"].shape[-1]) for x in batched_inputs]
        height, width = (-(-max(side) // self.step) * self.step for side in zip(*sizes))
        images = np.zeros((len(sizes), 3, height, width), np.float32)
        for row, inputs, size in zip(images, batched_inputs, sizes):
            row[:, : size[0], : size[1]] = inputs["image"].numpy(force=True)
        originals = [(x.get("height", size[0]), x.get("width", size[1])) for x, size in zip(batched_inputs, sizes)]
        with told_as_ours():
            found = self.detector.detect_inputs(images, sizes, originals)
        return [{"instances": from_arrays(x, size)} for x, size in zip(found, originals)]


def opened(
    path: str | Path, engine: str | None, threshold: Any, threads: int | None = None, calibrate: bool = False
) -> tuple[InEngine, list[Any]]:
    """An exported file as a model, and how images are resized for it.

    Args:
        threshold: of calibrated scores, if those will be reported; the model's own are not.
        calibrate: whether they will.

    Raises:
        FcosError: it cannot be used; or it resizes images itself, or takes one size alone.
    """
    names = able(path) if engine in (None, "auto") else [str(engine)]
    session, said = session_with(path, names[0], threads, threshold, None, calibrate)
    if said["preprocessing"] != "outside" or not said.get("dynamic", {}).get("size", True):
        raise FcosError(
            f"{path} resizes images itself, or takes one size alone, which a Predictor cannot use: take "
            "fcos_d2.engines.open_engine for it, or export it for any size."
        )
    resize = said.get("resize")
    resizes = [ResizeShortestEdge([resize["short_edge"]] * 2, resize["max_size"])] if resize else []
    with told_as_ours():
        return InEngine(Detector(path, threads, session=session, metadata=said), names[0]), resizes


def engine_for(predictor: Any, engine: str, source: str, weights: str | None) -> Any:
    """The model of a predictor in another engine; with "auto", in the fastest.

    Raises:
        FcosError: there is no such engine, or the model cannot be exported.
    """
    require_engine(engine)
    names = able(source) if engine == "auto" else [engine]
    data, metadata = exported_bytes(predictor, source, weights)
    models: dict[str, Any] = {"torch": predictor.model} if "torch" in names else {}
    for name in names:
        if name != "torch":
            models[name] = InEngine(Detector(source, session=session_in(name, data), metadata=metadata), name)
    if len(models) == 1:
        return next(iter(models.values()))
    inputs = [{"image": torch.rand(3, *_SIZE, generator=torch.Generator().manual_seed(0)) * 255}]
    with torch.inference_mode():
        return models[fastest({name: partial(model, inputs) for name, model in models.items()})]


def session_in(name: str, data: bytes, threads: int | None = None) -> Any:
    """An ONNX file's bytes in an engine."""
    if name == "openvino":
        from ..intel import OpenVinoSession

        return OpenVinoSession(data, threads)
    return OnnxSession(data, threads)


def exported_bytes(predictor: Any, source: str, weights: str | None) -> tuple[bytes, dict[str, Any]]:
    """The model of a predictor as a raw ONNX graph for any size, with its metadata; nothing is written.

    The metadata have no thresholds of classes: whoever asks for the boxes has them.
    """
    from ..export.described import described
    from ..export.job import FORMATS, Wanted, graph_of, shapes_of

    if not hasattr(predictor.model, "dense"):
        kind = type(predictor.model).__name__
        raise FcosError(f"Engines run FCOS only, but the model of {source} is {kind}: use engine='torch'.")
    for name in FORMATS["onnx"].packages:
        require_library(name, "Another engine than PyTorch")
    wanted = Wanted(graph="raw")
    graph, shapes = graph_of(predictor, wanted), shapes_of(predictor.model, wanted)
    data = FORMATS["onnx"].traced(graph, shapes).SerializeToString()
    said = described(predictor, graph="raw", dtype="float32", shapes=shapes, source=source, weights=weights)
    return data, {**said, "thresholds": [0.0] * len(predictor.class_names)}
