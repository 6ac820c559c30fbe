"""From a detector to a folder with the file, what goes with it, and a certificate."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import runtime
from ..errors import FcosError
from ..files import write_atomically
from ..intel import OpenVinoSession
from ..predict import Predictor
from ..runtime import Detections, Detector, OnnxSession, RuntimeFault, resized_size
from .certificate import SHAPES, by_model, certified, expected_of, plain, plan, reduced
from .described import described
from .graphs import EndToEnd, RawGraph
from .measured import Measure
from .reduced import halved, quantized
from .shapes import Shapes
from .tracing import FORMATS, Format
from .wrapping import picture_graph, with_pictures

__all__ = ["Wanted", "export"]

Tell = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Wanted:
    """What is exported.

    Attributes:
        format: of `FORMATS`.
        graph: "raw", maps of the head; or "end2end", boxes, scores and classes.
        preprocessing: "outside" the file, or "inside" it.
        dtype: "float32", "float16" or "int8".
        size: (height, width) of the network input, `None` for any.
        batch: number of pictures, `None` for any.
        pictures: for the certificate, besides the generated ones: a folder or a file.
        shapes: (height, width) of the generated ones.
        data: a data set that AP of reduced precision is of; its train part has the pictures that int8 is calibrated by.
        ap_loss: AP, 0..1, that reduced precision may cost.
    """

    format: str = "onnx"
    graph: str = "end2end"
    preprocessing: str = "outside"
    dtype: str = "float32"
    size: tuple[int, int] | None = None
    batch: int | None = None
    pictures: Path | None = None
    shapes: tuple[tuple[int, int], ...] = SHAPES
    data: Path | None = None
    ap_loss: float = 0.005

    def check(self) -> None:
        """Raise FcosError for what does not go together."""
        form, reduces = FORMATS[self.format], self.dtype != "float32"
        if not form.is_onnx and (self.preprocessing == "inside" or reduces):
            what = "--preprocessing inside" if self.preprocessing == "inside" else self.dtype
            raise FcosError(f"{what} is made by ONNX's tools: use --format onnx or openvino, not {self.format}.")
        if self.preprocessing == "inside" and self.size:
            raise FcosError("--size is of the network input, which --preprocessing inside makes itself: leave it out.")
        if reduces and self.data is None:
            raise FcosError(f"{self.dtype} is not exact, so AP before and after is certified: name a data set, --data.")


def export(
    predictor: Predictor, folder: str | Path, wanted: Wanted, source: str, weights: str | None = None,
    tell: Tell = lambda what, done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Write a detector to a folder, if the file finds what the detector finds.

    Args:
        predictor: with the detector, on the CPU, not optimized.
        folder: gets the model, `card.json` and, of ONNX, `fcos_runtime.py`.
        wanted: what is written.
        source, weights: where the detector is from, see `described`.
        tell: called with what is being done, how much of it is done, and how much there is.
    Returns:
        "files" (paths), "certificate" without the pictures, and the rest of the metadata.
    Raises:
        FcosError: the detector cannot be exported; or the file finds something else, and is not written.
    """
    try:
        return _export(predictor, Path(folder).expanduser(), wanted, source, weights, tell)
    except RuntimeFault as error:  # of a picture, or of the file's runtime
        raise FcosError(str(error)) from error


def _export(
    predictor: Predictor, folder: Path, wanted: Wanted, source: str, weights: str | None, tell: Tell
) -> dict[str, Any]:
    wanted.check()
    require_new(folder)
    form, (rows, cases) = FORMATS[wanted.format], plan(wanted.pictures, wanted.shapes)
    measure = None if wanted.data is None else Measure(wanted.data, predictor.class_names)
    tell("tracing", 0, 1)
    graph, shapes = graph_of(predictor, wanted), shapes_of(predictor.model, wanted)
    core = _traced(form, graph, shapes, wanted.format)
    tell("tracing", 1, 1)
    said = described(
        predictor, graph=wanted.graph, dtype=wanted.dtype, shapes=shapes, source=source, weights=weights,
        packages=form.packages,
    )  # fmt: skip
    made = _finished(core, said, measure) if form.is_onnx else core
    session = form.session(form.saved(made, said), graph, shapes)
    detector = Detector(wanted.format, session=session, metadata=said, batch=2)
    if measure is None or wanted.dtype == "float32":
        find: Any = functools.partial(by_model, predictor)
        if shapes.inside:
            find = functools.partial(_by_model_inside, predictor, _looking(form, said, core))
        elif shapes.size:
            find = functools.partial(_by_model_padded, predictor, detector, shapes.size)
        expected_of(find, cases, lambda done: tell("model", done, len(cases)))
        name = f"The {wanted.format} file"
        proof = certified(detector, rows, cases, name, lambda done: tell("file", done, len(cases)))
    else:
        proof = reduced(detector, rows, cases, _aps(measure, predictor, detector, wanted, tell))
    whole = {**said, "certificate": proof}
    beside = {"card.json": json.dumps(whole, indent=1).encode()}
    if wanted.format == "onnx":
        beside["fcos_runtime.py"] = Path(runtime.__file__).read_bytes()
    return {**_summary(whole), "files": _written(folder, {**beside, **form.saved(made, whole)})}


def require_new(folder: Path) -> None:
    """Raise FcosError if something lies in a folder, which nothing shall replace."""
    if folder.expanduser().is_dir() and any(folder.expanduser().iterdir()):
        raise FcosError(f"{folder} is not empty, and nothing is overwritten: choose another --output.")


def _traced(form: Format, graph: Any, shapes: Shapes, name: str) -> Any:
    try:
        return form.traced(graph, shapes)
    except Exception as error:  # exporters raise anything
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise FcosError(f"PyTorch cannot trace this detector for --format {name}: {why[:300]}") from error


def graph_of(predictor: Predictor, wanted: Wanted) -> Any:
    """The module that is traced."""
    model = predictor.model
    if wanted.graph == "raw":
        return RawGraph(model).eval()
    return EndToEnd(model, predictor.least, FORMATS[wanted.format].suppress).eval()


def shapes_of(model: Any, wanted: Wanted) -> Shapes:
    """Shapes of the inputs of a detector's graph.

    Raises:
        FcosError: sides that the network cannot have.
    """
    step = max(int(model.backbone.size_divisibility), 1)
    if wanted.size is not None and any(side < step or side % step for side in wanted.size):
        raise FcosError(
            f"--size is {wanted.size[0]}x{wanted.size[1]}, but this network takes sides that are multiples of {step}."
        )
    coarsest = max(shape.stride for shape in model.backbone.output_shape().values())
    return Shapes(step, coarsest, wanted.size, wanted.batch, wanted.preprocessing == "inside")


def _finished(model: Any, said: Mapping[str, Any], measure: Measure | None) -> Any:
    """The ONNX model in the wanted precision, with the preprocessing in it if that is wanted."""
    if said["dtype"] == "float16":
        model = halved(model)
    elif said["dtype"] == "int8":
        assert measure is not None, "`Wanted.check` has seen to it"
        pictures = measure.calibration()
        outside = {**said, "preprocessing": "outside"}
        detector = Detector("", session=OnnxSession(model.SerializeToString()), metadata=outside)

        def inputs() -> Any:
            for picture in pictures:
                height, width = picture.shape[:2]
                size = resized_size(height, width, said["resize"])
                yield {"images": detector.network_input([picture], size), "image_sizes": np.array([size], np.int64)}

        model = quantized(model, inputs)
    return with_pictures(model, said) if said["preprocessing"] == "inside" else model


def _looking(form: Format, said: Mapping[str, Any], model: Any) -> Any:
    """The preprocessing of a file alone, as a session."""
    data = picture_graph(said, model).SerializeToString()
    return OnnxSession(data) if form is FORMATS["onnx"] else OpenVinoSession(data)


def _by_model_inside(predictor: Predictor, look: Any, pictures: Sequence[np.ndarray]) -> list[Detections]:
    """What the detector finds in pictures that the file has resized."""
    made = look({"picture": np.stack(list(pictures))})
    return _by_model_in(predictor, made["images"], made["image_sizes"].tolist(), pictures)


def _by_model_padded(
    predictor: Predictor, detector: Detector, full: tuple[int, int], pictures: Sequence[np.ndarray]
) -> list[Detections]:
    """What the detector finds in pictures that are padded to a fixed size, beside an empty one of that size."""
    size = detector._input_size(*pictures[0].shape[:2])
    images = detector.network_input(pictures, size)
    empty = np.zeros((1, 3, *full), np.float32)
    shown = [*pictures, np.zeros((*full, 3), np.uint8)]
    return _by_model_in(predictor, np.concatenate((images, empty)), [*[size] * len(pictures), full], shown)[:-1]


def _by_model_in(
    predictor: Predictor, images: np.ndarray, sizes: Sequence[Sequence[int]], pictures: Sequence[np.ndarray]
) -> list[Detections]:
    """What the detector finds in network inputs (N, 3, H, W), whose pictures are (height, width) of `sizes` in them."""
    inputs = [
        {"image": torch.from_numpy(image[:, :rows, :columns].copy()), "height": shown.shape[0], "width": shown.shape[1]}
        for image, (rows, columns), shown in zip(images, sizes, pictures)
    ]
    return [plain(x["instances"]) for x in predictor.predict_inputs(inputs)]


def _aps(measure: Measure, predictor: Predictor, detector: Detector, wanted: Wanted, tell: Tell) -> dict[str, Any]:
    """AP before and after.

    Raises:
        FcosError: more is lost than may be.
    """
    total = len(measure)
    before = measure.ap(functools.partial(by_model, predictor), lambda done: tell("model", done, total))
    after = measure.ap(detector.detect, lambda done: tell("file", done, total))
    if not before - after <= wanted.ap_loss:
        raise FcosError(
            f"In {wanted.dtype} AP falls from {before:.4f} to {after:.4f}, by more than {wanted.ap_loss:g} "
            "(--ap-loss). Nothing was written."
        )
    return {"ap_before": before, "ap_after": after, "data": Path(measure.data).name}


def _summary(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with the figures of the certificate alone."""
    proof = {key: value for key, value in metadata["certificate"].items() if key not in ("pictures", "cases")}
    return {**metadata, "certificate": {**proof, "pictures": len(metadata["certificate"]["pictures"])}}


def _written(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write all files, the model last, or none."""
    there = folder.is_dir()
    try:
        for name, data in files.items():
            write_atomically(folder / name, functools.partial(_write, data))
    except BaseException:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        if not there:
            with suppress(OSError):
                folder.rmdir()
        raise
    return [str(folder / name) for name in list(files)[::-1]]


def _write(data: bytes, file: Any) -> None:
    file.write(data)
