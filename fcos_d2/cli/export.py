"""`fcos export`: a detector as one file that needs neither this package nor, as ONNX, PyTorch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ..errors import FcosError
from . import options as shared
from . import thresholds
from .checks import check, require_package
from .session import Result, Session, fcos_command

# The rows of export/tracing.py, which would import PyTorch: the packages that each needs.
_EXPORTER = ("onnx", "onnxscript", "onnxslim", "onnxruntime")
FORMATS = {"onnx": _EXPORTER, "openvino": (*_EXPORTER, "openvino"), "torchscript": (), "torch-export": ()}


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", value)
    if not found:
        raise click.BadParameter(f"{value!r} is no HEIGHTxWIDTH, for example 800x1216.")
    return int(found[1]), int(found[2])


@fcos_command("export")
@click.argument("source", metavar="MODEL")
@shared.output(help="Folder to write; it must be new or empty.")
@click.option(
    "--format", "format", type=click.Choice(list(FORMATS)), default="onnx", show_default=True, help="Of the file."
)
@click.option(
    "--graph", type=click.Choice(["end2end", "raw"]), default="end2end", show_default=True,
    help="end2end ends at boxes, scores and classes; raw at the maps of the head.",
)  # fmt: skip
@click.option(
    "--preprocessing", type=click.Choice(["outside", "inside"]), default="outside", show_default=True,
    help="Whether the file takes network inputs, or pictures as they are and resizes them itself.",
)  # fmt: skip
@click.option("--half", is_flag=True, help="float16; AP before and after is measured on --data.")
@click.option(
    "--int8", is_flag=True, help="int8 convolutions; AP likewise, and ranges from pictures of its train part."
)
@shared.data
@click.option(
    "--ap-loss", type=click.FloatRange(0, 1), default=0.005, show_default=True,
    help="With --half and --int8: what AP (0 to 1) may lose.",
)  # fmt: skip
@click.option("--size", callback=_size, metavar="HxW", help="Fixed size of the network input.  [default: any]")
@click.option("--batch-size", "batch", type=click.IntRange(1), help="Fixed number of images.  [default: any]")
@shared.path("--pictures", metavar="DIR|FILE", help="Pictures for the certificate, besides 12 generated ones.")
@shared.weights()
@shared.offline
@shared.force_recipe
@thresholds.threshold
@shared.max_pixels
def command(
    session: Session, source: str, output: Path | None, format: str, half: bool, int8: bool, weights: str | None,
    threshold: Any, force_recipe: bool, **options: Any,
) -> Result:  # fmt: skip
    """Write the detector MODEL (a checkpoint, a variant, a config) as a file that finds the same without fcos_d2.

    \b
    fcos export output/mine/model_best.pth -o exported
    python exported/fcos_runtime.py photo.jpg

    The file is only written if it finds what the detector finds, in pictures of six shapes, alone and in pairs: the
    same objects, within 0.001 pixels and 0.00001 in score. What was found is in the file, so that
    `python fcos_runtime.py verify` can look again.
    """
    if output is None:
        raise click.UsageError("Say where to write: -o DIR.")
    if half and int8:
        raise click.UsageError("--half and --int8 exclude each other.")
    if (half or int8) and options["data"] is None:
        raise click.UsageError("--half and --int8 are not exact: name a data set, --data DIR, for AP before and after.")
    if output.expanduser().is_dir() and any(output.expanduser().iterdir()):
        raise FcosError(f"{output} is not empty, and nothing is overwritten: choose another --output.")
    check(weights=weights, model=source, output=output, data=options["data"], detects=True)
    for name in FORMATS[format]:
        require_package(name, f"--format {format}", "fcos_d2[export]")
    session.start()
    from ..export import Wanted, export
    from ..predict import Predictor

    dtype = "float16" if half else "int8" if int8 else "float32"
    wanted = Wanted(format=format, dtype=dtype, **options)
    wanted.check()
    predictor = Predictor(
        source, weights=weights, device="cpu", score_threshold=threshold, allow_py=not session.no_py,
        force_recipe=force_recipe, tta=False,
    )  # fmt: skip
    steps = ("tracing", "model", "file")
    with session.progress("exporting", len(steps)) as progress:

        def tell(what: str, done: int, total: int) -> None:
            progress.update(steps.index(what) + (done == total), f"{what} {done}/{total}")

        with session.no_tables():
            found = export(predictor, output, wanted, source, weights, tell)
    return Result(found, _view(found))


def _view(found: dict[str, Any]) -> Text:
    proof = found["certificate"]
    pictures = f"{proof['pictures']} pictures of {len(proof['shapes'])} shapes"
    if "ap_before" in proof:
        told = f"AP {proof['ap_before']:.4f} before, {proof['ap_after']:.4f} after, on {proof['data']}"
    else:
        told = (
            f"{proof['detections']} objects in {pictures} are those of the model, boxes within "
            f"{proof['max_box_error_px']:.1g} pixels, scores within {proof['max_score_error']:.1g}"
        )
    lines = [f"{found['graph']} graph, {found['dtype']}: {told}"]
    if found["graph"] == "end2end" and found["select"]["max_detections_ties"] == "keep":
        lines.append(f"Where scores tie with the last of {found['select']['max_detections']} objects of a picture, the "
                     "detector reports all of them, the file only so many.")  # fmt: skip
    return Text("\n".join([*lines, "", *found["files"]]))
