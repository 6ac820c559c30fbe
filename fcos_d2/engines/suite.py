"""The suite "engines" of `fcos bench`: one detector in all engines, beside other projects' eager models, in one run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import FcosError
from ..evaluation import speed
from ..runtime import Detector
from .inside import InEngine, exported_bytes, opened, session_in
from .names import able
from .peers import PEERS

__all__ = ["measured"]

_NAMES = {"onnx": "onnxruntime", "openvino": "OpenVINO"}
Makers = dict[str, Callable[[], Any]]


def measured(
    predictor: Any, source: str, weights: str | None, files: Sequence[Path], inputs: list[dict[str, Any]],
    seconds: float, tell: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """Time, memory and detections of each way to run a detector.

    Args:
        predictor: with the detector, on the CPU, not optimized.
        source, weights: where it is from.
        files: exported files to be measured, too.
        inputs: network inputs, {"image": (3, H, W) in 0..255}; of one size.
        seconds: to spend on times, roughly.
        tell: called with what is going on.
    Returns:
        Rows of `evaluation.speed.measure`; "memory_bytes" is what the process needs for the model and a first run
        above what it had before; "detections" is `speed.difference` to the plain model, `None` where a way has other
        weights.
    """
    plain = predictor.model
    if not hasattr(plain, "dense"):
        raise FcosError(f"The suite engines runs FCOS only, but the model is {type(plain).__name__}.")
    finding = speed.finding(plain, inputs)
    predictor.model = finding
    tell("Exporting ...")
    ways = _makers(predictor, source, weights, files, (inputs[0]["image"].shape[-2], inputs[0]["image"].shape[-1]))
    models, memory = {}, []
    for name, make in ways.items():
        tell(f"Loading {name} ...")
        bytes_needed, models[name] = _loaded(make, inputs, predictor.device)
        memory.append(bytes_needed)
    expected = speed.detections(models["fcos_d2, eager"], inputs)
    same = [speed.difference(expected, speed.detections(model, inputs)) for model in models.values()]
    tell("Measuring ...")
    rows = speed.measure(models, inputs, predictor.device, seconds)
    return [
        {**row, "memory_bytes": need, "detections": _told(row["name"], found)}
        for row, need, found in zip(rows, memory, same)
    ]


def _told(name: str, found: dict[str, Any]) -> dict[str, Any] | None:
    """What a row says of its detections: of another project only where it has the same weights and rules."""
    return None if name == "fcos_d2, eager" or (name in PEERS and not found["equal"]) else found


def _makers(predictor: Any, source: str, weights: str | None, files: Sequence[Path], size: tuple[int, int]) -> Makers:
    """Name -> what makes a model, called as ours is."""
    model, threads = predictor.model, torch.get_num_threads()
    data, metadata = exported_bytes(predictor, source, weights)
    made: Makers = {"fcos_d2, eager": lambda: copy.deepcopy(model), "fcos_d2, optimized": lambda: model.optimize()}
    for name in able("model.onnx"):
        made[f"fcos_d2, {_NAMES[name]}"] = _in_engine(name, data, metadata, threads)
    for path in files:
        made[path.name] = partial(_opened, path, threads)
    for name, peer in PEERS.items():
        made[name] = partial(peer, model.state_dict(), model.num_classes, model.dense.selector, size)
    return made


def _opened(path: Path, threads: int) -> InEngine:
    return opened(path, None, None, threads)[0]


def _in_engine(name: str, data: bytes, metadata: Mapping[str, Any], threads: int) -> Callable[[], InEngine]:
    return lambda: InEngine(Detector(name, session=session_in(name, data, threads), metadata=metadata), name)


def _loaded(make: Callable[[], Any], inputs: list[dict[str, Any]], device: torch.device) -> tuple[int | None, Any]:
    """Bytes for a model and its first run, and the model."""
    made: list[Any] = []

    def run() -> Any:
        made.append(make())
        with torch.inference_mode():
            return made[0](inputs)

    return speed.peak_memory(run, device), made[0]
